"""A bucket of an S3 server on loopback, and configurations that store files in it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from odc_openeo.config import Config
from odc_openeo.storage import _open_bucket
from odc_openeo.storage.bucket_client import open_aws_session
from tests.support import bucket_server
from tests.support.bucket_server import KEY, SECRET, Answer, Gate, Request, Store
from tests.support.waiting import wait_for

CUT_SECONDS = float(os.environ.get("BUCKET_CUT_SECONDS", "2"))


@pytest.fixture(scope="session")
def store() -> Iterator[Store]:
    pytest.importorskip("obstore", reason="needs the extra s3")
    pytest.importorskip("moto.server", reason="needs moto[server], an S3 server for tests")
    with bucket_server.start_store() as server:
        yield server


@pytest.fixture
def gate(store: Store) -> Iterator[Gate]:
    with bucket_server.open_gate(store.port) as server:
        yield server


@pytest.fixture
def environment(gate: Gate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """Standard variables of AWS for the server behind the gate."""
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws" / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws" / "config"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", gate.url)
    forget()
    yield monkeypatch
    forget()


def forget() -> None:
    """Let the next use of a bucket read the environment again."""
    open_aws_session.cache_clear()
    _open_bucket.cache_clear()


InBucket = Callable[[Config], Config]


@pytest.fixture
def in_bucket(environment: pytest.MonkeyPatch) -> InBucket:
    """Change a configuration so that files are stored below a new prefix of the bucket."""
    url = f"s3://data/{uuid4().hex}/über all"
    return lambda config: config.model_copy(update={"storage_url": url})


class Cut:
    """Cuts a gate off at the first upload whose path has a word, for some seconds.

    With ``after`` it waits until an upload whose path has that word is answered.
    """

    def __init__(self, gate: Gate, word: str, after: str | None = None) -> None:
        self.gate, self.word, self.after, self.seconds = gate, word, after, 0.0
        self.lock, self.began = threading.Lock(), False
        gate.rules.append(self._watch)

    def _watch(self, request: Request) -> Answer | None:
        with self.lock:
            if request.method == "PUT" and self.word in request.path and not self.began:
                self.began = True
                if self.after is not None:
                    self._wait_for_answer(self.after)
                threading.Thread(target=self._cut).start()
                time.sleep(0.05)
        return None

    def _wait_for_answer(self, word: str) -> None:
        wait_for(lambda: any(r.method == "PUT" and word in r.path for r in list(self.gate.answered)))
        # The client needs a moment to read it.
        time.sleep(0.3)

    def _cut(self) -> None:
        start = time.monotonic()
        self.gate.cut()
        time.sleep(CUT_SECONDS)
        self.seconds = time.monotonic() - start
        self.gate.restore()
