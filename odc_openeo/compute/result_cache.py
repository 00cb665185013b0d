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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from odc_openeo import __version__
from odc_openeo.config import Config

LARGEST_SHARE: Final = 8
"""One file may take this fraction of the cache: one eighth."""
ABANDONED_S: Final = 3600
INCOMING: Final = ".incoming-"
ABOUT: Final = "about.json"


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

    def get(self, key: str, folder: Path) -> tuple[Path, str] | None:
        """Put the file of a key into ``folder``; return it with its media type, None if it is not cached."""
        entry = self.folder / key
        if not self.limit:
            return None
        try:
            about = json.loads((entry / ABOUT).read_bytes())
            path = folder / about["name"]
            _link_file(entry / about["name"], path)
            os.utime(entry)
        except (OSError, ValueError):
            return None
        return path, str(about["type"])

    def put(self, key: str, path: Path, media_type: str) -> None:
        """Keep a file, unless it is too large or cannot be written; remove others if there is no room."""
        if path.name == ABOUT or path.stat().st_size * LARGEST_SHARE > self.limit:
            return
        incoming = self.folder / f"{INCOMING}{uuid4().hex}"
        with contextlib.suppress(OSError):
            incoming.mkdir(parents=True, mode=0o700)
            try:
                _link_file(path, incoming / path.name)
                (incoming / ABOUT).write_text(json.dumps({"name": path.name, "type": media_type}))
                # Fails if another request has stored the same key in the meantime.
                incoming.rename(self.folder / key)
            finally:
                shutil.rmtree(incoming, ignore_errors=True)
            self._make_room()

    def _make_room(self) -> None:
        entries = sorted(self._list_entries())
        too_much = sum(size for _, size, _ in entries) - self.limit
        for _, size, entry in entries:
            if too_much <= 0:
                return
            shutil.rmtree(entry, ignore_errors=True)
            too_much -= size

    def _list_entries(self) -> Iterator[tuple[float, int, Path]]:
        """Yield time of last use, size and folder of each entry; remove leftovers of crashes."""
        for entry in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                used = entry.stat().st_mtime
                if not entry.name.startswith(INCOMING):
                    yield used, sum(file.stat().st_size for file in entry.iterdir()), entry
                elif used < time.time() - ABANDONED_S:
                    shutil.rmtree(entry, ignore_errors=True)


def _link_file(source: Path, target: Path) -> None:
    """Link a file to another place, or copy it: finished files are never changed."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)
