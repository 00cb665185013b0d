"""User code reaches the hosts that the operator names, and nothing else: no other host, port or protocol."""

from __future__ import annotations

import os
import ssl
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from odc_openeo.config import Config
from odc_openeo.errors import UdfUnavailable
from odc_openeo.udf.calls import UdfCode, UdfSettings, call_udf, read_udf_settings
from odc_openeo.udf.pool import pool
from odc_openeo.udf.relays import MOST_CONNECTIONS, check_host
from odc_openeo.udf.settings import RelayRules
from odc_openeo.untrusted.safe_http import Policy
from tests.conftest import Site
from tests.support.sandbox import needs_sandbox
from tests.support.waiting import wait_for

SIZE = 2**20
CODE = """
import asyncio, os, socket, sys

def get(url, **options):
    import requests
    return len(requests.get(url, timeout=20, **options).content)

def open_url(url):
    import urllib.request
    return len(urllib.request.urlopen(url, timeout=20).read())

def run_asyncio(host, port):
    async def read():
        reader, writer = await asyncio.open_connection(host, port)
        writer.writelines([b"GET /numbers HTTP/1.0\\r\\n", b"\\r\\n"])
        return len((await reader.read()).partition(b"\\r\\n\\r\\n")[2])
    return asyncio.run(read())

def get_aiohttp(url):
    import aiohttp
    async def read():
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return len(await response.read())
    return asyncio.run(read())

def connect(*address):
    socket.create_connection(address, 10).close()
    return "connected"

def make(*arguments):
    return socket.socket(*arguments).fileno()

def make_real(*arguments):
    import _socket
    return _socket.socket(*arguments).fileno()

def connect_real(host, port):
    import _socket, ctypes, struct
    stream, _ = _socket.socketpair(1, 1)
    address = struct.pack("=HH4s8x", 2, socket.htons(port), socket.inet_aton(host))
    if ctypes.CDLL(None, use_errno=True).connect(stream.fileno(), address, len(address)):
        raise OSError(ctypes.get_errno(), "denied")
    return "connected"

def flood(host, port, count):
    connections = [socket.create_connection((host, port), 10) for _ in range(count)]
    return len(connections)

def tell_relay(content):
    broker = sys.modules["odc_openeo_udf.relayed_sockets"]._broker
    broker._connection.sendall(content)
    return broker._connection.recv(1000)[4:]

def call(header, arrays):
    outcomes = {}
    for name, (function, *arguments) in header["attempts"].items():
        options = arguments.pop() if arguments and isinstance(arguments[-1], dict) else {}
        arguments = [a.encode("latin-1") if function == "tell_relay" else a for a in arguments]
        try:
            result = globals()[function](*arguments, **options)
            outcomes[name] = result.decode("latin-1") if isinstance(result, bytes) else result
        except Exception as error:
            outcomes[name] = f"{type(error).__name__}: {error}"
    return {"outcomes": outcomes}, []
"""

pytestmark = needs_sandbox


def attempt(settings: UdfSettings, **attempts: tuple[Any, ...]) -> dict[str, Any]:
    """Let user code call its functions; return what they return, or their errors as strings."""
    reply = call_udf(settings, "user", UdfCode(CODE, style="plain"), {"attempts": attempts}, [])
    outcomes: dict[str, Any] = reply.header["outcomes"]
    return outcomes


def open_network(hosts: str, allow: str = "") -> UdfSettings:
    return read_udf_settings(Config(data_dir=Path("/nonexistent"), udf_hosts=hosts, outgoing_allow=allow))


@pytest.fixture
def port(site: Site) -> int:
    (site.folder / "numbers").write_bytes(bytes(range(256)) * (SIZE // 256))
    return int(site.root.rpartition(":")[2])


def test_hosts_that_are_named(port: int) -> None:
    settings = open_network(f"other.example.org,localhost:{port}", allow="localhost")
    url = f"http://localhost:{port}/numbers"
    outcomes = attempt(
        settings,
        requests=("get", url),
        again=("get", url),
        urllib=("open_url", url.replace("localhost", "LocalHost")),
        asyncio=("run_asyncio", "localhost", port),
        aiohttp=("get_aiohttp", url),
    )
    assert outcomes == dict.fromkeys(("requests", "again", "urllib", "asyncio", "aiohttp"), SIZE)


def test_encrypted_connections(port: int, site: Site, tmp_path: Path) -> None:
    certificate = write_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    handler = type("Handler", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: handler(*a, directory=str(site.folder))) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        secure = server.server_port
        url = f"https://localhost:{secure}/numbers"
        settings = open_network(f"localhost:{secure}", allow="localhost")
        outcomes = attempt(settings, unchecked=("get", url, {"verify": False}), checked=("get", url))
        server.shutdown()
    assert outcomes["unchecked"] == SIZE
    assert "CERTIFICATE_VERIFY_FAILED" in outcomes["checked"]


def write_certificate(folder: Path) -> Path:
    """Write a certificate that nobody has signed, with its key."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    path = folder / "server.pem"
    path.write_bytes(private + certificate.public_bytes(pem))
    return path


def test_nothing_else(port: int) -> None:
    settings = open_network(f"localhost:{port},metadata.example.org,169.254.169.254,0.0.0.0", "localhost")
    outcomes = attempt(
        settings,
        other_port=("connect", "localhost", port + 1),
        other_name=("connect", "127.0.0.1", port),
        metadata=("connect", "169.254.169.254", 80),
        any_address=("connect", "0.0.0.0", 80),
        placeholder=("connect", "240.0.0.77", 80),
        public=("connect", "192.0.2.1", 443),
        six=("connect", "::1", port),
        mapped=("connect", "::ffff:127.0.0.1", port),
        udp=("make", 2, 2),
        raw=("make", 2, 3),
        unix=("make", 1, 1),
        netlink=("make", 16, 3),
        packet=("make", 17, 3),
        real=("make_real", 2, 1),
        real_udp=("make_real", 2, 2),
        real_connect=("connect_real", "127.0.0.1", port),
    )
    assert {name for name, outcome in outcomes.items() if "Error: " not in str(outcome)} == set()
    assert f"not opened the network to 127.0.0.1:{port}" in outcomes["other_name"]
    assert "may not read from 169.254.169.254" in outcomes["metadata"]


def test_named_hosts_with_private_addresses(port: int) -> None:
    outcomes = attempt(open_network(f"localhost:{port}"), named=("connect", "localhost", port))
    assert "may not read from localhost" in outcomes["named"]


def test_closed_by_default(port: int) -> None:
    outcomes = attempt(UdfSettings(), host=("connect", "127.0.0.1", port), url=("get", "http://localhost/"))
    assert all("Error: " in outcome for outcome in outcomes.values())


def test_hostile_messages_to_the_relay(port: int) -> None:
    settings = open_network(f"localhost:{port}", allow="localhost")
    refused = [
        b"[]",
        b'{"host": 1, "port": true}',
        b'{"host": "x", "port": -1}',
        b'{"host": "\\u00e9", "port": 80}',
    ]
    outcomes = attempt(settings, **{f"{i}": ("tell_relay", frame(text)) for i, text in enumerate(refused)})
    assert ["error" in outcome for outcome in outcomes.values()] == [True] * len(refused)
    for content in (frame(b"\xff" * 10), frame(b"[" * 4000), "\xff" * 4):
        outcomes = attempt(settings, hostile=("tell_relay", content), then=("connect", "localhost", port))
        assert outcomes["hostile"] == ""
        assert outcomes["then"].startswith(("ConnectionRefusedError", "BrokenPipeError"))
        pool.stop()
    assert attempt(settings, fine=("connect", "localhost", port)) == {"fine": "connected"}


def frame(content: bytes) -> str:
    return (len(content).to_bytes(4, "big") + content).decode("latin-1")


def test_connections_are_limited_and_nothing_is_left(port: int) -> None:
    settings = open_network(f"localhost:{port}", allow="localhost")
    pool.stop()
    before = count_resources()
    outcomes = attempt(
        settings,
        few=("flood", "localhost", port, 10),
        many=("flood", "localhost", port, 10 * MOST_CONNECTIONS),
    )
    assert outcomes["few"] == 10
    assert "too many connections" in outcomes["many"]
    pool.stop()
    # What an earlier test left may end meanwhile, so there may be less than before.
    wait_for(lambda: all(now <= then for now, then in zip(count_resources(), before, strict=True)))


def count_resources() -> tuple[int, int]:
    """Count the threads of relays, and the sockets of this process that are no listeners of the test."""
    relays = [thread for thread in threading.enumerate() if thread.name == "udf-relay"]
    unix = {f"socket:[{line.split()[6]}]" for line in Path("/proc/net/unix").read_text().splitlines()[1:]}
    return len(relays), len([target for target in list_descriptors() if target in unix])


def list_descriptors() -> list[str]:
    """List what the descriptors of this process lead to, of which other threads close some meanwhile."""
    targets = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            targets.append(os.readlink(f"/proc/self/fd/{name}"))
    return targets


@pytest.mark.parametrize(
    ("entry", "host", "port", "is_open"),
    [
        ("example.org", "example.org", 443, True),
        ("example.org", "example.org", 8080, False),
        ("example.org", "www.example.org", 443, False),
        ("example.org", "notexample.org", 443, False),
        (".example.org", "www.example.org", 80, True),
        (".example.org", "example.org", 80, False),
        (".example.org", "example.org.evil.net", 80, False),
        ("example.org:8443", "example.org", 8443, True),
        ("example.org:8443", "example.org", 443, False),
    ],
)
def test_names_of_hosts(entry: str, host: str, port: int, is_open: bool) -> None:
    rules = RelayRules((entry,), Policy())
    if is_open:
        check_host(rules, host, port)
    else:
        with pytest.raises(UdfUnavailable, match=f"{host}:{port}"):
            check_host(rules, host, port)


@pytest.mark.parametrize("value", ["*", "https://example.org", "10.0.0.0/8", "a b", "host:0", "[::1]:80"])
def test_settings_that_name_no_host(value: str) -> None:
    with pytest.raises(ValidationError, match="is not a host"):
        Config(udf_hosts=value)
