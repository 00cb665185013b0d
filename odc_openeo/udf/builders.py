"""Do in the sandbox what fills a folder from foreign files, and keep what is harmless of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from odc_openeo.errors import UdfFailed, UdfLimitExceeded, UdfUnavailable
from odc_openeo.udf.caches import copy_foreign_tree
from odc_openeo.udf.calls import UdfCode, make_plan
from odc_openeo.udf.children import Child, ChildLost
from odc_openeo.udf.settings import RelayRules, UdfLimits, UdfSettings

CONTENT: Final = "content"
OUTPUT_BYTES: Final = 2**20


@dataclass(frozen=True)
class Builder:
    """A program of `odc_openeo.udf.child` that fills the folder ``content`` of its working folder.

    ``task``: what it does, for messages; ``work_bytes``: of all its files, also those that it needs only for
    a while; ``most_bytes`` and ``most_entries``: of the result; ``files``: what it may read; ``relay``: where
    it may connect to.
    """

    program: str
    task: str
    python: str
    seconds: float
    work_bytes: int
    most_bytes: int
    most_entries: int
    files: tuple[str, ...] = ()
    relay: RelayRules | None = None

    @contextlib.contextmanager
    def start(self, settings: UdfSettings) -> Iterator[Child]:
        """Start the process, which is ended at the end.

        Raises:
            UdfUnavailable: no user code runs here, or the process was killed from outside.
        """
        limits = replace(
            settings.limits, seconds=self.seconds, output_bytes=OUTPUT_BYTES, file_bytes=self.work_bytes
        )
        plan = make_plan(settings, UdfCode("", self.python), limits)
        try:
            child = Child.start(replace(plan, dispatcher=self.program, files=self.files, relay=self.relay))
            try:
                yield child
            finally:
                child.kill()
        except ChildLost as error:
            raise UdfUnavailable(reason=f"{self.task} was interrupted. Try again.") from error

    def run(self, child: Child, header: Mapping[str, Any], target: Path) -> Mapping[str, Any]:
        """Let the process do its work, and copy the result to a folder; return its reply.

        Raises:
            UdfUnavailable: it failed, or the result has links or special files, or is too large.
        """
        try:
            reply = child.carry_out("", header, []).header
            if reply.get("problem") is None:
                # Nothing changes while it is copied.
                child.pause()
                copy_foreign_tree(child.folder / CONTENT, target, self.most_bytes, self.most_entries)
        except UdfLimitExceeded as error:
            raise UdfUnavailable(reason=f"{self.task} {self._describe_limits(child.plan.limits)}.") from error
        except UdfFailed as error:
            raise UdfUnavailable(reason=f"{self.task} failed.") from error
        except ValueError as error:
            raise UdfUnavailable(reason=f"{self.task} failed: {error}.") from error
        return reply

    def _describe_limits(self, limits: UdfLimits) -> str:
        memory, files = (f"{size / 2**20:,.0f} MiB" for size in (limits.memory_bytes, limits.file_bytes))
        return f"takes more than {self.seconds:g} s, {memory} of memory, or {files} of files"
