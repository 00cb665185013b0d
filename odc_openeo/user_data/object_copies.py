"""Copies of objects on this machine, for libraries that read files only. They are kept for about a day.

A copy is named after the object and its ETag: it is never out of date.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final
from uuid import uuid4

from odc_openeo.config import Config
from odc_openeo.errors import FileSizeExceeded, StorageFailure
from odc_openeo.storage import Storage
from odc_openeo.storage.bucket_storage import BucketStorage
from odc_openeo.storage.interface import COPY_BYTES
from odc_openeo.untrusted.rasters import LocalFolder, RasterRefusedError
from odc_openeo.user_data.file_rules import translate_os_errors

COPIES: Final = "scratch/objects"
KEPT_S: Final = 24 * 3600
MOST_BYTES: Final = 2**43
"""The largest file that was written by this service."""
ROOT: Final = Path("/objects")
"""Where objects seem to be: paths below are keys, not names of files."""


def get_copies_folder(config: Config) -> Path:
    """The folder of the copies on this machine."""
    return config.data_dir / COPIES


def fetch_copy(bucket: BucketStorage, key: str, folder: Path, most_bytes: int) -> Path:
    """Copy an object to this machine, unless a copy is there; its path, whose last part is that of the key.

    Raises:
        FileNotFoundError: there is no such object.
        FileSizeExceeded: it is larger than ``most_bytes``.
        StorageFailure: it cannot be read, or there is no room for it.
    """
    status = bucket.get_status(key)
    if status.size > most_bytes:
        raise FileSizeExceeded(size=f"{most_bytes} bytes")
    folder = _choose_folder(folder)
    identity = f"{bucket.location}\0{key}\0{status.etag}\0{status.size}\0{status.modified}"
    place = folder / hashlib.sha256(identity.encode()).hexdigest()
    path = place / PurePosixPath(key).name
    if path.is_file():
        # It is in use.
        os.utime(place)
        return path
    _remove_old_copies(folder)
    part = folder / f"{uuid4().hex}.part"
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        with bucket.open(key) as source, part.open("xb") as sink:
            shutil.copyfileobj(source, sink, COPY_BYTES)
        part.replace(path)
    except OSError as error:
        raise StorageFailure.from_os_error(error) from error
    finally:
        part.unlink(missing_ok=True)
    return path


def _choose_folder(folder: Path) -> Path:
    """The folder of the copies, or one for temporary files on machines that do not have its parent."""
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    other = Path(tempfile.gettempdir()) / f"odc-openeo-objects-{os.getuid()}"
    with translate_os_errors():
        other.mkdir(exist_ok=True, mode=0o700)
        status = other.lstat()
        if status.st_uid != os.getuid() or not stat.S_ISDIR(status.st_mode):
            raise PermissionError(f"{other} belongs to another user")
    return other


def _remove_old_copies(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for place in folder.iterdir():
            if place.stat().st_mtime > time.time() - KEPT_S:
                continue
            if place.is_dir():
                shutil.rmtree(place, ignore_errors=True)
            else:
                place.unlink(missing_ok=True)


@dataclass(frozen=True)
class ObjectFolder:
    """A folder of a bucket, in which rasters may be opened: each is copied to the machine that reads it.

    It travels to dask workers, which reach the bucket with credentials of their own.
    """

    bucket: BucketStorage
    key: str
    copies: Path

    @property
    def root(self) -> Path:
        """The path that all paths of files in the folder begin with; there is nothing at it."""
        return ROOT / self.key

    @contextlib.contextmanager
    def expose(self, href: str) -> Iterator[str]:
        """Yield a name of a descriptor of a copy of the file."""
        try:
            parts = Path(href).relative_to(self.root).parts
            if not parts or ".." in parts:
                raise ValueError
            path = fetch_copy(self.bucket, "/".join([self.key, *parts]), self.copies, MOST_BYTES)
        except (ValueError, FileNotFoundError) as error:
            raise RasterRefusedError("it does not exist, or is not a file.") from error
        except FileSizeExceeded as error:
            raise RasterRefusedError("it is too large.") from error
        with LocalFolder(path.parent).expose(str(path)) as name:
            yield name

    def read_file(self, href: str, most: int) -> bytes | None:
        """Read an object of the folder, None if there is none; RasterRefusedError if it is too large."""
        try:
            parts = Path(href).relative_to(self.root).parts
            if not parts or ".." in parts:
                raise RasterRefusedError("it is outside its folder.")
            with self.bucket.open("/".join([self.key, *parts])) as file:
                content = file.read(most + 1)
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise RasterRefusedError("it is outside its folder.") from error
        if len(content) > most:
            raise RasterRefusedError(f"a file of it has more than {most} bytes.")
        return content

    def explain_failure(self, href: str) -> None:
        """Do nothing: there is no hidden error, as `expose` has checked the file."""


def find_raster_folder(config: Config, storage: Storage, key: str) -> LocalFolder | ObjectFolder | None:
    """Find the place of rasters in a folder of a storage; None if it is in neither a folder nor a bucket."""
    local = storage.find_local_path(key)
    if local is not None:
        return LocalFolder(local)
    if isinstance(storage, BucketStorage):
        return ObjectFolder(storage, key, get_copies_folder(config))
    return None
