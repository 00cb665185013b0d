"""Decide which tests pytest-xdist runs in one process: those of a file, or of a group of files."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final

from xdist.scheduler import LoadFileScheduling

GROUPS: Final = {
    "tests/clients/test_stac.py": "index of the stack",
    "tests/clients/test_real_data.py": "index of the stack",
    "tests/clients/test_operators.py": "index of the stack",
}
"""Files that add scenes to the index of the running stack, or count them, one after the other."""

FOLDERS: Final = {"tests/indexing": "sample index"}
"""Folders whose files share an index that takes long to make."""


class GroupScheduling(LoadFileScheduling):
    """Give a process one file, or one group of files, at a time."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return GROUPS.get(file) or FOLDERS.get(str(PurePosixPath(file).parent), file)
