"""Storage in a bucket of Amazon S3 and its kind, Google Cloud Storage or Azure."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Final
from uuid import uuid4

from odc_openeo.storage.bucket_client import abort_uploads, open_client
from odc_openeo.storage.bucket_failures import (
    ObjectMissingError,
    describe_problem,
    translate_failures,
)
from odc_openeo.storage.buckets import BucketAccess, Location
from odc_openeo.storage.interface import FileStatus, Storage, read_blocks, split_key
from odc_openeo.storage.upload_pieces import Pieces

log = logging.getLogger(__name__)

PART_BYTES: Final = 8 * 2**20
MOST_PARTS: Final = 9000
"""Parts of one upload; S3 allows 10,000."""
PARTS_AT_ONCE: Final = 4
FILES_AT_ONCE: Final = 16
READ_BYTES: Final = 8 * 2**20
MOST_COPIED_BYTES: Final = 5 * 2**30
"""Size up to which S3 copies an object in one request."""
MOST_KEY_BYTES: Final = 1024
CHECK_S: Final = 3.0
ABANDONED_S: Final = 24 * 3600.0
"""Age of uploads that nobody will finish: no upload takes that long."""


@dataclass(frozen=True)
class BucketStorage(Storage):
    """A tree of objects below a prefix, as `open_bucket` makes it.

    ``client`` and ``public_client`` are stores of `obstore`; the latter signs URLs for users. Neither they
    nor their keys are pickled: the process that unpickles a storage has its own.
    """

    location: Location
    access: BucketAccess
    retry_s: float | None
    public_endpoint: str | None
    client: Any = field(compare=False, repr=False)
    public_client: Any = field(compare=False, repr=False)

    sweep_seconds = 6 * 3600.0

    def __reduce__(self) -> tuple[Any, ...]:
        return open_bucket, (self.location, self.access, self.retry_s, self.public_endpoint)

    def find_local_path(self, key: str) -> Path | None:
        """Return None: nothing here has a local path."""
        return None

    def count_free_bytes_of_key(self, folder: str) -> int:
        """How many bytes the rest of a key in a folder may have."""
        return MOST_KEY_BYTES - len(self._locate(folder).key.encode()) - 1

    def _locate(self, key: str) -> Location:
        top = self.location.key
        return Location(self.location.scheme, self.location.bucket, f"{top}/{key}" if top else key)

    def _clean(self, key: str) -> str:
        path = "/".join(split_key(key))
        # Raises UnicodeEncodeError, a ValueError, for halves of characters.
        if len(self._locate(path).key.encode()) > MOST_KEY_BYTES:
            raise ValueError("the key is too long")
        return path

    # --- Writing ---------------------------------------------------------------------------------

    def put(self, path: Path, key: str, media_type: str | None = None) -> None:
        """Upload a file, or a folder with all its contents."""
        if path.is_file():
            self._upload(path, self._clean(key), path.stat().st_size, media_type)
            return
        files = [entry for entry in sorted(path.rglob("*")) if entry.is_file()]
        with ThreadPoolExecutor(FILES_AT_ONCE, "upload") as pool:
            uploads = [
                pool.submit(
                    self._upload,
                    file,
                    self._clean(f"{key}/{file.relative_to(path).as_posix()}"),
                    file.stat().st_size,
                    None,
                )
                for file in files
            ]
            try:
                for upload in uploads:
                    upload.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def write(self, key: str, source: IO[bytes] | Iterator[bytes]) -> None:
        """Upload a stream; the object appears when all of it has been uploaded."""
        blocks = read_blocks(source)
        path, pieces = self._clean(key), Pieces()
        # The source is read here: it may need this thread, and obstore must not be used by what it calls.
        with ThreadPoolExecutor(1, "upload") as pool:
            upload = pool.submit(self._upload, pieces, path, None, None)
            upload.add_done_callback(lambda _: pieces.end())
            try:
                for block in blocks:
                    if not pieces.add(block):
                        break
                pieces.close()
            except BaseException:
                pieces.fail()
                raise
            upload.result()

    def _upload(self, source: Any, key: str, size: int | None, media_type: str | None) -> None:
        import obstore

        part_bytes = PART_BYTES if size is None else max(PART_BYTES, size // MOST_PARTS + 1)
        attributes = {"Content-Type": media_type or "application/octet-stream"}
        with translate_failures(self._locate(key), key):
            obstore.put(
                self.client,
                key,
                source,
                attributes=attributes,
                chunk_size=part_bytes,
                max_concurrency=PARTS_AT_ONCE,
            )

    def copy(self, source: Storage, source_key: str, key: str) -> None:
        """Copy a file of a storage to a key; within the bucket, the store does it."""
        import obstore

        is_same = isinstance(source, BucketStorage) and source.location == self.location
        if is_same and source.get_status(source_key).size < MOST_COPIED_BYTES:
            with translate_failures(self._locate(source_key), source_key):
                obstore.copy(self.client, self._clean(source_key), self._clean(key))
            return
        with source.open(source_key) as stream:
            self.write(key, stream)

    # --- Reading ---------------------------------------------------------------------------------

    def open(self, key: str) -> IO[bytes]:
        """Open an object for reading; it is seekable, and reading fails if it is replaced meanwhile."""
        reader = _ObjectReader(self, self._clean(key), self._read_metadata(key))
        return io.BufferedReader(reader, READ_BYTES)

    def read_range(self, key: str, etag: str | None, start: int, end: int) -> memoryview:
        """Read bytes ``start`` to ``end`` (exclusive) of an object that still has an ETag."""
        import obstore

        options: dict[str, Any] = {"range": (start, end)}
        if etag is not None:
            options["if_match"] = etag
        with translate_failures(self._locate(key), key):
            return memoryview(obstore.get(self.client, key, options=options).bytes())

    def _read_metadata(self, key: str) -> Any:
        import obstore

        path = self._clean(key)
        with translate_failures(self._locate(path), path):
            return obstore.head(self.client, path)

    def get_status(self, key: str) -> FileStatus:
        """Get size, time and ETag of an object."""
        return _make_status(self._read_metadata(key))

    def list_files(self, key: str) -> dict[str, FileStatus]:
        """The objects below a key, by key, ordered; the key itself if it is an object."""
        import obstore

        path = self._clean(key)
        with translate_failures(self._locate(path), path):
            pages = list(obstore.list(self.client, path))
        files = {entry["path"]: _make_status(entry) for page in pages for entry in page}
        if not files:
            try:
                files = {path: self.get_status(path)}
            except FileNotFoundError:
                return {}
        return dict(sorted(files.items()))

    def size(self, key: str) -> int | None:
        """The size of an object in bytes; None if there are objects below the key."""
        import obstore

        try:
            return int(self._read_metadata(key)["size"])
        except ObjectMissingError:
            path = self._clean(key)
            with translate_failures(self._locate(path), path):
                if next(iter(obstore.list(self.client, path, chunk_size=1)), None):
                    return None
            raise

    def list_folders(self, key: str) -> list[str]:
        """The names of the folders below a key."""
        import obstore

        path = self._clean(key)
        with translate_failures(self._locate(path), path):
            prefixes = obstore.list_with_delimiter(self.client, path)["common_prefixes"]
        return [prefix.rpartition("/")[2] for prefix in prefixes]

    def sign_url(self, key: str, seconds: int) -> str | None:
        """Sign a URL by which anyone can read an object for some time; None if these credentials cannot."""
        import obstore

        path = self._clean(key)
        try:
            return str(obstore.sign(self.public_client, "GET", path, timedelta(seconds=seconds)))
        except Exception as error:  # credentials without a key cannot sign: the service sends the file itself
            log.debug("no signed URL for %s: %s", self._locate(path), type(error).__name__)
            return None

    # --- Removing --------------------------------------------------------------------------------

    def delete(self, key: str) -> None:
        """Remove an object, and all below the key, and abort unfinished uploads."""
        import obstore

        path = self._clean(key)
        location = self._locate(path)
        with translate_failures(location, path):
            for page in obstore.list(self.client, path):
                obstore.delete(self.client, [entry["path"] for entry in page])
            with contextlib.suppress(FileNotFoundError):
                obstore.delete(self.client, path)
        self._abort_uploads(location.key)

    def remove_abandoned(self) -> None:
        """Abort uploads that began more than a day ago."""
        self._abort_uploads(self.location.key, ABANDONED_S)

    def _abort_uploads(self, prefix: str, age_s: float = 0) -> None:
        try:
            count = abort_uploads(self.location, self.access, f"{prefix}/" if prefix else "", age_s)
        except Exception as error:  # an operator may not allow it; a lifecycle rule does it, too
            log.debug("unfinished uploads below %s could not be listed: %s", prefix, type(error).__name__)
            return
        if count:
            log.info("aborted %d unfinished uploads below %s", count, prefix)

    def check(self, *, writes: bool = True) -> str:
        """List objects; write, read and remove one."""
        import obstore

        name = f".odc-openeo-check-{uuid4().hex}"
        try:
            client = open_client(self.location, self.access, CHECK_S)
            next(iter(obstore.list(client, name, chunk_size=1)), None)
            if writes:
                obstore.put(client, name, b"")
                obstore.get(client, name).bytes()
                obstore.delete(client, name)
        except Exception as error:
            raise ValueError(describe_problem(error, self.location)) from None
        return f"can write to {self.location}"


class _ObjectReader(io.RawIOBase):
    """Reads an object piece by piece: a failed piece is requested again, not the whole."""

    def __init__(self, storage: BucketStorage, key: str, metadata: Any) -> None:
        super().__init__()
        self._storage, self._key = storage, key
        self._size, self._etag = int(metadata["size"]), metadata.get("e_tag")
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(start + offset, 0)
        return self._position

    def readall(self) -> bytes:
        pieces = []
        while piece := self.read(READ_BYTES):
            pieces.append(piece)
        return b"".join(pieces)

    def readinto(self, buffer: Any) -> int:
        end = min(self._position + len(buffer), self._size)
        count = end - self._position
        if count <= 0:
            return 0
        buffer[:count] = self._storage.read_range(self._key, self._etag, self._position, end)
        self._position = end
        return count


@lru_cache(maxsize=64)
def open_bucket(
    location: Location, access: BucketAccess, retry_s: float | None, public_endpoint: str | None
) -> BucketStorage:
    """Open the storage below a prefix of a bucket; nothing is requested yet.

    ``retry_s`` is how long requests are repeated while the store is throttling or out of reach; None: as the
    rule says. ``public_endpoint`` is where users reach the store, if not at the endpoint of the rule.

    Raises:
        ImportError: the extra for this kind of store is not installed.
    """
    client = open_client(location, access, access.retry_seconds if retry_s is None else retry_s)
    public_client = client
    if public_endpoint is not None:
        public_client = open_client(location, access, 0, public_endpoint)
    return BucketStorage(location, access, retry_s, public_endpoint, client, public_client)


def _make_status(metadata: Any) -> FileStatus:
    etag = (metadata.get("e_tag") or "").removeprefix("W/").strip('"')
    return FileStatus(int(metadata["size"]), metadata["last_modified"].replace(microsecond=0), etag)
