"""Names and options by which GDAL reads objects in buckets, and the credentials of the process.

All options of a store are set for each object, the unused ones to their defaults: rasterio sets options in
the main thread for the whole process, and what one object needs must not be used for another.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

import rasterio
from cachetools import LRUCache
from rasterio.session import Session

from odc_openeo.config import read_variable
from odc_openeo.load.sas_tokens import get_token
from odc_openeo.storage.buckets import WEB, BucketAccess, Location, find_location
from odc_openeo.untrusted.gdal_drivers import load_gdal

HTTP: Final = {
    # Quick retries; `object_failures` goes on with longer pauses.
    "GDAL_HTTP_MAX_RETRY": "2",
    "GDAL_HTTP_RETRY_DELAY": "0.3",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "256",
    "GDAL_HTTP_LOW_SPEED_TIME": "30",
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
}
"""Options of all requests, unless the environment of the process has others."""

FRESH_S: Final = 300.0
"""Seconds after which an object is read again that may have been replaced; GDAL itself never does so."""

MOST_CACHED: Final = 20_000
"""Names to remember; GDAL's own cache has 16 MB, which are a thousand parts of files."""

_cached_since: LRUCache[str, float] = LRUCache(MOST_CACHED)
_lock = threading.Lock()

VSI_NAMES: Final = {"s3": "/vsis3/", "gs": "/vsigs/", "az": "/vsiaz/"}


class _HideAddresses(logging.Filter):
    """Takes URLs, which may be signed, and keys out of rasterio's messages: they are in logs of jobs, too."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = _URL.sub("(URL)", record.getMessage())
        record.msg, record.args = _SECRET_OPTION.sub(r"\1***", text), ()
        return True


_URL: Final = re.compile(r"https?://[^\s'\"]+", re.IGNORECASE)
_SECRET_OPTION: Final = re.compile(
    r"(\w*(?:ACCESS_KEY|TOKEN|SECRET|SAS)\w*\W{1,6}(?:to\W+)?)[^\s,'\"]+", re.IGNORECASE
)

for _name in ("_env", "_err", "_base", "_io", "_vsiopener", "_filepath", "env", "session"):
    logging.getLogger(f"rasterio.{_name}").addFilter(_HideAddresses())


class CredentialsMissingError(Exception):
    """The process has no credentials for a store; ``cure`` is what the operator should do."""

    def __init__(self, cure: str) -> None:
        super().__init__(cure)
        self.cure = cure


class _Credentials(Session):
    """Options with credentials, which rasterio accepts only from a session."""

    def __init__(self, options: Mapping[str, str]) -> None:
        self.options = dict(options)

    def get_credential_options(self) -> dict[str, str]:
        return self.options


def is_remote(uri: str) -> bool:
    """Whether a URI is one of an object in a bucket or on a web server, perhaps one that is not valid."""
    scheme, mark, _ = uri.partition("://")
    return uri.startswith(tuple(VSI_NAMES.values())) or bool(mark and scheme.lower() in _REMOTE)


_REMOTE: Final = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", *WEB})


@contextlib.contextmanager
def expose_object(uri: str, access: BucketAccess) -> Iterator[str]:
    """Yield the name by which GDAL reads an object, within an environment that reaches it.

    Raises:
        AddressRefusedError: the URI does not name an object.
        CredentialsMissingError, TokenUnavailableError: the object cannot be reached by this process.
    """
    location = find_location(uri)
    if location is None:
        raise ValueError("not an object in a bucket")
    credentials = _make_options(location, access)
    general = {name: read_variable(name) or value for name, value in HTTP.items()}
    if location.scheme == "s3":
        _forget_other_servers(location.bucket, credentials)
    name = _make_name(location, uri, access)
    with rasterio.Env(session=_Credentials(credentials), **general):
        if _is_outdated(name):
            load_gdal().VSICurlPartialClearCache(name.encode())
        try:
            yield name
        except Exception:
            # GDAL would remember failures: that an object does not exist, or may not be read.
            load_gdal().VSICurlPartialClearCache(name.encode())
            raise


def _is_outdated(name: str) -> bool:
    """Whether GDAL may have parts of an object in its cache for so long that they are to be read again."""
    now = time.monotonic()
    with _lock:
        since = _cached_since.setdefault(name, now)
        if now - since < FRESH_S:
            return False
        _cached_since[name] = now
    return True


def _make_name(location: Location, uri: str, access: BucketAccess) -> str:
    if location.scheme not in WEB:
        return f"{VSI_NAMES[location.scheme]}{location.bucket}/{location.key}"
    url = uri.partition("#")[0]
    if access.signing is None:
        return f"/vsicurl/{url}"
    return f"/vsicurl/{url}{'&' if '?' in url else '?'}{get_token(access.signing, location)}"


def _make_options(location: Location, access: BucketAccess) -> dict[str, str]:
    if location.scheme == "s3":
        return _make_s3_options(access)
    if location.scheme == "gs":
        return _make_google_options(access)
    if location.scheme == "az":
        return _make_azure_options(location, access)
    return {}


# --- Amazon S3 and its kind ----------------------------------------------------------------------

_servers: dict[str, tuple[str, ...]] = {}


def _forget_other_servers(bucket: str, options: Mapping[str, str]) -> None:
    """Let GDAL forget where it was redirected for a bucket if it is reached in another way now.

    It keeps region, server and payer of a redirect by the name of the bucket, whatever its options are.
    """
    server = tuple(options[name] for name in ("AWS_S3_ENDPOINT", "AWS_REQUEST_PAYER", "AWS_VIRTUAL_HOSTING"))
    if _servers.setdefault(bucket, server) != server:
        load_gdal().VSICurlClearCache()
        _servers[bucket] = server


def _make_s3_options(access: BucketAccess) -> dict[str, str]:
    region = access.region or read_variable("AWS_REGION") or read_variable("AWS_DEFAULT_REGION")
    options = {
        "AWS_REGION": region or "us-east-1",
        "AWS_REQUEST_PAYER": "requester"
        if access.requester_pays
        else read_variable("AWS_REQUEST_PAYER") or "",
        **_make_s3_endpoint(access),
    }
    is_unsigned = access.profile is None and _is_true(read_variable("AWS_NO_SIGN_REQUEST"))
    if access.unsigned or is_unsigned:
        nothing = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"), "")
        return {**options, **nothing, "AWS_NO_SIGN_REQUEST": "YES", "AWS_REQUEST_PAYER": ""}
    keys, profile_region = _read_aws_keys(access.profile)
    if region is None and profile_region:
        options["AWS_REGION"] = profile_region
    return {**options, **keys, "AWS_NO_SIGN_REQUEST": "NO"}


def _make_s3_endpoint(access: BucketAccess) -> dict[str, str]:
    url = access.endpoint or read_variable("AWS_ENDPOINT_URL_S3") or read_variable("AWS_ENDPOINT_URL")
    if url:
        server, is_secure = _split_server(url)
        addressing: str = access.addressing or "path"
    else:
        server = read_variable("AWS_S3_ENDPOINT") or "s3.amazonaws.com"
        is_secure = _is_true(read_variable("AWS_HTTPS") or "YES")
        default = "virtual" if _is_true(read_variable("AWS_VIRTUAL_HOSTING") or "YES") else "path"
        addressing = access.addressing or default
    return {
        "AWS_S3_ENDPOINT": server,
        "AWS_HTTPS": "YES" if is_secure else "NO",
        "AWS_VIRTUAL_HOSTING": "YES" if addressing == "virtual" else "NO",
    }


def _split_server(url: str) -> tuple[str, bool]:
    parts = urlsplit(url)
    return f"{parts.netloc}{parts.path.rstrip('/')}", parts.scheme == "https"


def _is_true(value: str | None) -> bool:
    return (value or "").strip().upper() in ("YES", "TRUE", "ON", "1")


def _read_aws_keys(profile: str | None) -> tuple[dict[str, str], str | None]:
    """The current credentials of a profile, or of the environment, and the region of the profile."""
    try:
        from botocore.exceptions import BotoCoreError
    except ImportError:
        if profile is not None:
            cure = "install odc-openeo[s3], which reads the profiles of the AWS configuration"
            raise CredentialsMissingError(cure) from None
        # GDAL looks for keys itself.
        return {}, None
    try:
        session = _open_aws_session(profile)
        credentials = session.get_credentials()
        keys = None if credentials is None else credentials.get_frozen_credentials()
        region = session.region_name
    except BotoCoreError as error:
        # Its text may quote files of this machine.
        raise CredentialsMissingError(f"{_describe_cure(profile)} ({type(error).__name__})") from None
    if keys is None or not keys.access_key:
        raise CredentialsMissingError(_describe_cure(profile))
    return {
        "AWS_ACCESS_KEY_ID": keys.access_key,
        "AWS_SECRET_ACCESS_KEY": keys.secret_key,
        "AWS_SESSION_TOKEN": keys.token or "",
    }, region


def _describe_cure(profile: str | None) -> str:
    if profile is not None:
        return f"give the service and its dask workers the AWS profile '{profile}' with valid credentials"
    return "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile, or set 'unsigned' for the bucket"


@lru_cache(maxsize=32)
def _open_aws_session(profile: str | None) -> Any:
    # Credentials that expire are renewed by the session.
    import boto3

    return boto3.Session(profile_name=profile)


def forget_credentials() -> None:
    """Read credentials again when they are needed next: the operator may have replaced them."""
    _open_aws_session.cache_clear()


# --- Google Cloud Storage and Azure --------------------------------------------------------------


def _make_google_options(access: BucketAccess) -> dict[str, str]:
    is_unsigned = access.unsigned or _is_true(read_variable("GS_NO_SIGN_REQUEST"))
    endpoint = access.endpoint or read_variable("CPL_GS_ENDPOINT") or "https://storage.googleapis.com"
    return {
        "GS_NO_SIGN_REQUEST": "YES" if is_unsigned else "NO",
        "GS_USER_PROJECT": access.billing_project or read_variable("GS_USER_PROJECT") or "",
        "CPL_GS_ENDPOINT": f"{endpoint.rstrip('/')}/",
    }


AZURE_SECRETS: Final = (
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_ACCESS_TOKEN",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
)
"""Credentials in the order in which GDAL uses them."""


def _make_azure_options(location: Location, access: BucketAccess) -> dict[str, str]:
    account = access.account or read_variable("AZURE_STORAGE_ACCOUNT")
    secrets = {name: read_variable(name) or "" for name in AZURE_SECRETS}
    if access.account is not None:
        # It names an account of its own.
        secrets["AZURE_STORAGE_CONNECTION_STRING"] = ""
    if access.unsigned or access.signing is not None:
        secrets = dict.fromkeys(AZURE_SECRETS, "")
    if account is None and not secrets["AZURE_STORAGE_CONNECTION_STRING"]:
        raise CredentialsMissingError("name the storage account in 'account' or AZURE_STORAGE_ACCOUNT")
    if access.signing is not None:
        secrets["AZURE_STORAGE_SAS_TOKEN"] = get_token(access.signing, location, account)
    is_unsigned = access.unsigned or (
        access.signing is None and _is_true(read_variable("AZURE_NO_SIGN_REQUEST"))
    )
    server, is_secure = _split_server(access.endpoint) if access.endpoint else ("", True)
    return {
        "AZURE_STORAGE_ACCOUNT": account or "",
        **secrets,
        "AZURE_NO_SIGN_REQUEST": "YES" if is_unsigned else "NO",
        "CPL_AZURE_ENDPOINT": server,
        "CPL_AZURE_USE_HTTPS": "YES" if is_secure else "NO",
    }
