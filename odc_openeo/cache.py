"""Results that were computed before, kept as files on this machine, the least recently used going first.

A key must tell everything that a result depends on, see `digest`; then nothing has to be invalidated. All
processes of the service share the folder. Whatever goes wrong with it, results are computed again.
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
"""One file may take this part of the whole cache."""
ABANDONED_S: Final = 3600
INCOMING: Final = ".incoming-"
ABOUT: Final = "about.json"


def digest(*parts: Any) -> str:
    """The key of JSON values: the same for equal ones only, and for this version of the service only."""
    text = json.dumps([__version__, *parts], sort_keys=True, allow_nan=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Cache:
    """Files by key, together at most ``limit`` bytes in ``folder``; with 0 nothing is kept."""

    folder: Path
    limit: int

    @classmethod
    def of(cls, config: Config) -> Cache:
        """The cache of a configuration."""
        return cls(config.data_dir / "cache", config.cache_max_bytes)

    def get(self, key: str, folder: Path) -> tuple[Path, str] | None:
        """The file of a key, put into ``folder``, and its media type; None if it is not there (any more)."""
        entry = self.folder / key
        if not self.limit:
            return None
        try:
            about = json.loads((entry / ABOUT).read_bytes())
            path = folder / about["name"]
            _link(entry / about["name"], path)
            os.utime(entry)
        except (OSError, ValueError):
            return None
        return path, str(about["type"])

    def put(self, key: str, path: Path, media_type: str) -> None:
        """Keep a file, unless it is too large or cannot be written; others go if there is no room."""
        if path.name == ABOUT or path.stat().st_size * LARGEST_SHARE > self.limit:
            return
        incoming = self.folder / f"{INCOMING}{uuid4().hex}"
        with contextlib.suppress(OSError):
            incoming.mkdir(parents=True, mode=0o700)
            try:
                _link(path, incoming / path.name)
                (incoming / ABOUT).write_text(json.dumps({"name": path.name, "type": media_type}))
                # Fails if another request has kept the same in the meantime.
                incoming.rename(self.folder / key)
            finally:
                shutil.rmtree(incoming, ignore_errors=True)
            self._make_room()

    def _make_room(self) -> None:
        entries = sorted(self._entries())
        too_much = sum(size for _, size, _ in entries) - self.limit
        for _, size, entry in entries:
            if too_much <= 0:
                return
            shutil.rmtree(entry, ignore_errors=True)
            too_much -= size

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        """Time of last use, size and folder of each entry; what was left by a crash is removed."""
        for entry in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                used = entry.stat().st_mtime
                if not entry.name.startswith(INCOMING):
                    yield used, sum(file.stat().st_size for file in entry.iterdir()), entry
                elif used < time.time() - ABANDONED_S:
                    shutil.rmtree(entry, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    """The same file in another place: nobody writes into one that is finished."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)
