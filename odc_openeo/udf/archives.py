"""Archives of dependencies of user code: fetched, unpacked in the sandbox, and kept by owner and content."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import tempfile
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import urldefrag

from odc_openeo.config import Config
from odc_openeo.errors import RequestInvalid, StorageFailure, UdfUnavailable, UrlTooLarge
from odc_openeo.udf.builders import Builder
from odc_openeo.udf.caches import FolderCache, Lease, find_cache_folder, find_share
from odc_openeo.udf.folders import MOST_ENTRIES, open_own_folder
from odc_openeo.udf.settings import UdfSettings
from odc_openeo.untrusted import safe_http

MOST_ARCHIVES: Final = 20
MOST_BYTES: Final = 4 * 2**30
"""Bytes of an archive once it is unpacked."""
MOST_SECONDS: Final = 300.0
TRUSTED_S: Final = 600
"""Seconds for which an address is taken to have the same content."""
KEPT_S: Final = 3 * 24 * 3600
ADDRESS: Final = "address-"
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", re.ASCII)
_SUFFIXES: Final = re.compile(r"\.(zip|tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz))$", re.IGNORECASE)
_URL: Final = re.compile(r"https?://", re.IGNORECASE)


@dataclass(frozen=True)
class Archive:
    """An archive: its URL or its path in the user's files, and the folder that it is unpacked to."""

    place: str
    folder: str

    @property
    def is_url(self) -> bool:
        """Whether it is on another host."""
        return _URL.match(self.place) is not None


def parse_archive(text: str) -> Archive:
    """Parse an archive as job options name it: ``https://…/models.zip#models`` or ``models.zip#models``.

    Raises:
        RequestInvalid: it is not such an address.
    """
    place, fragment = urldefrag(text) if _URL.match(text) else text.partition("#")[::2]
    if not place or (not _URL.match(place) and re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", place)):
        reason = f"the archive '{text}' must be a URL such as https://…/a.zip#a, or a path in your files."
        raise RequestInvalid(reason=reason)
    name = fragment or _SUFFIXES.sub("", PurePosixPath(place).name)
    if not _NAME.fullmatch(name):
        reason = f"the archive '{text}' needs a folder after '#': letters, digits, '_', '-' and '.'."
        raise RequestInvalid(reason=reason)
    return Archive(place, name)


def open_remote_archive(config: Config, settings: UdfSettings, owner: str, url: str) -> Lease:
    """Fetch an archive unless it is there, and unpack it; return a lease of its folder.

    Raises:
        UrlForbidden, UrlUnreachable, UrlTooLarge: it cannot be fetched, or is too large.
        UdfUnavailable: it is not a valid archive, has links, or names that lead out of it.
    """
    try:
        cache = _open_cache(config, owner)
        address = cache.top / f"{ADDRESS}{_make_key(config, owner, url)}"
        with contextlib.suppress(FileNotFoundError):
            key = address.read_text()
            if address.stat().st_mtime > time.time() - TRUSTED_S and (cache.top / key).is_dir():
                return cache.open(key, _refuse_to_make)
        _remove_old_addresses(cache.top)
        with tempfile.TemporaryDirectory(prefix="incoming-", dir=cache.top) as work:
            packed = Path(work) / "archive"
            safe_http.download_file(safe_http.Policy.from_config(config), url, packed)
            key = _make_key(config, owner, _digest(packed))
            lease = cache.open(key, lambda target: _unpack(settings, packed, url, target))
            note = Path(work) / "note"
            note.write_text(lease.folder.name)
            note.replace(address)
        return lease
    except OSError as error:
        raise StorageFailure.from_os_error(error) from error


def open_local_archive(config: Config, settings: UdfSettings, owner: str, name: str, path: Path) -> Lease:
    """Unpack an archive of the user's files; return a lease of its folder.

    Raises:
        UrlTooLarge: it is too large once it is unpacked.
        UdfUnavailable: see `open_remote_archive`.
    """
    try:
        key = _make_key(config, owner, _digest(path))
        return _open_cache(config, owner).open(key, lambda target: _unpack(settings, path, name, target))
    except OSError as error:
        raise StorageFailure.from_os_error(error) from error


def _open_cache(config: Config, owner: str) -> FolderCache:
    top = open_own_folder(find_cache_folder(config) / "archives")
    return FolderCache(top, int(config.udf_cache_bytes), KEPT_S, share=find_share(config, owner))


def _make_key(config: Config, owner: str, content: str) -> str:
    """Make a name that others do not know: their code may enter the folder of the cache, but not list it."""
    return hashlib.sha256(f"{config.data_dir}\0{owner}\0{content}".encode()).hexdigest()


def _refuse_to_make(target: Path) -> None:
    raise FileNotFoundError(target)


def _remove_old_addresses(top: Path) -> None:
    for entry in top.glob(f"{ADDRESS}*"):
        with contextlib.suppress(OSError):
            if entry.stat().st_mtime < time.time() - KEPT_S:
                entry.unlink()


def _digest(path: Path) -> str:
    status = path.stat()
    return _digest_version(path, status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _digest_version(path: Path, *_: int) -> str:
    """Return the digest of a version of a file: services ask for it with each map tile."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unpack(settings: UdfSettings, packed: Path, name: str, target: Path) -> None:
    size = packed.stat().st_size
    builder = Builder(
        program="unpacker",
        task=f"unpacking the archive {name}",
        python=settings.pythons[0],
        seconds=MOST_SECONDS,
        work_bytes=MOST_BYTES + size + 2**20,
        most_bytes=MOST_BYTES,
        most_entries=MOST_ENTRIES,
    )
    with builder.start(settings) as child:
        shutil.copyfile(packed, child.folder / "packed")
        (child.folder / "packed").chmod(0o644)
        reply = builder.run(child, {"most_bytes": MOST_BYTES}, target)
    if reply.get("too_large"):
        raise UrlTooLarge(most=MOST_BYTES)
    if reply.get("problem") is not None:
        raise UdfUnavailable(reason=f"the archive {name} cannot be unpacked: {str(reply['problem'])[:500]}.")
