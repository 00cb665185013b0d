"""A cache of computed results: files on this machine, of which the least recently used are removed first.

A key must cover everything that a result depends on, see `make_key`; then nothing has to be invalidated. All
processes of the service share the folder. If anything fails with it, results are computed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from odc_openeo import __version__
from odc_openeo.config import Config
from odc_openeo.telemetry.counts import add_count, set_gauge

LARGEST_SHARE: Final = 8
"""One result may take this fraction of the cache: one eighth."""
ABANDONED_S: Final = 3600
INCOMING: Final = ".incoming-"
ABOUT: Final = "about.json"
FILES: Final = "files"


def make_key(*parts: Any) -> str:
    """Return the key of JSON values: equal values and the same version of the service have the same key."""
    text = json.dumps([__version__, *parts], sort_keys=True, allow_nan=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class ResultCache:
    """Files by key, at most ``limit`` bytes in total in ``folder``; with 0 nothing is kept."""

    folder: Path
    limit: int

    @classmethod
    def from_config(cls, config: Config) -> ResultCache:
        """Return the cache of a configuration."""
        return cls(config.data_dir / "cache", config.cache_max_bytes)

    def get(self, key: str, folder: Path) -> tuple[dict[str, Path], dict[str, str]] | None:
        """Put the files of a key into ``folder``; return where each is and what was said about them.

        None if nothing is cached.
        """
        entry = self.folder / key
        if not self.limit:
            return None
        try:
            about = json.loads((entry / ABOUT).read_bytes())
            files = {name: folder / name for name in about["files"]}
            for name, path in files.items():
                _link_file(entry / FILES / name, path)
            os.utime(entry)
        except (OSError, ValueError):
            add_count("cache_requests", cache="results", outcome="miss")
            return None
        add_count("cache_requests", cache="results", outcome="hit")
        return files, about["about"]

    def put(self, key: str, files: Mapping[str, Path], about: Mapping[str, str]) -> None:
        """Keep files by name, unless they are too large or cannot be written; make room for them.

        ``about`` is kept with them, such as their media type.
        """
        if sum(path.stat().st_size for path in files.values()) * LARGEST_SHARE > self.limit:
            return
        incoming = self.folder / f"{INCOMING}{uuid4().hex}"
        with contextlib.suppress(OSError):
            incoming.mkdir(parents=True, mode=0o700)
            try:
                for name, path in files.items():
                    _link_file(path, incoming / FILES / name)
                (incoming / ABOUT).write_text(json.dumps({"files": sorted(files), "about": dict(about)}))
                # Fails if another request has stored the same key in the meantime.
                incoming.rename(self.folder / key)
            finally:
                shutil.rmtree(incoming, ignore_errors=True)
            self._make_room()

    def _make_room(self) -> None:
        entries = sorted(self._list_entries())
        total = sum(size for _, size, _ in entries)
        for _, size, entry in entries:
            if total <= self.limit:
                break
            shutil.rmtree(entry, ignore_errors=True)
            total -= size
        set_gauge("result_cache_bytes", total)

    def _list_entries(self) -> Iterator[tuple[float, int, Path]]:
        """Yield time of last use, size and folder of each entry; remove leftovers of crashes."""
        for entry in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                used = entry.stat().st_mtime
                if not entry.name.startswith(INCOMING):
                    yield used, sum(file.stat().st_size for file in entry.rglob("*") if file.is_file()), entry
                elif used < time.time() - ABANDONED_S:
                    shutil.rmtree(entry, ignore_errors=True)


def _link_file(source: Path, target: Path) -> None:
    """Link a file to another place, or copy it: finished files are never changed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)
