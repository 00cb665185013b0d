"""Failures of reading objects in buckets: their kinds, which are tried again, and messages."""

from __future__ import annotations

import logging
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from odc_openeo.errors import OpenEOError, StorageFailure, walk_causes
from odc_openeo.load.object_environment import CredentialsMissingError, forget_credentials
from odc_openeo.load.pixels import PixelsRefusedError
from odc_openeo.load.sas_tokens import TokenUnavailableError, forget_tokens
from odc_openeo.runners.memory_failures import is_memory_failure
from odc_openeo.storage.buckets import (
    AddressRefusedError,
    BucketAccess,
    find_location,
    hide_queries,
    hide_query,
)

_log = logging.getLogger(__name__)

_operator_log = logging.getLogger("odc_openeo.objects")
"""Not among the loggers whose warnings are forwarded to the owners of jobs."""

T = TypeVar("T")

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 8.0
MOST_UNEXPLAINED: Final = 3
"""Tries of reading an object whose failure is not of the network: it is probably damaged."""

MOST_REFUSED: Final = 2
"""Tries with credentials or a token that are refused: the second time with new ones."""


@dataclass(frozen=True)
class ObjectFailureKind:
    """A kind of failure: what is wrong, advice for users, a cure for operators.

    ``tries`` is how often reading is tried; None: as long as the rule for the bucket allows.
    """

    reason: str
    advice: str
    cure: str
    tries: int | None = 1


LEAVE_OUT: Final = (
    "Leave the dataset out with temporal_extent or properties, or report its id to the operator."
)
REPORT: Final = "Report the id of the dataset to the operator."
LATER: Final = "Please try again later."

KINDS: Final[Mapping[str, ObjectFailureKind]] = {
    "address": ObjectFailureKind(
        "its address is not valid", REPORT, "correct the location of the dataset in the index"
    ),
    "object": ObjectFailureKind("the object does not exist", LEAVE_OUT, "restore it, or archive its dataset"),
    "bucket": ObjectFailureKind(
        "the bucket does not exist",
        REPORT,
        "check the location of the dataset, and 'endpoint' in the rules for buckets",
    ),
    "credentials": ObjectFailureKind("the service has no credentials for it", REPORT, "{detail}"),
    "refused": ObjectFailureKind(
        "the credentials of the service are not accepted",
        REPORT,
        "replace them, they are wrong or have expired; or set 'unsigned' if the bucket is public",
        MOST_REFUSED,
    ),
    "denied": ObjectFailureKind(
        "access is denied (403)",
        REPORT,
        "check the rights of the credentials, and whether the bucket needs 'unsigned', 'requester_pays' or "
        "'signing' in the rules for buckets",
        MOST_REFUSED,
    ),
    "region": ObjectFailureKind(
        "the bucket is in another region", REPORT, "set 'region' in the rules for buckets"
    ),
    "token": ObjectFailureKind("{detail}", REPORT, "check 'signing' in the rules for buckets"),
    "token server": ObjectFailureKind("{detail}", LATER, "check 'signing' in the rules for buckets", None),
    "throttled": ObjectFailureKind(
        "the store is throttling requests",
        "Please try again later, or with a smaller extent.",
        "use fewer workers at a time, or raise 'retry_seconds' in the rules for buckets",
        None,
    ),
    "server": ObjectFailureKind("the store responds with errors", LATER, "check the store", None),
    "connection": ObjectFailureKind(
        "the store cannot be reached",
        LATER,
        "check the network, and 'endpoint' in the rules for buckets",
        None,
    ),
    "damaged": ObjectFailureKind(
        "the object is damaged", LEAVE_OUT, "restore it, or archive its dataset", MOST_UNEXPLAINED
    ),
}

CLASSES: Final = {
    "CPLE_AWSObjectNotFoundError": "object",
    "CPLE_AWSBucketNotFoundError": "bucket",
    "CPLE_AWSAccessDeniedError": "denied",
    "CPLE_AWSInvalidCredentialsError": "credentials",
    "CPLE_AWSSignatureDoesNotMatchError": "refused",
}
"""Kinds by classes of rasterio's errors."""

PHRASES: Final = (
    ("throttled", r"reduce your request rate|slow ?down|server is busy|too many requests"),
    ("region", r"region '[^']*' is wrong|specified endpoint|illegal location constraint|permanentredirect"),
    # The last is about the answer of a server that gives out the credentials of a machine.
    ("credentials", r"configuration options? not defined|not filled|missing azure_|json parsing error"),
    ("refused", r"access key id you provided|(provided )?token (has expired|is expired)|token is malformed"),
    ("refused", r"signature we calculated|authentication failed|expiredtoken|invalidaccesskeyid"),
    ("denied", r"access ?denied|forbidden"),
    ("object", r"does not exist in the file system|no such file|nosuchkey|blobnotfound"),
    (
        "connection",
        r"failed to connect|could ?n.t (connect|resolve)|could not (connect|resolve)|timed? ?out|reset by "
        r"peer|was reset|empty reply|broken pipe|closed|transfer|ssl connection|recv failure|curl error",
    ),
)
"""Kinds by what GDAL, curl or a store says, the first that fits counts."""

STATUSES: Final = {
    **dict.fromkeys((301, 307), "region"),
    **dict.fromkeys((400, 401), "refused"),
    403: "denied",
    **dict.fromkeys((404, 410), "object"),
    **dict.fromkeys((429, 503), "throttled"),
    **dict.fromkeys((408, 500, 502, 504), "server"),
}
STATUS: Final = re.compile(r"(?:response[ _]code|http error|status)\D{0,8}(\d{3})", re.IGNORECASE)


def classify_failure(error: BaseException) -> str:
    """Return the key of `KINDS` for an error of reading an object."""
    causes = list(walk_causes(error))
    for cause in causes:
        if isinstance(cause, AddressRefusedError):
            return "address"
        if isinstance(cause, CredentialsMissingError):
            return "credentials"
        if isinstance(cause, TokenUnavailableError):
            return "token" if cause.is_permanent else "token server"
    kinds = [kind for cause in causes if (kind := _classify_cause(cause)) is not None]
    return kinds[-1] if kinds else "damaged"


def _classify_cause(cause: BaseException) -> str | None:
    text = str(cause)
    # Their texts say more than these classes.
    for kind, pattern in PHRASES:
        if re.search(pattern, text, re.IGNORECASE):
            return kind
    if type(cause).__name__ in CLASSES:
        return CLASSES[type(cause).__name__]
    status = STATUS.search(text)
    return STATUSES.get(int(status[1])) if status else None


def read_persistently(read: Callable[[], T], uri: str, access: BucketAccess, subject: str) -> T:
    """Read from an object; while the store throttles or is unreachable, try again with growing pauses.

    ``subject`` names band and dataset for messages.

    Raises:
        StorageFailure: it cannot be read; the message says why and what to do.
        OpenEOError, PixelsRefusedError, MemoryError: as ``read`` raises them.
    """
    deadline, pause = time.monotonic() + access.retry_seconds, FIRST_PAUSE_S
    tries: Counter[str] = Counter()
    while True:
        value, failure = _try_read(read, uri)
        if failure is None:
            return value  # type: ignore[return-value]
        _operator_log.warning("%s at %s: %s (%s)", subject, _show(uri), failure.reason, failure.text)
        tries[failure.kind] += 1
        most = KINDS[failure.kind].tries
        is_last = time.monotonic() + pause > deadline if most is None else tries[failure.kind] >= most
        if is_last:
            raise _make_error(failure, uri, subject)
        _log.warning("%s at %s: %s; trying again", subject, _show(uri), failure.reason)
        time.sleep(pause * random.uniform(0.7, 1.0))
        pause = min(pause * 2, LONGEST_PAUSE_S)


@dataclass(frozen=True)
class Failure:
    """A failure: its kind, a detail for its message, and the text of the error for the log."""

    kind: str
    detail: str
    text: str

    @property
    def reason(self) -> str:
        """The reason, for users."""
        return KINDS[self.kind].reason.format(detail=self.detail)

    @property
    def cure(self) -> str:
        """The cure, for operators."""
        return KINDS[self.kind].cure.format(detail=self.detail)


def _try_read(read: Callable[[], T], uri: str) -> tuple[T | None, Failure | None]:
    # The error is not kept: its context may hold a signed URL.
    try:
        return read(), None
    except (OpenEOError, PixelsRefusedError):
        raise
    except Exception as error:
        if is_memory_failure(error):
            raise MemoryError from None
        failure = describe_failure(error, uri)
    if failure.kind in ("denied", "refused", "credentials"):
        # The next try, perhaps much later, has those that the operator provides then.
        forget_credentials()
        forget_tokens()
    return None, failure


def describe_failure(error: Exception, uri: str) -> Failure:
    """Describe an error of reading the object at a URI."""
    causes = list(walk_causes(error))
    detail = next((c.cure for c in causes if isinstance(c, CredentialsMissingError)), "")
    detail = next((str(c) for c in causes if isinstance(c, TokenUnavailableError)), detail)
    text = "; ".join(dict.fromkeys(f"{type(c).__name__}: {hide_queries(str(c))[:300]}" for c in causes))
    return Failure(classify_failure(error), detail or _find_cure(uri), text)


def _find_cure(uri: str) -> str:
    """The cure if GDAL finds no credentials for the store of a URI."""
    variables = {
        "gs": "GOOGLE_APPLICATION_CREDENTIALS",
        "az": "AZURE_STORAGE_ACCESS_KEY or AZURE_STORAGE_SAS_TOKEN",
    }
    names = variables.get(_show(uri).partition(":")[0], "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    return f"set {names}, or 'unsigned' for the bucket"


def _show(uri: str) -> str:
    try:
        location = find_location(uri)
    except AddressRefusedError:
        location = None
    return hide_query(str(location or uri))[:300]


def _make_error(failure: Failure, uri: str, subject: str) -> StorageFailure:
    kind = KINDS[failure.kind]
    text = f"{subject} cannot be read from {_show(uri)}: {failure.reason}. {kind.advice}"
    error = StorageFailure(text if kind.advice == LATER else f"{text} Operators: {failure.cure}.")
    error.is_permanent = kind.tries is not None
    return error
