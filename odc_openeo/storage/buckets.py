"""How objects in buckets are reached: the operator's rules by product and by prefix, from a YAML file.

No rule holds a secret: credentials come from the environment of the process that reads, or from the profiles
of its account. Therefore rules may travel to dask workers in graphs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from odc_openeo.storage.settings_files import read_if_changed

SCHEMES: Final = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az"}
"""Schemes of object stores, and the one that this package uses for each store."""

WEB: Final = ("https", "http")

VSI: Final = {"/vsis3/": "s3://", "/vsigs/": "gs://", "/vsiaz/": "az://"}
"""GDAL's prefixes of object stores."""

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,254}")
"""Names of buckets and containers; those of hosts may have a port, too."""


class AddressRefusedError(ValueError):
    """An address may name another object than it seems to; the message is a sentence beginning with "it"."""


@dataclass(frozen=True)
class Location:
    """An object: ``scheme`` is s3, gs, az, https or http; ``bucket`` is the host in URLs of web servers."""

    scheme: str
    bucket: str
    key: str = ""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}"

    def is_below(self, prefix: Location) -> bool:
        """Whether it is in the bucket of a prefix, and in its folder if it names one."""
        if (self.scheme, self.bucket) != (prefix.scheme, prefix.bucket):
            return False
        folder = prefix.key.rstrip("/")
        return not folder or self.key == folder or self.key.startswith(f"{folder}/")


def find_location(uri: str) -> Location | None:
    """Find the object that a URI names, None if it is not in an object store or on a web server.

    The query of a URL does not belong to the object.

    Raises:
        AddressRefusedError: the URI may mean another object than it seems to.
    """
    for prefix, scheme in VSI.items():
        if uri.startswith(prefix):
            uri = scheme + uri.removeprefix(prefix)
    scheme, mark, rest = uri.partition("://")
    scheme = scheme.lower()
    if not mark or scheme not in (*SCHEMES, *WEB):
        return None
    if any(ord(character) < 32 or character == "\x7f" for character in rest):
        raise AddressRefusedError("it has control characters.")
    if scheme in WEB:
        return _locate_on_web(uri, scheme)
    bucket, _, key = rest.partition("/")
    if not NAME.fullmatch(bucket) or ".." in bucket:
        raise AddressRefusedError(f"it has no valid name of a bucket after {scheme}://.")
    if "?" in key:
        raise AddressRefusedError("it has a query, which objects in buckets do not have.")
    _check_path(key)
    return Location(SCHEMES[scheme], bucket, key)


def _locate_on_web(uri: str, scheme: str) -> Location:
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise AddressRefusedError("it is not a valid URL.") from error
    if " " in uri or "\\" in uri:
        raise AddressRefusedError("it has blanks or backslashes.")
    if "@" in parts.netloc or not host:
        raise AddressRefusedError("it has a user name, or no host.")
    key = parts.path.removeprefix("/")
    _check_path(key)
    name = f"[{host}]" if ":" in host else host
    is_default = port in (None, {"http": 80, "https": 443}[scheme])
    return Location(scheme, name if is_default else f"{name}:{port}", key)


def _check_path(key: str) -> None:
    """Refuse segments that HTTP clients resolve."""
    segments = re.split(r"/|%2f|%5c", key, flags=re.IGNORECASE)
    if any(re.sub("%2e", ".", segment, flags=re.IGNORECASE) in ("..", ".") for segment in segments):
        raise AddressRefusedError("it has a path segment '..' or '.'.")


def hide_query(uri: str) -> str:
    """The URI without user name, query and fragment, which may hold signatures."""
    return re.sub(r"(://)[^/\s]*@", r"\1", re.split("[?#]", uri, maxsplit=1)[0])


def hide_queries(text: str) -> str:
    """A message of a library without the queries and user names of URLs in it."""
    return re.sub(r"\?[^\s'\"?]*=[^\s'\"]*", "?…", re.sub(r"://[^/\s@'\"]*@", "://", text))


# --- Rules ---------------------------------------------------------------------------------------


def _check_server(url: str) -> str:
    # The value is not quoted: it may hold a password.
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in WEB or "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("not an http(s) URL without user name, query and fragment")
    return url.rstrip("/")


ServerUrl = Annotated[str, AfterValidator(_check_server)]


def _check_token_url(url: str) -> str:
    _check_server(url)
    names = set(re.findall(r"\{([^}]*)\}", url))
    if not names <= {"account", "container"} or re.search(r"[{}]", re.sub(r"\{[^{}]*\}", "", url)):
        raise ValueError("placeholders may be {account} and {container}")
    if "{" in urlsplit(url).netloc:
        raise ValueError("the host must not have placeholders")
    return url


class Signing(BaseModel):
    """Signing of URLs as by the Planetary Computer: a server gives out short-lived tokens (SAS).

    ``token_url`` may contain ``{account}`` (the first label of the host of a file, or the storage account)
    and ``{container}``. ``key_variable`` names the environment variable with the subscription key, if any.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    token_url: Annotated[str, AfterValidator(_check_token_url)]
    key_variable: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None


class BucketAccess(BaseModel):
    """How the objects of a product or below a prefix are reached. Without any field: as the environment says.

    ``unsigned``: without credentials. ``requester_pays``: requests are at the operator's expense.
    ``endpoint``: URL of another server than the store's own, such as MinIO. ``addressing``: whether buckets
    are in the host name (virtual) or in the path (default with an endpoint). ``profile``: a profile of the
    AWS configuration. ``account``: storage account of Azure. ``billing_project``: the project of Google that
    pays. ``retry_seconds``: how long reading tries again while the store is throttling or unreachable.
    ``load_stac``: users may name objects of the prefix in their STAC Items.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    unsigned: bool = False
    requester_pays: bool = False
    endpoint: ServerUrl | None = None
    addressing: Literal["path", "virtual"] | None = None
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$")] | None = None
    profile: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    account: Annotated[str, Field(pattern=r"^[a-z0-9]{3,24}$")] | None = None
    billing_project: Annotated[str, Field(pattern=r"^[a-z0-9.:-]{1,100}$")] | None = None
    signing: Signing | None = None
    retry_seconds: float = Field(60, ge=0, le=3600)
    load_stac: bool = False

    @model_validator(mode="after")
    def _check_is_consistent(self) -> Self:
        if self.unsigned and (self.profile or self.requester_pays or self.signing):
            raise ValueError("unsigned requests have no profile, requester_pays or signing")
        if self.load_stac and not (self.unsigned or self.signing):
            raise ValueError(
                "load_stac needs unsigned or signing: users do not get the service's credentials"
            )
        return self


DEFAULT_ACCESS: Final = BucketAccess()
"""How buckets without a rule are reached."""

STORE_FIELDS: Final = {
    "profile": ("s3",),
    "region": ("s3",),
    "addressing": ("s3",),
    "requester_pays": ("s3", "gs"),
    "billing_project": ("gs",),
    "account": ("az",),
    "signing": ("az", *WEB),
    "endpoint": ("s3", "gs", "az"),
    "unsigned": ("s3", "gs", "az"),
}
"""The stores in which fields have a meaning."""


class BucketRules(BaseModel):
    """The rules of a file, by product name and by URI prefix."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    products: dict[str, BucketAccess] = Field(default_factory=dict)
    prefixes: dict[str, BucketAccess] = Field(default_factory=dict)

    def find_access(self, uri: str, product: str | None = None) -> BucketAccess | None:
        """The rule for an object: that of its product, else of the longest prefix; None if there is none.

        Raises:
            AddressRefusedError: the URI may mean another object than it seems to.
        """
        location = find_location(uri)
        if location is None:
            return None
        if product is not None and product in self.products:
            return self.products[product]
        return self.find_by_prefix(location)

    def find_by_prefix(self, location: Location) -> BucketAccess | None:
        """The rule of the longest prefix that an object is below; None if there is none."""
        prefix = self.find_prefix(location)
        return None if prefix is None else self.prefixes[prefix]

    def find_prefix(self, location: Location) -> str | None:
        """The longest prefix that an object is below; None if there is none."""
        matching = [(len(prefix.key), text) for text, prefix in self._located() if location.is_below(prefix)]
        return max(matching)[1] if matching else None

    def _located(self) -> Iterable[tuple[str, Location]]:
        return _locate_prefixes(tuple(self.prefixes))


@lru_cache(maxsize=16)
def _locate_prefixes(prefixes: tuple[str, ...]) -> tuple[tuple[str, Location], ...]:
    return tuple((text, _locate_prefix(text)) for text in prefixes)


def _locate_prefix(text: str) -> Location:
    try:
        location = find_location(text)
    except AddressRefusedError as error:
        raise ValueError(f"not a prefix: {error}") from error
    if location is None or "?" in text or "#" in text:
        raise ValueError("not a prefix such as s3://bucket, gs://bucket, az://container or https://host")
    return location


_FILE: Final[TypeAdapter[BucketRules]] = TypeAdapter(BucketRules)
NO_RULES: Final = BucketRules()


class BucketRulesError(ValueError):
    """The file of bucket rules cannot be used; the message says where and why."""


def read_bucket_rules(path: Path | None) -> BucketRules:
    """Read the rules; read again when the file has changed.

    Raises:
        BucketRulesError: the file is missing, is not valid YAML, has unknown keys, or rules that contradict.
    """
    if path is None:
        return NO_RULES
    return read_if_changed(path, "bucket rules", BucketRulesError, _read_cached)


@lru_cache(maxsize=4)
def _read_cached(path: Path, _changed: int) -> BucketRules:
    try:
        rules = _FILE.validate_python(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except yaml.MarkedYAMLError as error:
        # The text of the error quotes the file, which may hold what it must not.
        line = "" if error.problem_mark is None else f" (line {error.problem_mark.line + 1})"
        raise BucketRulesError(f"the bucket rules {path} are not valid YAML{line}") from None
    except yaml.YAMLError:
        raise BucketRulesError(f"the bucket rules {path} are not valid YAML") from None
    except ValidationError as error:
        problems = "; ".join(_describe_problem(problem) for problem in error.errors(include_input=False)[:10])
        raise BucketRulesError(f"the bucket rules {path} are invalid: {problems}") from None
    problems = "; ".join(_find_misplaced_fields(rules))
    if problems:
        raise BucketRulesError(f"the bucket rules {path} are invalid: {problems}")
    return rules


def _describe_problem(problem: Mapping[str, Any]) -> str:
    place = ".".join(hide_query(str(part)) for part in problem["loc"] if part != "[key]") or "the file"
    if problem["type"] == "extra_forbidden":
        hint = "; credentials belong into the environment or a profile" if _is_secret(place) else ""
        return f"{place} is not a known key{hint}"
    return f"{place}: {problem['msg'].removeprefix('Value error, ')}"


def _is_secret(place: str) -> bool:
    return re.search("key|secret|token|password", place.rpartition(".")[2], re.IGNORECASE) is not None


def _find_misplaced_fields(rules: BucketRules) -> Iterable[str]:
    """Describe prefixes that are not valid, are given twice, or have fields of other stores."""
    texts: dict[Location, str] = {}
    for text, access in rules.prefixes.items():
        try:
            location = _locate_prefix(text)
        except ValueError as error:
            yield f"prefixes.{hide_query(text)}: {error}"
            continue
        folder = Location(location.scheme, location.bucket, location.key.rstrip("/"))
        if folder in texts:
            yield f"prefixes: {text} and {texts[folder]} are the same"
        texts[folder] = text
        for name in sorted(access.model_fields_set & STORE_FIELDS.keys()):
            if getattr(access, name) and location.scheme not in STORE_FIELDS[name]:
                yield f"prefixes.{text}.{name} has no meaning for {location.scheme}://"
        yield from _find_incomplete_fields(text, location.scheme, access)


def _find_incomplete_fields(text: str, scheme: str, access: BucketAccess) -> Iterable[str]:
    """Describe fields of a prefix that need others."""
    if scheme == "gs" and access.requester_pays and access.billing_project is None:
        yield f"prefixes.{text}.requester_pays needs billing_project, the project that pays"
    if scheme == "az" and access.load_stac and access.signing is not None:
        yield f"prefixes.{text}.load_stac with signing needs a prefix of URLs (https://)"
    if scheme in WEB and access.signing is None and "retry_seconds" not in access.model_fields_set:
        yield f"prefixes.{text} has no effect without signing"
