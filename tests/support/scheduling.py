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


WAITING: Final = (
    "tests/chaos",
    "tests/test_embedded.py",
    "tests/test_faults.py",
)
"""Beginnings of the names of files whose tests wait most of the time, for a minute."""

FIRST: Final = (
    *WAITING,
    # Compute while the first of these makes the sample scenes, which all that follow need.
    "tests/security/test_foreign_files.py",
    "tests/security/test_first_wall.py",
    "tests/parts",
    "sample index",
    "index of the stack",
    "tests/clients/test_every_process.py",
    # These start stacks of their own: one after the other, since four at once overload two cores.
    "tests/test_first_day.py",
    "tests/backup",
    "tests/explain",
    "tests/udf/test_escapes.py",
    "tests/clients",
    "tests/api/test_jobs.py",
    "tests/test_cli.py",
    "tests/conformance",
    "tests/security",
    "tests/fuzz",
    "tests/graph/test_equivalence.py",
    "tests/services",
    "tests/udf",
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
        if self._is_waiting(node):
            # What it gets now is begun only after the tests that wait, so let it be a small file.
            self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
        super()._assign_work_unit(node)

    def _is_waiting(self, node: Any) -> bool:
        units = self.assigned_work[node].items()
        return any(scope.startswith(WAITING) and not all(tests.values()) for scope, tests in units)

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return GROUPS.get(file) or FOLDERS.get(str(PurePosixPath(file).parent), file)


def _rank(scope: str) -> int:
    return next((rank for rank, start in enumerate(FIRST) if scope.startswith(start)), len(FIRST))
