"""Scenes at URLs that must be signed with tokens of a token server, and token servers that fail."""

from __future__ import annotations

import json
import logging
import pickle
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from odc_openeo.errors import StorageFailure
from odc_openeo.load import sas_tokens
from tests.catalog.scenes import Index, bands_of, scene
from tests.conftest import Site
from tests.load.test_buckets import Open, open_catalog, read
from tests.load.test_load_collection import load
from tests.support import bucket_server
from tests.support.bucket_server import Answer, Gate, Request

__all__ = ["open_catalog"]

SIGNATURE = "geheim%2Bgeheim%3D"


class TokenServer(Gate):
    """Gives out tokens; ``answers`` go before them."""

    def __init__(self) -> None:
        super().__init__(0)
        self.lifetime = timedelta(hours=1)
        self.token = f"se=2099&sp=r&sig={SIGNATURE}"
        self.answers: list[Answer] = []
        self.rules.append(self._answer)

    def _answer(self, request: Request) -> Answer:
        if self.answers:
            return self.answers.pop(0)
        document = {"msft:expiry": (datetime.now(UTC) + self.lifetime).isoformat(), "token": self.token}
        return Answer(200, json.dumps(document).encode(), {"Content-Type": "application/json"})


@pytest.fixture
def tokens() -> Iterator[TokenServer]:
    sas_tokens.forget_tokens()
    server = TokenServer()
    yield server
    server.cut()


@pytest.fixture
def files(site: Site, tokens: TokenServer) -> Iterator[Gate]:
    """A server of files that refuses requests without the signature."""

    def demand_token(request: Request) -> Answer | None:
        query = parse_qs(urlsplit(request.path).query)
        return None if query.get("sig") == ["geheim+geheim="] and tokens.token else Answer(403)

    with bucket_server.open_gate(urlsplit(site.root).port) as gate:
        gate.rules.append(demand_token)
        yield gate


@pytest.fixture
def remote(index: Index, site: Site, files: Gate) -> np.ndarray:
    document = scene(site.folder / "scenes" / "a", 1, "2022-06-01T10:00:00Z")
    index.add({**document, "location": f"{files.url}/scenes/a/scene.odc-metadata.yaml"})
    return bands_of(1)["B04"][1]


def sign(files: Gate, tokens: TokenServer, **more: Any) -> dict[str, Any]:
    url = f"{tokens.url}/sas/{{account}}/{{container}}"
    access = {"signing": {"token_url": url, **more}, "retry_seconds": 0.5}
    return {f"{files.url}/scenes": access}


def test_values_at_signed_urls(
    open_catalog: Open, remote: np.ndarray, files: Gate, tokens: TokenServer
) -> None:
    with pytest.raises(StorageFailure, match=r"scenes/a/B04.tif: access is denied \(403\).*signing"):
        read(open_catalog())
    assert not tokens.requests
    catalog = open_catalog(sign(files, tokens))
    for _ in range(3):
        np.testing.assert_array_equal(read(catalog), remote)
    # The account is the first label of the host, as of acc.blob.core.windows.net.
    assert [request.path for request in tokens.requests] == ["/sas/127/scenes"]


def test_tokens_are_nowhere_else(
    open_catalog: Open, remote: np.ndarray, files: Gate, tokens: TokenServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    catalog = open_catalog(sign(files, tokens))
    data = load(catalog, box=None, bands=["B04"])
    data.compute(scheduler="threads")
    files.rules.insert(0, lambda request: Answer(404))
    # GDAL has what was read with the first one.
    tokens.token += "&n=2"
    sas_tokens.forget_tokens()
    with pytest.raises(StorageFailure) as caught:
        read(catalog)
    assert "does not exist" in caught.value.message
    everything = (
        caplog.text,
        caught.value.message,
        repr(caught.value.__context__),
        repr(dict(data.__dask_graph__())),
        repr(pickle.dumps(dict(data.__dask_graph__()))),
        repr(list(data.__dask_keys__())),
    )
    assert any("geheim" in request.path for request in files.requests)
    for text in everything:
        assert "geheim" not in text


def test_tokens_are_renewed(
    open_catalog: Open, remote: np.ndarray, files: Gate, tokens: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens.lifetime = timedelta(seconds=1)
    catalog = open_catalog(sign(files, tokens))
    read(catalog)
    now = time.time()
    monkeypatch.setattr(sas_tokens.time, "time", lambda: now + 5)
    read(catalog)
    assert len(tokens.requests) == 2


def test_withdrawn_tokens_are_replaced(
    open_catalog: Open, remote: np.ndarray, files: Gate, tokens: TokenServer
) -> None:
    right, tokens.token = tokens.token, "sig=withdrawn"
    catalog = open_catalog(sign(files, tokens))
    with pytest.raises(StorageFailure, match="denied"):
        read(catalog)
    tokens.token = right
    np.testing.assert_array_equal(read(catalog), remote)


def test_subscription_keys(
    open_catalog: Open, remote: np.ndarray, files: Gate, tokens: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = open_catalog(sign(files, tokens, key_variable="PC_KEY"))
    with pytest.raises(StorageFailure, match="variable PC_KEY with the subscription key is not set"):
        read(catalog)
    monkeypatch.setenv("PC_KEY", "abonnement")
    sas_tokens.forget_tokens()
    np.testing.assert_array_equal(read(catalog), remote)
    assert tokens.requests[-1].headers["ocp-apim-subscription-key"] == "abonnement"
    assert not any("abonnement" in str(request.headers) for request in files.requests)


HUGE = Answer(200, b'{"token": "sig=' + b"x" * 2**20 + b'"}')


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(404), "cannot be reached, or does not answer with a token"),
        (Answer(200, b"<html>"), "cannot be reached, or does not answer with a token"),
        (Answer(200, b"[]"), "has no token"),
        (Answer(200, b'{"token": ""}'), "has no token"),
        (Answer(200, b'{"token": "a b"}'), "has no token"),
        (Answer(200, b'{"token": "sig=x/../../y"}'), "has no token"),
        (HUGE, "too large"),
        (Answer(200, b'{"token": "sig=' + b"x" * 5000 + b'"}'), "has no token"),
    ],
)
def test_answers_without_a_token(
    open_catalog: Open, remote: np.ndarray, files: Gate, tokens: TokenServer, answer: Answer, reason: str
) -> None:
    tokens.answers = [answer] * 10
    with pytest.raises(StorageFailure, match=reason):
        read(open_catalog(sign(files, tokens)))
    assert not files.requests


def test_redirects_of_the_token_server_are_not_followed(
    open_catalog: Open, remote: np.ndarray, files: Gate, tokens: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PC_KEY", "abonnement")
    tokens.answers = [Answer(302, headers={"Location": f"{files.url}/elsewhere"})] * 10
    with pytest.raises(StorageFailure, match="token server cannot be reached"):
        read(open_catalog(sign(files, tokens, key_variable="PC_KEY")))
    assert not files.requests


def test_a_token_server_that_hangs(
    open_catalog: Open, remote: np.ndarray, files: Gate, tokens: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_up = threading.Event()

    def hang(request: Request) -> None:
        given_up.wait(120)

    tokens.rules.insert(0, hang)
    monkeypatch.setattr(sas_tokens, "SERVER", sas_tokens.Policy(allow=("*",), bytes=2**16, seconds=0.3))
    start = time.monotonic()
    with pytest.raises(StorageFailure, match="token server cannot be reached"):
        read(open_catalog(sign(files, tokens)))
    given_up.set()
    assert time.monotonic() - start < 60
