"""The inside of the prediction server: images in, answers of the release in force out."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

from clr.errors import DataRefused
from clr.serving.loading import load
from clr.serving.snapshot import Loaded, Snapshot
from clr.serving.values import (
    Answer,
    Code,
    Failed,
    Feedback,
    Health,
    How,
    Item,
    NotReady,
    ServedTask,
    UnknownRequest,
)

if TYPE_CHECKING:
    from clr.core.backbone import Backbone
    from clr.registry.store import Registry
    from clr.settings import Settings


class Engine:
    """Serves the release in force of one registry.

    ``start`` it before the first call and ``close`` it after the last.
    """

    def __init__(self, settings: Settings) -> None:
        """Prepare; nothing is loaded yet."""
        self.settings = settings
        self._snapshot: Snapshot | None = None
        self._journal: dict[str, Answer] = {}

    async def start(self) -> None:
        """Load backbone and release.

        Raises:
            ClrError: a setting is wrong, or nothing can be loaded.
        """
        await asyncio.to_thread(self._load)

    async def close(self) -> None:
        """Take no more, end what is in work, then let go of everything."""
        self._snapshot = None

    def _load(self) -> None:
        from clr.core.backbone import find_device, load_backbone
        from clr.core.network import ReprogrammedNetwork
        from clr.registry.releases import current_release
        from clr.registry.store import open_registry

        settings = self.settings
        self._registry: Registry = open_registry(settings)
        self._backbone: Backbone = load_backbone(
            settings.backbone,
            architecture=settings.backbone_architecture,
            sha256=settings.backbone_sha256,
            device=find_device(settings.device, settings.threads),
        )
        self._network = ReprogrammedNetwork(self._backbone)
        release = current_release(self._registry)
        if release is None:
            return
        snapshot, adapters = load(self._registry, settings.state, self._backbone, release)
        for digest, adapter in adapters.items():
            self._network.attach(adapter, digest)
        self._snapshot = snapshot

    async def predict(self, items: Sequence[Item], *, client: str = "") -> list[Answer | Failed]:
        """Answer each item; one that cannot be answered does not stop the others.

        Args:
            items: images.
            client: who asks, for the journal.

        Raises:
            NotReady: no release is loaded, or the server is stopping.
            Overloaded: too much waits already.
        """
        snapshot = self._ready()
        return await asyncio.to_thread(lambda: [self._predict(snapshot, one) for one in items])

    def _predict(self, snapshot: Snapshot, item: Item) -> Answer | Failed:
        request_id = uuid.uuid4().hex

        def failed(error: str, code: Code) -> Failed:
            return Failed(item.file, request_id, error, code)

        try:
            task, how = self._task(snapshot, item)
            if task not in snapshot.release.tasks:
                return failed(f"There is no task {task!r}.", "unknown-task")
            if task in snapshot.refused:
                return failed(f"{task} is not served: {snapshot.refused[task]}", "unavailable-task")
            answer = self._classify(snapshot, item, snapshot.tasks[task], how, request_id)
        except DataRefused as error:
            return failed(error.message, "unreadable")
        self._journal[request_id] = answer
        return answer

    def _task(self, snapshot: Snapshot, item: Item) -> tuple[str, How]:
        from clr.core.images import decode, prepare
        from clr.core.routing import preprocessing, project

        if item.task is not None:
            return item.task, "named"
        if snapshot.router is None:
            return next(iter(snapshot.release.tasks)), "only"
        way = preprocessing(self._backbone)
        pixels = decode(item.data, way.size, interpolation=way.interpolation)
        features = self._network.features(prepare(pixels[None], way)).cpu().numpy()
        return snapshot.router.tasks[int(snapshot.router.route(project(features))[0])], "routed"

    def _classify(
        self, snapshot: Snapshot, item: Item, loaded: Loaded, how: How, request_id: str
    ) -> Answer:
        import torch

        from clr.core.images import decode, prepare

        way, labels = loaded.spec.preprocessing, loaded.spec.labels
        pixels = decode(item.data, way.size, interpolation=way.interpolation)
        logits = self._network.logits(prepare(pixels[None], way), loaded.name)
        probabilities = dict(zip(labels, torch.softmax(logits[0].float(), 0).tolist(), strict=True))
        label = max(probabilities, key=probabilities.__getitem__)
        return Answer(
            file=item.file,
            request_id=request_id,
            release=snapshot.release.version,
            release_digest=snapshot.release.digest,
            task=loaded.ref.task,
            how=how,
            label=label,
            probability=probabilities[label],
            probabilities=probabilities,
            adapter=loaded.ref.adapter_digest,
            version=loaded.ref.version,
        )

    async def feedback(self, request_id: str, label: str, *, client: str = "") -> Feedback:
        """Write down what an image really was.

        Raises:
            UnknownRequest: no answer with this id.
            UsageError: the task has no such label.
        """
        answer = self._journal.get(request_id)
        if answer is None:
            raise UnknownRequest(f"There is no request {request_id!r}.", fix="See its answer.")
        return Feedback(request_id, answer.task, answer.label, label, first=True)

    def health(self) -> Health:
        """Return what can be answered now."""
        snapshot = self._snapshot
        if snapshot is None:
            return Health(ready=False, state="starting")
        return Health(
            ready=True,
            state="serving",
            release=snapshot.release.version,
            release_digest=snapshot.release.digest,
            backbone=snapshot.release.backbone,
            tasks=tuple(snapshot.tasks),
            refused=snapshot.refused,
            routing=snapshot.routing,
        )

    def tasks(self) -> list[ServedTask]:
        """Return the tasks of the release in force, those that are refused too, by name.

        Raises:
            NotReady: no release is loaded.
        """
        snapshot = self._ready()
        return [
            ServedTask(
                name,
                ref.version,
                ref.adapter_digest,
                snapshot.tasks[name].spec.labels if name in snapshot.tasks else (),
                snapshot.tasks[name].spec.preprocessing.size if name in snapshot.tasks else 0,
                self._backbone.name,
                snapshot.refused.get(name, ""),
            )
            for name, ref in sorted(snapshot.release.tasks.items())
        ]

    def _ready(self) -> Snapshot:
        if self._snapshot is None:
            raise NotReady("No release is served yet.", fix="Look at /health, then try again.")
        return self._snapshot
