"""Archives of dependencies of user code: fetched once, and unpacked into folders that nothing leads out of.

They are kept by owner and content for some days: equal archives are unpacked once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import stat
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Final
from urllib.parse import urldefrag

from odc_openeo import safe_http
from odc_openeo.config import Config
from odc_openeo.errors import RequestInvalid, StorageFailure, UdfUnavailable, UrlTooLarge
from odc_openeo.udf.folders import open_own_folder

MOST_ARCHIVES: Final = 20
MOST_MEMBERS: Final = 20_000
MOST_BYTES: Final = 4 * 2**30
"""Bytes of an archive once it is unpacked."""
TRUSTED_S: Final = 600
"""Seconds for which an address is taken to have the same content."""
KEPT_S: Final = 3 * 24 * 3600
ADDRESS: Final = "address-"
CONTENT: Final = "content-"
BLOCK: Final = 2**20
INVALID: Final = (
    *(zipfile.BadZipFile, zlib.error, ValueError, NotImplementedError, RuntimeError, EOFError),
    *(FileExistsError, NotADirectoryError, IsADirectoryError),
)
"""The errors of archives that are damaged, encrypted, or have impossible names."""
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", re.ASCII)


@dataclass(frozen=True)
class Archive:
    """The address of an archive, and the folder of the working folder that it is unpacked to."""

    url: str
    folder: str


def parse_archive(text: str) -> Archive:
    """Parse an archive as job options name it: ``https://…/models.zip#models``.

    Raises:
        RequestInvalid: it is not such an address.
    """
    url, fragment = urldefrag(text)
    name = fragment or PurePosixPath(url).stem
    if not url.startswith(("http://", "https://")):
        raise RequestInvalid(
            reason=f"the archive '{text}' must be a URL such as https://…/models.zip#models."
        )
    if not _NAME.fullmatch(name):
        reason = f"the archive '{text}' needs a folder after '#': letters, digits, '_', '-' and '.'."
        raise RequestInvalid(reason=reason)
    return Archive(url, name)


def open_archive(config: Config, owner: str, archive: Archive) -> Path:
    """Return the folder that an archive is unpacked in on this machine, for user code to read.

    Raises:
        UrlForbidden, UrlUnreachable, UrlTooLarge: it cannot be fetched.
        UdfUnavailable: it is not a valid archive, has links, or names that lead out of it.
    """
    try:
        top = _open_top_folder(config, owner)
        address = top / f"{ADDRESS}{hashlib.sha256(archive.url.encode()).hexdigest()}"
        with contextlib.suppress(FileNotFoundError):
            target = top / address.read_text()
            if address.stat().st_mtime > time.time() - TRUSTED_S and target.is_dir():
                os.utime(target)
                return target
        return _fetch_archive(config, archive, top, address)
    except OSError as error:
        raise StorageFailure.from_os_error(error) from error


def _open_top_folder(config: Config, owner: str) -> Path:
    """The folder of an owner: user code runs as another user, who may enter it but not list it."""
    secret = hashlib.sha256(f"{config.data_dir}\0{owner}".encode()).hexdigest()[:32]
    top = Path(tempfile.gettempdir()) / f"odc-openeo-udf-archives-{os.geteuid()}"
    return open_own_folder(open_own_folder(top) / secret)


def _fetch_archive(config: Config, archive: Archive, top: Path, address: Path) -> Path:
    _remove_old(top)
    work = Path(tempfile.mkdtemp(prefix="incoming-", dir=top))
    try:
        packed = work / "archive"
        safe_http.download_file(safe_http.Policy.from_config(config), archive.url, packed)
        target = top / f"{CONTENT}{_digest(packed)}"
        if not target.is_dir():
            unpacked = work / "unpacked"
            unpack_archive(packed, unpacked, archive.url)
            # Another process may have been faster.
            with contextlib.suppress(OSError):
                unpacked.rename(target)
        os.utime(target)
        note = work / "note"
        note.write_text(target.name)
        note.replace(address)
        return target
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _remove_old(top: Path) -> None:
    """Remove what was not used for days, and what downloads that were killed have left."""
    for entry in top.iterdir():
        if entry.stat().st_mtime < time.time() - KEPT_S:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink(missing_ok=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unpack_archive(packed: Path, target: Path, name: str) -> None:
    """Unpack a zip archive into a new folder that everybody may read.

    Raises:
        UdfUnavailable: it is not valid, has links or names that lead out of the folder.
        UrlTooLarge: it has more than `MOST_BYTES`.
    """
    target.mkdir(mode=0o755)
    target.chmod(0o755)
    try:
        with zipfile.ZipFile(packed) as archive:
            members = archive.infolist()
            if len(members) > MOST_MEMBERS:
                raise ValueError(f"it has more than {MOST_MEMBERS} files")
            left = MOST_BYTES
            for member in members:
                path = _find_place(member, target)
                if member.is_dir():
                    _make_folder(path, target)
                    continue
                _make_folder(path.parent, target)
                with archive.open(member) as source, path.open("xb") as sink:
                    left -= _copy(source, sink, left)
                path.chmod(0o644)
    except INVALID as error:
        reason = f"the archive {name} cannot be unpacked: {error}."
        raise UdfUnavailable(reason=reason) from error


def _find_place(member: zipfile.ZipInfo, target: Path) -> Path:
    mode = member.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ValueError(f"'{member.filename}' is a link or a special file")
    parts = PurePosixPath(member.filename).parts
    if not parts or member.filename.startswith("/") or ".." in parts or "\\" in member.filename:
        raise ValueError(f"the name '{member.filename}' leads out of it")
    return target.joinpath(*parts)


def _make_folder(path: Path, target: Path) -> None:
    for folder in (*reversed(path.relative_to(target).parents), path.relative_to(target)):
        place = target / folder
        with contextlib.suppress(FileExistsError):
            place.mkdir(mode=0o755)
            place.chmod(0o755)


def _copy(source: IO[bytes], sink: IO[bytes], most: int) -> int:
    size = 0
    for block in _read_blocks(source):
        size += len(block)
        if size > most:
            raise UrlTooLarge(most=MOST_BYTES)
        sink.write(block)
    return size


def _read_blocks(source: IO[bytes]) -> Iterator[bytes]:
    while block := source.read(BLOCK):
        yield block
