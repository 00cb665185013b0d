"""Where results, user files and workspaces live: a folder, or a bucket of an object store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from odc_openeo.config import Config
from odc_openeo.errors import StorageFailure
from odc_openeo.storage.buckets import DEFAULT_ACCESS, SCHEMES, find_location, read_bucket_rules
from odc_openeo.storage.interface import FileStatus, Storage

if TYPE_CHECKING:
    from odc_openeo.storage.bucket_storage import BucketStorage

__all__ = [
    "be_patient",
    "FileStatus",
    "Storage",
    "check_storage",
    "find_bucket",
    "get_storage",
    "is_bucket_url",
    "storage_at",
]

PATIENCE_S: Final = 5.0
"""How long requests try to reach a bucket again and again."""


_is_patient = False


def be_patient() -> None:
    """Let storages of this process try as long as the rules for buckets say: nobody waits for a response."""
    global _is_patient
    _is_patient = True


def is_bucket_url(url: str) -> bool:
    """Whether a URL is one of a bucket that we reach ourselves, not through fsspec."""
    return url.partition("://")[0].lower() in SCHEMES


def storage_at(url: str, options: Mapping[str, Any], buckets: Path | None = None) -> Storage:
    """The storage at a folder, bucket or fsspec URL. With ``options`` it is reached through fsspec.

    ``buckets`` is the operator's file of rules on how buckets are reached.

    Raises:
        ValueError: the URL is not valid; ImportError: a package for this kind of store is not installed.
        StorageFailure: there are no credentials for the bucket.
    """
    if is_bucket_url(url) and not options:
        return _open_bucket(url, buckets, None if _is_patient else PATIENCE_S, None)
    return _open_folder(url, tuple(sorted(options.items())))


def get_storage(config: Config, *, patient: bool = False) -> Storage:
    """The storage of a configuration.

    While a bucket is throttling or out of reach, requests try again for some seconds; who is ``patient``, as
    jobs are, for as long as the rule for the bucket says.
    """
    if is_bucket_url(config.storage):
        patience = None if patient or _is_patient else PATIENCE_S
        return _open_bucket(config.storage, config.buckets, patience, config.storage_public_endpoint)
    return _open_folder(config.storage, ())


def find_bucket(config: Config) -> BucketStorage | None:
    """The storage of a configuration if it is in a bucket, None if it is a folder."""
    return cast("BucketStorage", get_storage(config)) if is_bucket_url(config.storage) else None


def check_storage(config: Config, *, writes: bool = True) -> str:
    """Check that files can be stored, and describe the place; the quick look writes nothing.

    A process that forks must not call it: see `bucket_client`.

    Raises:
        ValueError: they cannot; the message says why and what to do, in one line.
    """
    try:
        return get_storage(config).check(writes=writes)
    except (ImportError, StorageFailure) as error:
        raise ValueError(str(error.__cause__ or error)) from None


@cache
def _open_folder(url: str, options: tuple[tuple[str, Any], ...]) -> Storage:
    from odc_openeo.storage.folder_storage import open_folder

    return open_folder(url, dict(options))


@cache
def _open_bucket(
    url: str, buckets: Path | None, patience_s: float | None, public_endpoint: str | None
) -> Storage:
    from odc_openeo.storage.bucket_failures import BucketCredentialsMissingError, make_failure
    from odc_openeo.storage.bucket_storage import open_bucket

    location = find_location(url)
    assert location is not None
    location = replace(location, key=location.key.strip("/"))
    access = read_bucket_rules(buckets).find_by_prefix(location) or DEFAULT_ACCESS
    try:
        return open_bucket(location, access, patience_s, public_endpoint)
    except BucketCredentialsMissingError as error:
        failure = make_failure(error, location, "your files")
        raise failure from failure.__cause__
