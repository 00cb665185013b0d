"""Objects in buckets that users may name in their STAC Items: those that the operator has opened to them.

They are read as all files at users' addresses are: through `safe_http`, at the public URL of the object,
without the credentials of the service. Prefixes with ``signing`` get a token of the token server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from odc_openeo.errors import UrlUnreachable
from odc_openeo.load.sas_tokens import TokenUnavailableError, get_token
from odc_openeo.storage.buckets import (
    WEB,
    AddressRefusedError,
    BucketAccess,
    BucketRules,
    Location,
    find_location,
)


def find_open_object(uri: str, rules: BucketRules) -> tuple[Location, BucketAccess] | None:
    """Find the object that a user's URI names, and its rule; None if the operator has not opened it."""
    try:
        location = find_location(uri)
    except AddressRefusedError:
        return None
    access = None if location is None else rules.find_by_prefix(location)
    if location is None or access is None or not access.load_stac:
        return None
    return location, access


def replace_bucket_urls(items: Sequence[Mapping[str, Any]], rules: BucketRules) -> list[Mapping[str, Any]]:
    """STAC Items whose assets in buckets that are open to users are at https URLs."""
    if not any(access.load_stac for access in rules.prefixes.values()):
        return list(items)
    return [_replace_in_item(item, rules) for item in items]


def _replace_in_item(item: Mapping[str, Any], rules: BucketRules) -> Mapping[str, Any]:
    assets = item.get("assets")
    if not isinstance(assets, Mapping):
        return item
    return {**item, "assets": {key: _replace_in_asset(asset, rules) for key, asset in assets.items()}}


def _replace_in_asset(asset: Any, rules: BucketRules) -> Any:
    if not isinstance(asset, Mapping) or not isinstance(asset.get("href"), str):
        return asset
    replaced = {**asset, "href": _replace_uri(asset["href"], rules)}
    alternates = asset.get("alternate")
    if isinstance(alternates, Mapping):
        replaced["alternate"] = {key: _replace_in_asset(other, rules) for key, other in alternates.items()}
    return replaced


def _replace_uri(uri: str, rules: BucketRules) -> str:
    match = find_open_object(uri, rules)
    if match is None or match[0].scheme in WEB or uri.startswith("/"):
        return uri
    return make_public_url(*match) or uri


def make_public_url(location: Location, access: BucketAccess) -> str | None:
    """The URL at which everybody can read an object of a public bucket; None if the rule does not say."""
    bucket, key = location.bucket, quote(location.key, safe="/~")
    if location.scheme == "az":
        server = access.endpoint or (access.account and f"https://{access.account}.blob.core.windows.net")
        return f"{server}/{bucket}/{key}" if server else None
    if access.endpoint or location.scheme == "gs":
        return f"{access.endpoint or 'https://storage.googleapis.com'}/{bucket}/{key}"
    host = f"s3.{access.region}.amazonaws.com" if access.region else "s3.amazonaws.com"
    # The certificate of the store does not hold for names with dots.
    return f"https://{host}/{bucket}/{key}" if "." in bucket else f"https://{bucket}.{host}/{key}"


def make_signer(rules: BucketRules) -> UrlSigner | None:
    """Make the signer of users' URLs; None if the operator has opened nothing that is signed."""
    opened = {p: a for p, a in rules.prefixes.items() if a.load_stac and a.signing is not None}
    # Rules for other prefixes are kept: one of them may close a folder of an open one.
    return UrlSigner(BucketRules(prefixes=rules.prefixes)) if opened else None


@dataclass(frozen=True)
class UrlSigner:
    """Signs the URLs of prefixes that the operator has opened to users; can be pickled."""

    rules: BucketRules

    def __call__(self, url: str) -> str:
        """The URL to request; the same one if there is no rule for it.

        Raises:
            UrlUnreachable: there is no token.
        """
        match = find_open_object(url, self.rules)
        if match is None or match[1].signing is None or match[0].scheme not in WEB:
            return url
        try:
            token = get_token(match[1].signing, match[0])
        except TokenUnavailableError as error:
            raise UrlUnreachable(host=match[0].bucket, reason=f"{error}.") from None
        address = url.partition("#")[0]
        return f"{address}{'&' if '?' in address else '?'}{token}"
