"""A chore that follows many acts: done soon after the last of them, beside them, and at exit."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable

LOG = logging.getLogger(__name__)


class Trailing:
    """Calls `chore` a moment after it was asked for, once for all who asked meanwhile."""

    def __init__(self, chore: Callable[[], None], seconds: float) -> None:
        """Do nothing until it is asked for.

        Args:
            chore: may be called at any time, from any thread.
            seconds: how long it waits for more askers.
        """
        self._chore = chore
        self._seconds = seconds
        self._lock, self._doing = threading.Lock(), threading.Lock()
        self._due = False
        self._thread: threading.Thread | None = None
        at_exit, in_child = weakref.WeakMethod(self.finish), weakref.WeakMethod(self._forget)
        atexit.register(lambda: _call(at_exit))
        os.register_at_fork(after_in_child=lambda: _call(in_child))

    def ask(self) -> None:
        """See that the chore is done soon."""
        with self._lock:
            self._due = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True)
                self._thread.start()

    def finish(self) -> None:
        """Do the chore now if it is still to be done; wait where the thread has begun it."""
        with self._doing:
            with self._lock:
                due, self._due = self._due, False
            if due:
                self._do()

    def _run(self) -> None:
        while True:
            time.sleep(self._seconds)
            with self._doing:
                with self._lock:
                    if not self._due:
                        self._thread = None
                        return
                    self._due = False
                self._do()

    def _do(self) -> None:
        try:
            self._chore()
        except Exception as error:  # the next asking does it
            LOG.warning("A chore of the ledger was not done: %s", error)

    def _forget(self) -> None:
        """In a forked child: the thread is the parent's, and so is what is due."""
        self._lock, self._doing = threading.Lock(), threading.Lock()
        self._thread, self._due = None, False


def _call(kept: weakref.WeakMethod[Callable[[], None]]) -> None:
    if (method := kept()) is not None:
        method()
