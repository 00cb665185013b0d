"""Processes of the operating system that tests look at while they end."""

from __future__ import annotations

import time
from collections.abc import Sequence

import psutil

from tests.support.waiting import PATIENCE


def is_alive(process: psutil.Process) -> bool:
    """Whether a process runs: one that has ended may wait for its parent as a zombie."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def find_alive(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    return [process for process in processes if is_alive(process)]


def has_ended(pid: int, seconds: float = PATIENCE) -> bool:
    """Wait for the process with an id to end, for a number of seconds."""
    try:
        process = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return True
    return have_ended([process], seconds)


def have_ended(processes: Sequence[psutil.Process], seconds: float = PATIENCE) -> bool:
    """Wait for processes to end, for a number of seconds; nobody may be there to take note of it."""
    deadline = time.monotonic() + seconds
    while find_alive(processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
