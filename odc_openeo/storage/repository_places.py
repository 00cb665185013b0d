"""Where Icechunk keeps repositories: in a folder, or in a bucket of S3, reached as other files there are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from odc_openeo.storage.bucket_client import (
    KEYS_LAST,
    find_endpoint,
    find_region,
    open_aws_session,
    read_credentials,
)
from odc_openeo.storage.buckets import BucketAccess
from odc_openeo.storage.interface import Storage, split_key


def keeps_repositories(store: Storage, key: str) -> bool:
    """Whether Icechunk reaches the place of a key: it is in a folder of this machine or a bucket of S3."""
    if store.find_local_path(key) is not None:
        return True
    location = getattr(store, "location", None)
    return location is not None and location.scheme == "s3"


def open_repository_place(store: Storage, key: str) -> Any:
    """Return the `icechunk.Storage` at a key; nothing is requested yet.

    Raises:
        ValueError: Icechunk does not reach it, or it is not a key.
    """
    path = "/".join(split_key(key))
    local = store.find_local_path(path)
    if local is not None:
        return open_folder_place(local)
    if not keeps_repositories(store, path):
        raise ValueError("not in a folder or a bucket of S3")
    import icechunk

    location, access = store.location, store.access  # type: ignore[attr-defined]
    prefix = f"{location.key}/{path}" if location.key else path
    return icechunk.s3_storage(bucket=location.bucket, prefix=prefix, **_make_s3_options(access))


def open_folder_place(path: Path) -> Any:
    """Return the `icechunk.Storage` of a folder."""
    import icechunk

    # It warns that folders are not safe for commits at the same time: ours take turns.
    icechunk.set_logs_filter("error")
    return icechunk.local_filesystem_storage(str(path))


def _make_s3_options(access: BucketAccess) -> dict[str, Any]:
    url = find_endpoint(access)
    options: dict[str, Any] = {
        "region": find_region(access),
        "endpoint_url": url,
        "allow_http": True,
        "force_path_style": (access.addressing or ("path" if url else "virtual")) == "path",
        "requester_pays": access.requester_pays,
    }
    if access.unsigned:
        return {**options, "anonymous": True}
    if open_aws_session(access.profile) is None:
        return {**options, "from_env": True}
    return {**options, "get_credentials": KeyReader(access.profile)}


@dataclass(frozen=True)
class KeyReader:
    """Reads the current keys of a profile whenever Icechunk asks."""

    profile: str | None

    def __call__(self) -> Any:
        import icechunk

        keys = read_credentials(self.profile)
        expiry = datetime.now(UTC) + KEYS_LAST
        return icechunk.S3StaticCredentials(keys.access_key, keys.secret_key, keys.token, expiry)
