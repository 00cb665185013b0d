"""Requests to addresses that users name: real servers, forged names, redirects, endless answers."""

from __future__ import annotations

import gzip
import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from odc_openeo.errors import UrlForbidden, UrlTooLarge, UrlUnreachable
from odc_openeo.untrusted import safe_http
from odc_openeo.untrusted.rasters import ALONE
from odc_openeo.untrusted.safe_http import Opener, Policy

HERE = Policy(allow=("127.0.0.1",), bytes=2**20, seconds=2)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        getattr(self, "do_" + self.path.strip("/").partition("?")[0].partition("/")[0])()

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_json(self) -> None:
        self.send(200, json.dumps({"host": self.headers["Host"]}).encode())

    def do_text(self) -> None:
        self.send(200, b"<html>")

    def do_away(self) -> None:
        self.send(302, Location=self.path.removeprefix("/away/"))

    def do_round(self) -> None:
        self.send(302, Location="/round")

    def do_missing(self) -> None:
        self.send(404)

    def do_endless(self) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            while True:
                self.wfile.write(bytes(2**16))
        except OSError:
            self.close_connection = True

    def do_dripping(self) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            while True:
                self.wfile.write(b" ")
                time.sleep(0.05)
        except OSError:
            self.close_connection = True

    def do_bomb(self) -> None:
        self.send(200, gzip.compress(bytes(2**24)), Content_Encoding="gzip")

    def do_file(self) -> None:
        content = self.server.content  # type: ignore[attr-defined]
        start, end = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        part = content[start : end + 1]
        self.server.requested.append(len(part))  # type: ignore[attr-defined]
        if len(self.server.requested) in self.server.lost:  # type: ignore[attr-defined]
            self.send_response(206)
            self.send_header("Content-Length", str(len(part)))
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(content)}")
            self.end_headers()
            self.wfile.write(part[: len(part) // 2])
            self.close_connection = True
            return
        self.send(206, part, Content_Range=f"bytes {start}-{start + len(part) - 1}/{len(content)}")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        running.content, running.requested, running.lost = b"", [], ()  # type: ignore[attr-defined]
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def root(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def test_allowed_addresses_are_read(root: str) -> None:
    assert safe_http.fetch_json(HERE, f"{root}/json") == {"host": root.removeprefix("http://")}


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "0.0.0.0", "[::1]", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "127.1"]
    + [
        "10.1.2.3",
        "192.168.1.1",
        "169.254.169.254",
        "[fe80::1]",
        "[64:ff9b::7f00:1]",
        "[fd00::1]",
        "224.0.0.1",
    ],
)
def test_inner_addresses_are_not_read(host: str, server: ThreadingHTTPServer) -> None:
    with pytest.raises(UrlForbidden):
        safe_http.fetch_json(Policy(), f"http://{host}:{server.server_port}/json")


def test_denied_goes_before_allowed(root: str) -> None:
    for denied in ("127.0.0.0/8", "*"):
        with pytest.raises(UrlForbidden):
            safe_http.fetch_json(Policy(allow=("127.0.0.1",), deny=(denied,)), f"{root}/json")


def test_names_and_domains_can_be_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer)
    policy = Policy(allow=("files.intern", ".example.org"))
    assert policy.resolve_host("FILES.intern.", 80) == ["10.0.0.1"]
    assert policy.resolve_host("a.example.org", 80) == ["10.0.0.1"]
    for name in ("example.org.evil", "xfiles.intern", "badexample.org"):
        with pytest.raises(UrlForbidden):
            policy.resolve_host(name, 80)


def test_a_name_cannot_change_its_address_after_the_check(
    server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first answer is public, all later ones are this machine: nothing may ask a second time."""
    answers = iter(["192.0.2.1", *["127.0.0.1"] * 10])
    queries = []

    def resolve(host: str, port: int, *_: object, **__: object) -> list:
        address = host if host[0].isdigit() else next(answers)
        queries.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(safe_http, "CONNECT_SECONDS", 0.3)
    public = Policy(allow=("192.0.2.1",), seconds=2)
    with pytest.raises(UrlUnreachable):
        safe_http.fetch_json(public, f"http://rebind.example:{server.server_port}/json")
    assert [host for host in queries if host == "rebind.example"] == ["rebind.example"]


def test_one_inner_address_among_public_ones_is_enough_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, 80)) for a in ("8.8.8.8", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer)
    with pytest.raises(UrlForbidden):
        Policy().resolve_host("example.org", 80)


def test_redirects_are_checked(root: str) -> None:
    assert safe_http.fetch_json(HERE, f"{root}/away/{root}/json")
    port = root.rpartition(":")[2]
    with pytest.raises(UrlForbidden):
        safe_http.fetch_json(HERE, f"{root}/away/http://127.0.0.2:{port}/json")
    for target in ("file:///etc/passwd", "ftp://127.0.0.1/x", f"{root}/round"):
        with pytest.raises(UrlUnreachable):
            safe_http.fetch_json(HERE, f"{root}/away/{target}")


def test_other_schemes_are_not_read() -> None:
    for url in ("file:///etc/passwd", "gopher://127.0.0.1/", "http://", "http://[", "no address"):
        with pytest.raises(UrlUnreachable) as failure:
            safe_http.fetch_json(HERE, url)
        assert "passwd" not in failure.value.message


def test_size_is_limited(root: str, tmp_path: Path) -> None:
    for path in ("endless", "bomb"):
        with pytest.raises(UrlTooLarge):
            safe_http.download_file(HERE, f"{root}/{path}", tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_time_is_limited(root: str, tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(UrlUnreachable):
        safe_http.download_file(HERE, f"{root}/dripping", tmp_path / "file")
    assert time.monotonic() - start < 60
    assert list(tmp_path.iterdir()) == []


def test_invalid_responses_are_refused(root: str) -> None:
    for path, part in (("missing", "404"), ("text", "JSON")):
        with pytest.raises(UrlUnreachable, match=part):
            safe_http.fetch_json(HERE, f"{root}/{path}")
    with pytest.raises(UrlUnreachable):
        safe_http.fetch_json(HERE, "http://127.0.0.1:9/")


def test_no_proxy_of_the_environment(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert safe_http.fetch_json(HERE, f"{root}/json")


# --- Parts of rasters ----------------------------------------------------------------------------


def test_rasters_are_read_in_parts(server: ThreadingHTTPServer, root: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 1000, (2048, 2048)).astype("uint16")
    profile = {"driver": "GTiff", "dtype": "uint16", "count": 1, "height": 2048, "width": 2048, "tiled": True}
    grid = {"crs": "EPSG:32632", "transform": from_origin(680000, 5152000, 10, 10)}
    with rasterio.open(tmp_path / "a.tif", "w", blockxsize=256, blockysize=256, **profile, **grid) as file:
        file.write(values, 1)
    server.content = (tmp_path / "a.tif").read_bytes()  # type: ignore[attr-defined]
    policy = Policy(allow=("127.0.0.1",))
    url = f"{root}/file/a.tif"
    with rasterio.Env(**ALONE), rasterio.open(url, opener=Opener(policy), driver="GTiff") as file:
        part = file.read(1, window=((512, 768), (256, 512)))
        assert file.crs == grid["crs"]
    np.testing.assert_array_equal(part, values[512:768, 256:512])
    assert sum(server.requested) < 2**20 < len(server.content)  # type: ignore[attr-defined]


def test_files_that_could_refer_to_others_are_no_rasters(server: ThreadingHTTPServer, root: str) -> None:
    server.content = b"<VRTDataset rasterXSize='1' rasterYSize='1'></VRTDataset>"  # type: ignore[attr-defined]
    with pytest.raises(UrlUnreachable, match="neither"):
        Opener(HERE).open(f"{root}/file/a.tif")


@pytest.mark.parametrize("lost", [(1,), (2,), (1, 3)])
def test_a_lost_connection_is_tried_once_more(
    server: ThreadingHTTPServer, root: str, lost: tuple[int, ...]
) -> None:
    content = b"II*\0" + np.random.default_rng(1).bytes(300_000)
    server.content, server.lost = content, lost  # type: ignore[attr-defined]
    with Opener(HERE).open(f"{root}/file/a.tif") as file:
        assert file.read() == content
    before = len(server.requested)  # type: ignore[attr-defined]
    server.lost = range(1000)  # type: ignore[attr-defined]
    with pytest.raises(UrlUnreachable, match="connection failed"):
        Opener(HERE).open(f"{root}/file/a.tif")
    assert len(server.requested) == before + 2  # type: ignore[attr-defined]


def test_reading_and_seeking(server: ThreadingHTTPServer, root: str) -> None:
    content = b"II*\0" + np.random.default_rng(1).bytes(300_000)
    server.content = content  # type: ignore[attr-defined]
    with Opener(HERE).open(f"{root}/file/a.tif") as file:
        assert file.read() == content
        assert file.seek(-10, io.SEEK_END) == len(content) - 10
        assert file.read(100) == content[-10:]
        assert file.seek(65_530) == 65_530
        assert file.read(20) == content[65_530:65_550]
        assert file.read(0) == b""
