"""Scenes in Google Cloud Storage and Azure, as far as a web server on loopback can stand for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from odc_openeo.errors import StorageFailure
from tests.catalog.scenes import Index, bands_of, scene
from tests.conftest import Site
from tests.load.test_buckets import Open, open_catalog, read
from tests.load.test_signed_urls import TokenServer, tokens
from tests.support import bucket_server
from tests.support.bucket_server import Answer, Gate, Request

__all__ = ["open_catalog", "tokens"]

VARIABLES = (
    *("GOOGLE_APPLICATION_CREDENTIALS", "GS_ACCESS_KEY_ID", "GS_SECRET_ACCESS_KEY", "GS_NO_SIGN_REQUEST"),
    *(
        "AZURE_STORAGE_ACCOUNT",
        "AZURE_STORAGE_ACCESS_KEY",
        "AZURE_STORAGE_SAS_TOKEN",
        "AZURE_NO_SIGN_REQUEST",
        "AZURE_STORAGE_CONNECTION_STRING",
        "AZURE_STORAGE_ACCESS_TOKEN",
    ),
)


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials but those that a test sets; not those of a machine in a cloud either."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CPL_GCE_SKIP", "YES")


@pytest.fixture
def gate(site: Site) -> Iterator[Gate]:
    with bucket_server.open_gate(urlsplit(site.root).port or 0) as server:
        yield server


def put(index: Index, site: Site, scheme: str) -> np.ndarray:
    """A scene in the bucket 'data'; its values of B04."""
    document = scene(site.folder / "data" / "a", 1, "2022-06-01T10:00:00Z")
    index.add({**document, "location": f"{scheme}://data/a/scene.odc-metadata.yaml"})
    return bands_of(1)["B04"][1]


def refuse_signatures(request: Request) -> Answer | None:
    return Answer(401) if "authorization" in request.headers else None


def demand(header: str, start: str) -> bucket_server.Rule:
    """Refuses requests without a header that begins so."""
    return lambda request: None if request.headers.get(header, "").startswith(start) else Answer(403)


def test_google_unsigned(
    open_catalog: Open, index: Index, site: Site, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = put(index, site, "gs")
    gate.rules.append(refuse_signatures)
    monkeypatch.setenv("GS_ACCESS_KEY_ID", "GOOGKEY")
    monkeypatch.setenv("GS_SECRET_ACCESS_KEY", "geheim")
    catalog = open_catalog({"gs://data": {"endpoint": gate.url, "unsigned": True}})
    np.testing.assert_array_equal(read(catalog), values)


def test_google_with_keys_and_a_project_that_pays(
    open_catalog: Open, index: Index, site: Site, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = put(index, site, "gs")
    gate.rules += [demand("authorization", "GOOG1 GOOGKEY:"), demand("x-goog-user-project", "payer")]
    access: dict[str, Any] = {"endpoint": gate.url}
    with pytest.raises(StorageFailure, match="no credentials for it.*GOOGLE_APPLICATION_CREDENTIALS"):
        read(open_catalog({"gs://data": access}))
    monkeypatch.setenv("GS_ACCESS_KEY_ID", "GOOGKEY")
    monkeypatch.setenv("GS_SECRET_ACCESS_KEY", "geheim")
    with pytest.raises(StorageFailure, match="access is denied"):
        read(open_catalog({"gs://data": access}))
    paying = {**access, "requester_pays": True, "billing_project": "payer"}
    np.testing.assert_array_equal(read(open_catalog({"gs://data": paying})), values)


def test_azure_unsigned(
    open_catalog: Open, index: Index, site: Site, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = put(index, site, "az")
    gate.rules.append(refuse_signatures)
    gate.rules.append(lambda request: Answer(403) if "sig=" in request.path else None)
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "sig=geheim")
    monkeypatch.setenv("AZURE_STORAGE_ACCESS_KEY", "Z2VoZWlt")
    with pytest.raises(StorageFailure, match="name the storage account in 'account'"):
        read(open_catalog({"az://data": {"endpoint": gate.url, "unsigned": True}}))
    access = {"endpoint": gate.url, "unsigned": True, "account": "example"}
    np.testing.assert_array_equal(read(open_catalog({"az://data": access})), values)


def test_azure_with_a_key(
    open_catalog: Open, index: Index, site: Site, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = put(index, site, "az")
    gate.rules.append(demand("authorization", "SharedKey example:"))
    access = {"endpoint": gate.url, "account": "example"}
    with pytest.raises(StorageFailure, match="no credentials for it.*AZURE_STORAGE_ACCESS_KEY"):
        read(open_catalog({"az://data": access}))
    monkeypatch.setenv("AZURE_STORAGE_ACCESS_KEY", "Z2VoZWlt")
    np.testing.assert_array_equal(read(open_catalog({"az://data": access})), values)


def test_azure_with_tokens_of_a_token_server(
    open_catalog: Open,
    index: Index,
    site: Site,
    gate: Gate,
    tokens: TokenServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = put(index, site, "az")
    # Not these, which are for others.
    monkeypatch.setenv("AZURE_STORAGE_ACCESS_KEY", "Z2VoZWlt")
    string = f"AccountName=other;AccountKey=Z2VoZWlt;BlobEndpoint={site.root}/other"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", string)

    def demand_token(request: Request) -> Answer | None:
        query = parse_qs(urlsplit(request.path).query)
        return None if query.get("sig") == ["geheim+geheim="] else Answer(403)

    gate.rules.append(demand_token)
    signing = {"token_url": f"{tokens.url}/sas/{{account}}/{{container}}"}
    access = {"endpoint": gate.url, "account": "example", "signing": signing}
    np.testing.assert_array_equal(read(open_catalog({"az://data": access})), values)
    assert [request.path for request in tokens.requests] == ["/sas/example/data"]
