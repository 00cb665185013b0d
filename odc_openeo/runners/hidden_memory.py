"""Hide the memory and environment of processes with secrets from others of the same user."""

from __future__ import annotations

import ctypes
import sys
from typing import Final

PR_SET_DUMPABLE: Final = 4


def hide_memory() -> None:
    """Let only root and this process itself read its memory, environment and open files (prctl(2)).

    It lasts until another program is executed, in processes forked from this one as well. There are no core
    files then, and debuggers of the same user cannot attach. On systems other than Linux it does nothing.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
