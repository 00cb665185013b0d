"""Stores of `zarr` in storages: a folder of the local disk, or a prefix in a bucket."""

from __future__ import annotations

from typing import Any

from zarr.storage import LocalStore, ObjectStore

from odc_openeo.storage.bucket_storage import BucketStorage
from odc_openeo.storage.interface import Storage


def open_zarr_store(storage: Storage, key: str, *, read_only: bool = False) -> Any:
    """Open a store of `zarr` at a key of a storage; nothing is requested yet.

    Raises:
        ValueError: the storage is neither a folder of the local disk nor a bucket, or the key is not valid.
    """
    path = storage.find_local_path(key)
    if path is not None:
        return LocalStore(path, read_only=read_only)
    if isinstance(storage, BucketStorage):
        return ObjectStore(storage.open_prefix(key), read_only=read_only)
    raise ValueError("Zarr stores are written to folders of the local disk and to buckets only")
