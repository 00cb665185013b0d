"""Decide which tests pytest-xdist runs in one process: those of a file, or of a group of files."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any, Final

from xdist.scheduler import LoadFileScheduling

GROUPS: Final = {
    "tests/clients/test_stac.py": "index of the stack",
    "tests/clients/test_real_data.py": "index of the stack",
    "tests/clients/test_operators.py": "index of the stack",
}
"""Files that add scenes to the index of the running stack, or count them, one after the other."""

FOLDERS: Final = {"tests/indexing": "sample index"}
"""Folders whose files share an index that takes long to make."""


FIRST: Final = (
    "tests/chaos",
    "tests/test_embedded.py",
    "sample index",
    "tests/test_faults.py",
    "tests/clients",
    "index of the stack",
    "tests/graph/test_equivalence.py",
    "tests/security",
    "tests/fuzz",
    "tests/test_",
    "tests/api",
)
"""Beginnings of the names of files and groups that take long: small files fill the processes at the end."""


class GroupScheduling(LoadFileScheduling):
    """Give a process one file, or one group of files, at a time, those that take long first."""

    _is_sorted = False

    def _assign_work_unit(self, node: Any) -> None:
        if not self._is_sorted:
            scopes = sorted(self.workqueue, key=_rank)
            self.workqueue = type(self.workqueue)((scope, self.workqueue[scope]) for scope in scopes)
            self._is_sorted = True
        super()._assign_work_unit(node)

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return GROUPS.get(file) or FOLDERS.get(str(PurePosixPath(file).parent), file)


def _rank(scope: str) -> int:
    return next((rank for rank, start in enumerate(FIRST) if scope.startswith(start)), len(FIRST))
