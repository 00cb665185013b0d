"""Warm processes of user code: what a function keeps in its globals survives from one call to the next."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from odc_openeo.errors import OpenEOError
from odc_openeo.udf.children import Child, ChildLost
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
    many as threads that call at once. Once there was more than one code, a spare process, which has imported
    its libraries but has seen no code yet, waits for the next one.
    """

    idle: list[tuple[float, Key, Child]] = field(default_factory=list)
    start: Callable[[ChildPlan], Child] = Child.start
    spare: tuple[float, ChildPlan, Child] | None = None

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._last_code: tuple[str, str] | None = None
        self._keeps_spare = False
        self._starter: threading.Thread | None = None
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
        self._note_code(key)
        child = self._take_spare(key[2]) or self.start(key[2])
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
        self._start_spare(key[2])

    # --- The spare process ---

    def _note_code(self, key: Key) -> None:
        """Keep a spare from the second code on: the processes of many jobs only ever see one."""
        with self._lock:
            self._keeps_spare |= self._last_code not in (None, key[:2])
            self._last_code = key[:2]

    def _take_spare(self, plan: ChildPlan) -> Child | None:
        with self._lock:
            if self.spare is None or self.spare[1] != plan:
                return None
            (_, _, child), self.spare = self.spare, None
        if child.is_alive():
            return child
        self._end(child)
        return None

    def _start_spare(self, plan: ChildPlan) -> None:
        """Start a spare in the background, unless there is one or none is needed."""
        with self._lock:
            is_busy = self._starter is not None and self._starter.is_alive()
            if not self._keeps_spare or self.spare is not None or is_busy or plan.packages or plan.links:
                return
            self._starter = threading.Thread(target=self._add_spare, args=(plan,), daemon=True)
            # No new thread is possible at the end of the interpreter, or if there are too many.
            with contextlib.suppress(RuntimeError):
                self._starter.start()

    def _add_spare(self, plan: ChildPlan) -> None:
        try:
            child = self.start(plan)
        except (OpenEOError, ChildLost):
            return
        with self._lock:
            self._children[id(child)] = child
            self.spare = time.monotonic(), plan, child
            self._schedule()

    def _end_old_spare(self, limit: float) -> None:
        with self._lock:
            if self.spare is None or self.spare[0] > limit:
                return
            (_, _, child), self.spare = self.spare, None
            self._keeps_spare = False
        self._end(child)

    # --- Idle processes ---

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
        dues = [since + (IDLE_S if child.is_paused else PAUSE_S) for since, _, child in self.idle]
        if self.spare is not None:
            dues.append(self.spare[0] + IDLE_S)
        due = min(dues, default=float("inf"))
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
        self._end_old_spare(limit)

    def stop(self) -> None:
        """End all processes, those with calls, too."""
        starter = self._starter
        if starter is not None and starter.is_alive():
            starter.join()
        with self._lock:
            self.spare = None
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
        self.spare = None
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
