"""Connections to buckets that files are stored in, by the operator's rules and the environment.

The library `obstore` must not be used by a process that forks and by its children: they would hang.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from odc_openeo.config import read_variable
from odc_openeo.storage.bucket_failures import BucketCredentialsMissingError
from odc_openeo.storage.buckets import BucketAccess, Location

log = logging.getLogger(__name__)

EXTRAS: Final = {"s3": "s3", "gs": "gcs", "az": "azure"}
KEYS_LAST: Final = timedelta(minutes=10)
"""How long credentials are used before they are looked up again."""


def open_client(location: Location, access: BucketAccess, retry_s: float, endpoint: str | None = None) -> Any:
    """Open a store of `obstore` at a bucket and prefix; nothing is requested yet.

    ``retry_s`` is how long requests are repeated while the store is throttling or out of reach. ``endpoint``
    replaces that of the rule.

    Raises:
        ImportError: the extra for this kind of store is not installed.
    """
    try:
        from obstore import store
    except ImportError as error:
        extra = EXTRAS[location.scheme]
        raise ImportError(f"install odc-openeo[{extra}] to store files in {location.scheme}://") from error
    options: dict[str, Any] = {
        "prefix": location.key or None,
        "client_options": {"allow_http": True, "timeout": "60s", "connect_timeout": "5s"},
        "retry_config": {
            "max_retries": 100 if retry_s else 0,
            "retry_timeout": timedelta(seconds=retry_s),
            "backoff": {
                "init_backoff": timedelta(milliseconds=200),
                "max_backoff": timedelta(seconds=8),
                "base": 2,
            },
        },
    }
    if location.scheme == "s3":
        return store.S3Store(location.bucket, **_make_s3_options(access, endpoint), **options)
    if location.scheme == "gs":
        if access.unsigned:
            options["skip_signature"] = True
        if access.endpoint:
            options["url"] = access.endpoint
        return store.GCSStore(location.bucket, **options)
    return store.AzureStore(location.bucket, **_make_azure_options(access), **options)


def _make_s3_options(access: BucketAccess, endpoint: str | None) -> dict[str, Any]:
    url = endpoint or find_endpoint(access)
    options: dict[str, Any] = {"region": find_region(access)}
    if url:
        options["endpoint"] = url
    if (access.addressing or ("path" if url else "virtual")) == "virtual":
        options["virtual_hosted_style_request"] = True
    if access.requester_pays:
        options["request_payer"] = True
    if access.unsigned:
        return {**options, "skip_signature": True}
    provider = _make_key_provider(access.profile)
    return options if provider is None else {**options, "credential_provider": provider}


def find_endpoint(access: BucketAccess) -> str | None:
    """Find the URL of the server of a bucket of S3; None for the store's own."""
    variables = (read_variable("AWS_ENDPOINT_URL_S3"), read_variable("AWS_ENDPOINT_URL"))
    return access.endpoint or next(filter(None, variables), None)


def find_region(access: BucketAccess) -> str:
    """Find the region of a bucket of S3."""
    region = access.region or read_variable("AWS_REGION") or read_variable("AWS_DEFAULT_REGION")
    session = None if region else open_aws_session(access.profile)
    return region or getattr(session, "region_name", None) or "us-east-1"


@lru_cache(maxsize=32)
def open_aws_session(profile: str | None) -> Any:
    """Open the session of boto3 with a profile; None without boto3.

    Raises:
        BucketCredentialsMissingError: there is no such profile.
    """
    try:
        import boto3
        from botocore.exceptions import BotoCoreError
    except ImportError:
        return None
    try:
        return boto3.Session(profile_name=profile)
    except BotoCoreError as error:
        # Its text may quote files of this machine.
        raise BucketCredentialsMissingError(_describe_cure(profile)) from error


def _make_key_provider(profile: str | None) -> Callable[[], dict[str, Any]] | None:
    """A function that returns the current keys; None if the store's library is to look for them itself."""
    if open_aws_session(profile) is None:
        if profile is not None:
            raise BucketCredentialsMissingError("install odc-openeo[s3], which reads AWS profiles")
        return None

    def read_keys() -> dict[str, Any]:
        keys = read_credentials(profile)
        return {
            "access_key_id": keys.access_key,
            "secret_access_key": keys.secret_key,
            "token": keys.token,
            "expires_at": datetime.now(UTC) + KEYS_LAST,
        }

    return read_keys


def read_credentials(profile: str | None) -> Any:
    """Read the current keys of a profile with boto3: ``access_key``, ``secret_key``, ``token``.

    Raises:
        BucketCredentialsMissingError: there are none.
    """
    credentials = open_aws_session(profile).get_credentials()
    keys = None if credentials is None else credentials.get_frozen_credentials()
    if keys is None or not keys.access_key:
        # The operator may provide them until the next try.
        open_aws_session.cache_clear()
        raise BucketCredentialsMissingError(_describe_cure(profile))
    return keys


def _describe_cure(profile: str | None) -> str:
    if profile is not None:
        return f"give the service the AWS profile '{profile}' with valid credentials"
    return "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile in the rules for buckets"


def _make_azure_options(access: BucketAccess) -> dict[str, Any]:
    account = access.account or read_variable("AZURE_STORAGE_ACCOUNT")
    options: dict[str, Any] = {"account_name": account} if account else {}
    if access.endpoint:
        options["endpoint"] = access.endpoint
    if access.unsigned:
        options["skip_signature"] = True
    return options


def abort_uploads(location: Location, access: BucketAccess, prefix: str, age_s: float = 0) -> int:
    """Abort unfinished multipart uploads below a prefix, of processes that were killed; return their number.

    Those that began within ``age_s`` seconds may be of processes that run, and are kept.

    Only with S3, which keeps their parts, and charges for them, until it is told. Other stores forget them.
    """
    session = open_aws_session(access.profile) if location.scheme == "s3" else None
    if session is None or access.unsigned:
        return 0
    client = session.client("s3", endpoint_url=find_endpoint(access), region_name=find_region(access))
    before, count = datetime.now(UTC) - timedelta(seconds=age_s), 0
    for page in client.get_paginator("list_multipart_uploads").paginate(
        Bucket=location.bucket, Prefix=prefix
    ):
        for upload in page.get("Uploads", ()):
            if age_s and upload["Initiated"] > before:
                continue
            client.abort_multipart_upload(
                Bucket=location.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
            )
            count += 1
    return count
