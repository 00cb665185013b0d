"""Failures of a bucket that files are stored in: kinds, messages, and which requests to try again."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from odc_openeo.errors import StorageFailure, walk_causes
from odc_openeo.storage.buckets import Location, hide_queries

LONGEST_TEXT: Final = 300


@dataclass(frozen=True)
class BucketFailureKind:
    """A kind of failure: what is wrong, and a cure for operators; whether another try may succeed."""

    reason: str
    cure: str
    is_transient: bool = False


KINDS: Final[Mapping[str, BucketFailureKind]] = {
    "credentials": BucketFailureKind("the service has no credentials for it", ""),
    "refused": BucketFailureKind(
        "the credentials of the service are not accepted", "replace them, they are wrong or have expired"
    ),
    "denied": BucketFailureKind(
        "access is denied",
        "give the credentials the rights to list the bucket and to read, write and delete below the prefix",
    ),
    "bucket": BucketFailureKind(
        "the bucket does not exist", "create it, or correct its name or the endpoint of the storage"
    ),
    "region": BucketFailureKind(
        "the bucket is in another region",
        "set AWS_REGION, or 'region' in the rules for buckets, to its region",
    ),
    "full": BucketFailureKind("there is no space left", "raise the quota of the bucket, or delete files"),
    "name": BucketFailureKind("its name is too long for the store", "shorten the prefix of the storage"),
    "throttled": BucketFailureKind(
        "the store is throttling requests", "use fewer workers, or try again later", True
    ),
    "server": BucketFailureKind("the store responds with errors", "check the store", True),
    "connection": BucketFailureKind(
        "the store cannot be reached", "check the network, and the endpoint of the storage", True
    ),
    "changed": BucketFailureKind("the file was replaced in the meantime", "none is needed", True),
    "unknown": BucketFailureKind("the store has refused the request", "see the log"),
}

CODES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("NoSuchBucket", "ContainerNotFound"), "bucket"),
    **dict.fromkeys(
        (
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "ExpiredToken",
            "TokenRefreshRequired",
            "InvalidToken",
            "AuthenticationFailed",
        ),
        "refused",
    ),
    **dict.fromkeys(("AccessDenied", "AllAccessDisabled", "AccountProblem", "MethodNotAllowed"), "denied"),
    **dict.fromkeys(
        (
            "PermanentRedirect",
            "AuthorizationHeaderMalformed",
            "IllegalLocationConstraintException",
            "TemporaryRedirect",
        ),
        "region",
    ),
    **dict.fromkeys(("QuotaExceeded", "XMinioStorageFull", "InsufficientCapacity"), "full"),
    "KeyTooLongError": "name",
    **dict.fromkeys(("SlowDown", "TooManyRequests", "RequestLimitExceeded", "ServerBusy"), "throttled"),
    **dict.fromkeys(("InternalError", "ServiceUnavailable"), "server"),
}
"""Kinds by the codes of stores."""

STATUSES: Final[Mapping[int, str]] = {
    **dict.fromkeys((301, 307), "region"),
    401: "refused",
    403: "denied",
    507: "full",
    **dict.fromkeys((429, 503), "throttled"),
    **dict.fromkeys((408, 500, 502, 504), "server"),
}

CONNECTION: Final = re.compile(
    r"HTTP error|error sending request|connect|timed? ?out|timeout|error decoding response body|reset",
    re.IGNORECASE,
)

CLASSES: Final = {
    "PermissionDeniedError": "denied",
    "UnauthenticatedError": "refused",
    "PreconditionError": "changed",
}


class BucketCredentialsMissingError(Exception):
    """This process has no credentials for a bucket; the message says what to do."""


class ObjectError(OSError):
    """A failed request, for the operator: the object, what the store says, and the cure. Without secrets."""


class ObjectMissingError(FileNotFoundError):
    """There is no such object."""


def classify_failure(error: BaseException) -> tuple[str, str]:
    """Return the key of `KINDS` for an error, and what the store says, on one line."""
    for cause in walk_causes(error):
        if isinstance(cause, BucketCredentialsMissingError):
            return "credentials", str(cause)
    # What follows is a dump of the library's structures.
    text = str(error).partition("Debug source")[0]
    missing = re.search(rf"{BucketCredentialsMissingError.__name__}: ([^\n]+)", text)
    if missing:
        return "credentials", missing[1].strip()
    code, status = re.search(r"<Code>\s*(\w+)\s*</Code>", text), re.search(r"status code: (\d{3})", text)
    says = " ".join(part[1] for part in (code, re.search(r"<Message>([^<]*)</Message>", text)) if part)
    says = hide_queries(says or re.sub(r"https?://\S+", "…", text))[:LONGEST_TEXT]
    if code and code[1] in CODES:
        return CODES[code[1]], says
    if status and int(status[1]) in STATUSES:
        return STATUSES[int(status[1])], says
    if "incorrectly configured region" in text:
        return "region", "the store redirects to another region"
    kind = CLASSES.get(type(error).__name__)
    if kind is None and CONNECTION.search(text):
        kind = "connection"
    return kind or "unknown", " ".join(says.split())


def is_missing_object(error: BaseException) -> bool:
    """Whether an error says that there is no such object, but that there is the bucket."""
    return isinstance(error, FileNotFoundError) and classify_failure(error)[0] != "bucket"


def make_failure(error: BaseException, location: Location, name: str) -> StorageFailure:
    """Make the error of a request; ``name`` is what users call the object. Its cause is for operators."""
    kind_name, says = classify_failure(error)
    kind = KINDS[kind_name]
    advice = "Please try again later." if kind.is_transient else "Please tell the operator of the service."
    failure = StorageFailure(f"'{name}' could not be stored or read: {kind.reason}. {advice}")
    failure.is_permanent = not kind.is_transient
    if kind.is_transient:
        failure.status = 503
    failure.__cause__ = ObjectError(_describe(kind_name, says, location))
    return failure


def describe_problem(error: BaseException, location: Location) -> str:
    """Describe a failure in one line, with the cure."""
    return f"cannot store files in {_describe(*classify_failure(error), location)}"


def _describe(kind_name: str, says: str, location: Location) -> str:
    kind = KINDS[kind_name]
    if kind_name == "credentials":
        return f"{location}: {kind.reason}; {says}"
    return f"{location}: {kind.reason} ({says}); {kind.cure}"


def name_for_users(key: str) -> str:
    """Return the name by which users know the file at a key: without the folders of the service."""
    parts = key.split("/")
    while len(parts) > 1 and (parts[0] in _OUR_FOLDERS or re.fullmatch(r"[0-9a-f-]{32,36}", parts[0])):
        parts = parts[1:]
    return "your files" if re.fullmatch(r"[0-9a-f-]{32,36}", parts[0]) else "/".join(parts)


_OUR_FOLDERS: Final = ("results", "files", "incoming", "workspaces", "collections")


@contextlib.contextmanager
def translate_failures(location: Location, key: str) -> Iterator[None]:
    """Turn errors of the library that talks to stores into ours, which hold no secret."""
    try:
        yield
    except (StorageFailure, ObjectMissingError):
        raise
    except Exception as error:
        if not _is_of_library(error):
            raise
        if is_missing_object(error):
            raise ObjectMissingError(key) from None
        failure = make_failure(error, location, name_for_users(key))
        raise failure from failure.__cause__


def _is_of_library(error: BaseException) -> bool:
    causes = list(walk_causes(error))
    return isinstance(error, FileNotFoundError) or any(
        type(cause).__module__.startswith("obstore") or isinstance(cause, BucketCredentialsMissingError)
        for cause in causes
    )
