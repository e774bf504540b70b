"""What goes into the prediction server and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from clr.errors import ServiceUnavailable, UsageError

How = Literal["named", "only", "routed"]
"""Who chose the task: the caller, nobody since there is one only, or the router."""

Arm = Literal["champion", "challenger"]

Code = Literal[
    "unreadable",
    "too-large",
    "unknown-task",
    "unavailable-task",
    "routing-unavailable",
    "time-out",
    "internal",
]
"""Why an item has no answer."""


class Overloaded(ServiceUnavailable):
    """So much waits already that more would only wait: come again after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(
            message,
            fix=f"Send it again after {retry_after:.0f} s, fewer at once.",
            retry_after=retry_after,
        )
        self.retry_after = retry_after


class NotReady(ServiceUnavailable):
    """No release is loaded yet, the server is stopping, or a label cannot be written down."""


class UnknownRequest(UsageError):
    """No answer with this request id is in the journal."""


@dataclass(frozen=True)
class Item:
    """One image to be labelled.

    Attributes:
        file: the caller's name of it.
        data: the image file's bytes.
        task: its task; None: to be found.
        unit: what an A/B test keeps in one arm, a serial number, say.
        version: of the task, which alone may answer, without an A/B test; None: whichever serves.
    """

    file: str
    data: bytes = field(repr=False)
    task: str | None = None
    unit: str | None = None
    version: int | None = None


@dataclass(frozen=True)
class Answer:
    """What an image was found to be, and by what.

    Attributes:
        file: the caller's name of it.
        request_id: of this image; the journal and ``clr audit --request`` know it.
        release: number of the release.
        release_digest: of its ``release.json``.
        task: of the adapter.
        how: who chose the task.
        label: the most probable class.
        probability: of it.
        probabilities: of every class.
        adapter: digest of the adapter's file.
        version: of the task's registered model.
        arm: ``champion``, or ``challenger`` in an A/B test.
        doubtful: why the choice of the task is doubtful, a sentence; empty: it is not.
        unknown: the image looks like none of the tasks.
    """

    file: str
    request_id: str
    release: int
    release_digest: str
    task: str
    how: How
    label: str
    probability: float
    probabilities: Mapping[str, float]
    adapter: str
    version: int
    arm: Arm = "champion"
    doubtful: str = ""
    unknown: bool = False


@dataclass(frozen=True)
class Failed:
    """Why an image has no answer; the others of its request are answered.

    Attributes:
        file: the caller's name of it.
        request_id: of this image.
        error: what is wrong, a sentence.
        code: the same for programs.
    """

    file: str
    request_id: str
    error: str
    code: Code


@dataclass(frozen=True)
class ServedTask:
    """A task of the release in force.

    Attributes:
        name: of the task.
        version: of its registered model.
        adapter: digest of the adapter's file.
        labels: class names.
        image_size: side in pixels to which images are brought.
        backbone: name of the backbone.
        refused: why it is not served; empty: it is.
    """

    name: str
    version: int
    adapter: str
    labels: tuple[str, ...]
    image_size: int
    backbone: str
    refused: str = ""


@dataclass(frozen=True)
class Health:
    """What the server can do now.

    Attributes:
        ready: a release is loaded, and one of its tasks at least is served.
        state: ``starting``, ``serving`` or ``stopping``.
        release: number of the release; 0: none.
        release_digest: of its ``release.json``.
        backbone: digest of the backbone.
        tasks: names of the tasks that are served.
        refused: why each other task of the release is not served.
        routing: why images without a task cannot be answered; empty: they can.
        registry: why the registry cannot be asked; empty: it can.
        journal: why answers cannot be written down; empty: they are.
        cached: the release was loaded from local copies, without asking the registry.
        waiting: images in work.
        trials: how each trial runs, or why it does not, a few words, by task.
    """

    ready: bool
    state: Literal["starting", "serving", "stopping"]
    release: int = 0
    release_digest: str = ""
    backbone: str = ""
    tasks: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    routing: str = ""
    registry: str = ""
    journal: str = ""
    cached: bool = False
    waiting: int = 0
    trials: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Feedback:
    """A label that came later.

    Attributes:
        request_id: of the answer it is about.
        task: that answered.
        predicted: what the answer said.
        label: what it really was.
        first: nobody had said so before.
    """

    request_id: str
    task: str
    predicted: str
    label: str
    first: bool
