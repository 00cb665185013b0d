"""Warm processes of user code: what a function keeps in its globals survives from one call to the next."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from odc_openeo.udf.children import Child
from odc_openeo.udf.commands import ChildPlan
from odc_openeo.udf.folders import remove_abandoned_folders

IDLE_S: Final = 180.0
"""Seconds after which a process without calls is ended."""
CLEAN_S: Final = 60.0
"""Seconds between looks for folders of processes that were killed."""
PAUSE_S: Final = 1.0
"""Seconds after which a process without calls is paused."""
MOST_IDLE: Final = max(4, 2 * (os.cpu_count() or 1))
"""Processes without calls that are kept."""

Key = tuple[str, str, ChildPlan]
"""Owner, digest of the code, and how the process was started."""


@dataclass
class ChildPool:
    """The processes of user code that this process has started; thread-safe.

    A call takes a process of the same owner, code and plan, the one that was used last, so that there are as
    many as threads that call at once.
    """

    idle: list[tuple[float, Key, Child]] = field(default_factory=list)
    start: Callable[[ChildPlan], Child] = Child.start

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._due = float("inf")
        self._children: dict[int, Child] = {}
        self._cleaned = 0.0

    def take(self, key: Key) -> Child:
        """Take a process out, or start one."""
        while (child := self._find_idle(key)) is not None:
            if child.is_alive():
                child.resume()
                return child
            self._end(child)
        self._clean_sometimes()
        child = self.start(key[2])
        with self._lock:
            self._children[id(child)] = child
        return child

    def give_back(self, key: Key, child: Child) -> None:
        """Keep a process for the next call; end it if it is not good any more."""
        is_spent = child.busy_s * 2 * (os.cpu_count() or 1) > child.plan.cpu_seconds
        if not child.is_good or is_spent or not child.is_alive():
            self._end(child)
            return
        with self._lock:
            self.idle.append((time.monotonic(), key, child))
            surplus = [child for _, _, child in self.idle[:-MOST_IDLE]]
            del self.idle[:-MOST_IDLE]
            self._schedule()
        for old in surplus:
            self._end(old)

    def _find_idle(self, key: Key) -> Child | None:
        with self._lock:
            for place in reversed(range(len(self.idle))):
                if self.idle[place][1] == key:
                    return self.idle.pop(place)[2]
        return None

    def _end(self, child: Child) -> None:
        with self._lock:
            self._children.pop(id(child), None)
        child.kill()

    def _schedule(self) -> None:
        due = min(
            (since + (IDLE_S if child.is_paused else PAUSE_S) for since, _, child in self.idle),
            default=float("inf"),
        )
        if due >= self._due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = threading.Timer(max(due - time.monotonic(), 0.1), self.tend_idle)
        self._timer.daemon = True
        try:
            self._timer.start()
        except RuntimeError:
            # Too many threads on this machine, or the interpreter ends: the next call tries again.
            self._timer, self._due = None, float("inf")

    def tend_idle(self) -> None:
        """Pause the processes that had no call for a moment, end those that had none for a while."""
        limit = time.monotonic() - PAUSE_S
        with self._lock:
            self._timer, self._due = None, float("inf")
            for since, _, child in self.idle:
                if since <= limit:
                    child.pause()
        self.end_idle()

    def end_idle(self, seconds: float = IDLE_S) -> None:
        """End the processes that had no call for so long."""
        limit = time.monotonic() - seconds
        with self._lock:
            old = [child for since, _, child in self.idle if since <= limit]
            self.idle[:] = [entry for entry in self.idle if entry[0] > limit]
            self._schedule()
        for child in old:
            self._end(child)

    def stop(self) -> None:
        """End all processes, those with calls, too."""
        with self._lock:
            children = list(self._children.values())
            self._children.clear()
            self.idle.clear()
        for child in children:
            child.kill()

    def forget_after_fork(self) -> None:
        """Leave the processes to the process that this one was forked from."""
        for child in self._children.values():
            child.forget()
        self.idle.clear()
        self.__post_init__()

    def _clean_sometimes(self) -> None:
        # Processes that are killed leave the folders of theirs.
        if not self._cleaned or time.monotonic() > self._cleaned + CLEAN_S:
            self._cleaned = time.monotonic()
            remove_abandoned_folders()


pool: Final = ChildPool()
"""The pool of this process."""

os.register_at_fork(after_in_child=pool.forget_after_fork)
atexit.register(pool.stop)
