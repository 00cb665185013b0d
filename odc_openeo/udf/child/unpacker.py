"""Unpack an archive in the sandbox: whatever it does to its parser, it can only fill one folder.

The result is copied by the caller, who checks it once more.
"""

from __future__ import annotations

import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

MOST_MEMBERS = 20_000
BLOCK = 2**20
INVALID = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, LZMAError, ValueError, NotImplementedError),
    *(RuntimeError, EOFError, OSError, MemoryError, OverflowError),
)
"""The errors of archives that are damaged, encrypted, too large, or have impossible names."""


class Member(NamedTuple):
    """A file or folder of an archive; ``source`` opens a file, None for folders."""

    name: str
    source: IO[bytes] | None


def dispatch(code: str, header: Mapping[str, Any], arrays: Sequence[Any]) -> tuple[dict[str, Any], list[Any]]:
    """Unpack the file ``packed`` of the working folder to its folder ``content``.

    Returns:
        ``problem``: why it cannot be unpacked, None if it was; ``too_large``: whether that is its size.
    """
    try:
        unpack(Path("packed"), Path("content"), header["most_bytes"])
    except TooLarge:
        return {"problem": "it is too large", "too_large": True}, []
    except INVALID as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return {"problem": text or type(error).__name__, "too_large": False}, []
    return {"problem": None, "too_large": False}, []


class TooLarge(Exception):
    """The archive has too many bytes once it is unpacked."""


def unpack(packed: Path, target: Path, most_bytes: int) -> None:
    """Unpack a zip or tar archive (also with gzip, bzip2 or xz) into a new folder.

    Raises:
        TooLarge: its files have more than ``most_bytes``.
        INVALID: it is not valid, has links, special files, or names that lead out of the folder.
    """
    target.mkdir()
    left = most_bytes
    for count, member in enumerate(_iterate_members(packed)):
        if count >= MOST_MEMBERS:
            raise ValueError(f"it has more than {MOST_MEMBERS:,} files")
        path = target.joinpath(*_split_name(member.name))
        if member.source is None:
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with member.source, path.open("xb") as sink:
            left -= _copy(member.source, sink, left)


def _iterate_members(packed: Path) -> Iterator[Member]:
    with packed.open("rb") as file:
        is_zip = file.read(2) == b"PK"
    if is_zip:
        yield from _iterate_zip(packed)
    else:
        yield from _iterate_tar(packed)


def _iterate_tar(packed: Path) -> Iterator[Member]:
    try:
        # A stream: nothing is read twice.
        with tarfile.open(packed, "r|*") as archive:
            for info in archive:
                if not info.isreg() and not info.isdir():
                    raise ValueError(f"'{info.name}' is a link or a special file")
                yield Member(info.name, archive.extractfile(info) if info.isreg() else None)
    except tarfile.ReadError as error:
        raise ValueError(f"it is neither a zip nor a tar archive, or damaged ({error})") from error


def _iterate_zip(packed: Path) -> Iterator[Member]:
    with zipfile.ZipFile(packed) as archive:
        for info in archive.infolist():
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ValueError(f"'{info.filename}' is a link or a special file")
            yield Member(info.filename, None if info.is_dir() else archive.open(info))


def _split_name(name: str) -> tuple[str, ...]:
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise ValueError(f"the name '{name}' leads out of it")
    return parts


def _copy(source: IO[bytes], sink: IO[bytes], most: int) -> int:
    size = 0
    while block := source.read(BLOCK):
        size += len(block)
        if size > most:
            raise TooLarge
        sink.write(block)
    return size
