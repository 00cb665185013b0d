"""Wait for what happens in other processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

Value = TypeVar("Value")

PATIENCE: Final = 180.0
"""Seconds within which what must happen happens, on the busiest machine: the end of a process, an answer."""


def wait_for(look: Callable[[], Value], seconds: float = PATIENCE) -> Value:
    """Look again and again until there is something true, which is returned."""
    deadline = time.monotonic() + seconds
    while not (value := look()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)
    return value
