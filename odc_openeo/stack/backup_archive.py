"""The archive of a backup: a tar file with a manifest first and the checksums of all files last.

Only plain files are in it, below a few folders. Reading it trusts nothing: names that lead elsewhere, links,
repeated names, changed or missing content are refused before anything is restored.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

MANIFEST: Final = "manifest.json"
CHECKSUMS: Final = "checksums.json"
FOLDERS: Final = ("storage", "samples", "settings")
FILES: Final = (MANIFEST, CHECKSUMS, "database.dump", "secret_key")
BLOCK: Final = 2**20
MOST_JSON: Final = 2**30
"""Bytes of the manifest and of the checksums: more is not read into memory."""


class BackupInvalid(ValueError):
    """The archive is damaged or is not one of this service; nothing was restored."""


class ArchiveWriter:
    """Writes an archive that only its owner may read; it appears under its name when it is complete."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._draft = path.with_name(f".{path.name}.{os.getpid()}.part")
        descriptor = os.open(self._draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._file = os.fdopen(descriptor, "wb")
        self._tar = tarfile.TarFile(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)
        self._checksums: dict[str, str] = {}

    def __enter__(self) -> ArchiveWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if kind is None:
            self._add_bytes(CHECKSUMS, json.dumps(self._checksums).encode())
        self._tar.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if kind is None:
            self._draft.rename(self._path)
        else:
            self._draft.unlink(missing_ok=True)

    def add_json(self, name: str, value: Any) -> None:
        """Add a file of JSON."""
        self._add_bytes(name, json.dumps(value, indent=2).encode())

    def add_file(self, name: str, path: Path) -> bool:
        """Add a file as it is now; False if it does not exist any more or is not a plain file."""
        try:
            file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
        except OSError:
            return False
        with file:
            info = self._tar.gettarinfo(arcname=name, fileobj=file)
            if info is None or not info.isreg():
                return False
            self._add(info, file)
        return True

    def add_folder(self, name: str, folder: Path) -> int:
        """Add the files below a folder, but for those that go meanwhile; returns their number."""
        paths = sorted(path for path in folder.rglob("*") if not path.is_symlink() and path.is_file())
        return sum(self.add_file(f"{name}/{path.relative_to(folder).as_posix()}", path) for path in paths)

    def _add_bytes(self, name: str, content: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mtime = len(content), int(time.time())
        self._add(info, io.BytesIO(content))

    def _add(self, info: tarfile.TarInfo, file: IO[bytes]) -> None:
        # The owner of another machine means nothing here; a hard link would be stored as a link.
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        info.type, info.linkname, info.mode = tarfile.REGTYPE, "", 0o600
        reader = _Reader(file, info.size)
        self._tar.addfile(info, reader)
        self._checksums[info.name] = reader.digest.hexdigest()


class _Reader:
    """Reads as many bytes as a file had at first, with zeros for what was cut off meanwhile."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._left = file, size
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        size = self._left if size < 0 else min(size, self._left)
        block = self._file.read(size).ljust(size, b"\0")
        self._left -= size
        self.digest.update(block)
        return block


def read_manifest(path: Path) -> dict[str, Any]:
    """Read the manifest of an archive.

    Raises:
        BackupInvalid: it has none, or is not an archive.
    """
    with _open_archive(path) as tar:
        try:
            info = tar.next()
            if info is None or info.name != MANIFEST or not info.isreg() or info.size > 2**20:
                raise BackupInvalid(
                    f"{path} is not a backup of this service: it does not begin with a manifest"
                )
            manifest = json.loads(_read_all(tar, info))
        except (tarfile.TarError, EOFError, OSError, ValueError) as error:
            raise _explain(path, error) from error
    if not isinstance(manifest, dict):
        raise BackupInvalid(f"{path} is not a backup of this service: its manifest is not an object")
    return manifest


def extract_archive(path: Path, folder: Path) -> None:
    """Extract an archive into an empty folder, and check all of it.

    Raises:
        BackupInvalid: it is damaged, or has members that no backup has.
    """
    checksums: dict[str, str] = {}
    with _open_archive(path) as tar:
        try:
            for info in _iterate_members(tar):
                if info.name == CHECKSUMS:
                    if json.loads(_read_all(tar, info)) != checksums:
                        raise BackupInvalid("files are missing, or their checksums differ")
                    return
                _check_member(info, checksums)
                checksums[info.name] = _extract_file(tar, info, folder / info.name)
        except (tarfile.TarError, EOFError, OSError, ValueError) as error:
            raise _explain(path, error) from error
    raise BackupInvalid(f"{path} is damaged: its end is missing")


def _iterate_members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (info := tar.next()) is not None:
        yield info
        # They would add up in memory.
        tar.members = []  # type: ignore[attr-defined]


def _check_member(info: tarfile.TarInfo, earlier: dict[str, str]) -> None:
    parts = PurePosixPath(info.name).parts
    is_clean = info.name == "/".join(parts) and not {"..", "/", "."} & set(parts) and "\0" not in info.name
    is_expected = info.name in FILES or (len(parts) > 1 and parts[0] in FOLDERS)
    if not info.isreg() or not is_clean or not is_expected:
        raise BackupInvalid(f"{info.name[:200]!r} must not be in a backup")
    if info.name in earlier:
        raise BackupInvalid(f"{info.name[:200]!r} is in it twice")


def _extract_file(tar: tarfile.TarFile, info: tarfile.TarInfo, target: Path) -> str:
    """Write a file that does not exist yet; return its checksum."""
    source = tar.extractfile(info)
    if source is None:
        raise BackupInvalid(f"{info.name[:200]!r} has no content")
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with source, os.fdopen(descriptor, "wb") as file:
        while block := source.read(BLOCK):
            digest.update(block)
            size += len(block)
            file.write(block)
    if size != info.size:
        raise BackupInvalid(f"{info.name[:200]!r} is cut off")
    return digest.hexdigest()


def _read_all(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    source = tar.extractfile(info) if info.isreg() and info.size <= MOST_JSON else None
    if source is None:
        raise BackupInvalid(f"{info.name[:200]!r} has no content")
    with source:
        return source.read()


def _open_archive(path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path, "r:")
    except (tarfile.TarError, OSError) as error:
        raise _explain(path, error) from error


def _explain(path: Path, error: Exception) -> BackupInvalid:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return BackupInvalid(f"{path} is damaged, or not a backup of this service: {reason}")
