"""What one server process holds: settings, ledger, the policy in force, and its turn to change.

The policy is read again when its file changes, looked at no more than once a second. One lock
for all processes of the server is held from the decision about a registry act to the end of
its request, so that nothing a decision rests on changes before the act is done.
"""

from __future__ import annotations

import fcntl
import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from clr.audit.ledger import Ledger, open_ledger
from clr.errors import ClrError, ServiceUnavailable
from clr.registry.roles import Policy, load_policy, policy_path, warnings
from clr.registry.server.places import Places
from clr.registry.server.stamp import stamp_path
from clr.settings import Settings

LOG = logging.getLogger("mlflow.clr")
_SERVER = {"actor": "clr-registry", "authentication": "server-process"}
_LOOK_SECONDS = 1.0
_TURN_SECONDS = 60.0


@dataclass(frozen=True)
class Turn:
    """The right to change the registry; ends with `Keeper.leave`."""

    file: IO[bytes]


class Keeper:
    """The state of one server process; made once, used by all its threads.

    Attributes:
        settings: of the workspace.
        ledger: opened.
        places: of runs and logged models that are written to.
    """

    def __init__(self, settings: Settings) -> None:
        """Read the policy for the first time.

        Raises:
            UsageError: it is not one; a server without a policy must not start.
            ServiceUnavailable: the folder of state cannot be written.
        """
        self.settings = settings
        self.ledger: Ledger = open_ledger(settings.state, settings.ledger_url, trailing=True)
        self._path = policy_path(settings.workspace)
        self._folder = settings.state / "server"
        self._next_look = 0.0
        self._looking = threading.Lock()
        self._mine = threading.Lock()
        try:
            self.places = Places(self._folder / "places")
        except OSError as error:
            raise ServiceUnavailable(
                f"{self._folder} cannot be made: {error.strerror}.", fix="Make it writable."
            ) from error
        self._seen = _signature(self._path)
        self._stamp = _signature(stamp_path(settings.state))
        self._policy = load_policy(self._path)
        self._announce()

    def due(self) -> bool:
        """Say whether the next `policy` looks at files, and may write to the ledger."""
        return time.monotonic() >= self._next_look

    def policy(self) -> Policy:
        """Return the policy in force, having looked at its file within the last second."""
        now = time.monotonic()
        if now >= self._next_look and self._looking.acquire(blocking=False):
            try:
                self._next_look = now + _LOOK_SECONDS
                self._look()
            finally:
                self._looking.release()
        return self._policy

    def _look(self) -> None:
        stamp = _signature(stamp_path(self.settings.state))
        if stamp != self._stamp:
            self._stamp = stamp
            _forget_passwords()
        seen = _signature(self._path)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._policy = load_policy(self._path)
        except ClrError as error:
            LOG.error("THE POLICY IS NOT VALID, the one before stays in force: %s", error)
            return
        self._announce()

    def _announce(self) -> None:
        """Say and record which policy is in force."""
        policy = self._policy
        for sentence in warnings(policy):
            LOG.warning("%s", sentence)
        payload = {"digest": policy.digest, "four_eyes": policy.four_eyes}
        key = f"policy:{policy.digest}:{self._seen[0]}"
        try:
            self.ledger.append("policy.loaded", "policy", payload, key=key, **_SERVER)
        except ClrError as error:
            LOG.error("The policy in force could not be recorded: %s", error)

    def turn(self, seconds: float = _TURN_SECONDS) -> Turn:
        """Wait for the right to change the registry; one holder among all processes.

        Raises:
            ServiceUnavailable: others held it for `seconds`, or the file cannot be written.
        """
        give_up = time.monotonic() + seconds
        if not self._mine.acquire(timeout=seconds):
            raise _busy(seconds)
        try:
            file = (self._folder / "registry.lock").open("ab")
        except OSError as error:
            self._mine.release()
            raise ServiceUnavailable(
                f"The lock of the registry cannot be used: {error.strerror}.",
                fix="Make CLR_HOME writable for the server.",
            ) from error
        while not _taken(file):
            if time.monotonic() > give_up:
                file.close()
                self._mine.release()
                raise _busy(seconds)
            time.sleep(0.002)
        return Turn(file)

    def leave(self, turn: Turn) -> None:
        """Give the right back."""
        turn.file.close()
        self._mine.release()


def _busy(seconds: float) -> ServiceUnavailable:
    return ServiceUnavailable(
        f"Others have been changing the registry for {seconds:.0f} s.", fix="Try again."
    )


def _taken(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _signature(path: Path) -> tuple[int, int, int]:
    """Return what changes when a file does; zeros without a file."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _forget_passwords() -> None:
    """Empty the cache in which MLflow keeps passwords that it has checked."""
    from mlflow.server import auth

    if auth._USER_AUTH_CACHE is not None:
        with auth._USER_AUTH_CACHE_LOCK:
            auth._USER_AUTH_CACHE.clear()
