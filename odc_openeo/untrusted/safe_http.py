"""SSRF protection: the only HTTP client for user-supplied URLs, limiting targets, size and time.

The client connects to the very address it has checked, and checks again at each redirect, so that neither DNS
rebinding nor redirects lead into the operator's network. Proxies from the environment are not used, as the
check would be left to them. ``docs/adr/0005-outgoing-requests.md`` gives the reasons.
"""

from __future__ import annotations

import contextlib
import io
import ipaddress
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import urlsplit

import requests
import urllib3
from rasterio._vsiopener import _opener_registration as register_opener
from rasterio.abc import FileContainer
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.connection import create_connection

from odc_openeo.config import Config
from odc_openeo.errors import StorageFailure, UrlForbidden, UrlTooLarge, UrlUnreachable

CONNECT_SECONDS: Final = 10.0
READ_SECONDS: Final = 30.0
MOST_REDIRECTS: Final = 5
MOST_DOCUMENT_BYTES: Final = 16 * 2**20
BLOCK: Final = 2**18
HEAD_BYTES: Final = 2**16
RASTER_SIGNATURES: Final = (
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
    b"\0\0\0\x0cjP  ",
    b"\xff\x4f\xff\x51",
)
"""First bytes of TIFF, BigTIFF, JPEG 2000 and its bare codestream."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True)
class Policy:
    """Permitted targets; ``allow`` and ``deny`` are hosts, domains with a leading dot, and networks."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    bytes: int = 2**31
    seconds: float = 300.0

    @classmethod
    def from_config(cls, config: Config) -> Policy:
        """The operator's policy."""
        lists = (_split_list(config.outgoing_allow), _split_list(config.outgoing_deny))
        return cls(*lists, config.outgoing_max_bytes, config.outgoing_timeout_s)

    def resolve_host(self, host: str, port: int) -> list[str]:
        """Resolve a host and check its addresses.

        Raises:
            UrlForbidden: the policy does not permit one of them.
            UrlUnreachable: the host has no address.
        """
        name = host.strip("[]").rstrip(".").lower()
        try:
            entries = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise UrlUnreachable(host=name, reason="the host does not exist.") from error
        addresses = list(dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in entries))
        for address in addresses:
            if not self._permits_address(name, ipaddress.ip_address(address)):
                raise UrlForbidden(host=name)
        return addresses

    def _permits_address(self, name: str, address: Address) -> bool:
        real = _embedded_ipv4(address)
        if any(_matches_entry(entry, name, real) for entry in self.deny):
            return False
        public = real.is_global and not real.is_multicast
        return public or any(_matches_entry(entry, name, real) for entry in self.allow)


def _split_list(text: str) -> tuple[str, ...]:
    return tuple(part.strip().lower() for part in text.split(",") if part.strip())


def _embedded_ipv4(address: Address) -> Address:
    """Return the IPv4 address embedded in an IPv6 address, else the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1] or address


def _matches_entry(entry: str, name: str, address: Address) -> bool:
    if entry == "*":
        return True
    with contextlib.suppress(ValueError):
        return address in ipaddress.ip_network(entry, strict=False)
    return name.endswith(entry) if entry.startswith(".") else name == entry


# --- Connections ---------------------------------------------------------------------------------


@dataclass
class _Connections:
    """The connections of one session, all of which end at the deadline."""

    policy: Policy
    deadline: float
    sockets: list[socket.socket] = field(default_factory=list)

    def close_all(self) -> None:
        """Shut down all connections, even while they are being read."""
        for connection in self.sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _CheckedConnection(HTTPConnection):
    """A connection to an address that the policy permits."""

    connections: _Connections

    def _new_conn(self) -> socket.socket:
        host, port = self._dns_host, self.port or self.default_port or 80
        failure: OSError | None = None
        for address in self.connections.policy.resolve_host(host, port):
            try:
                return create_connection((address, port), CONNECT_SECONDS, socket_options=self.socket_options)
            except OSError as error:
                failure = error
        raise UrlUnreachable(host=host, reason="the host does not respond.") from failure

    def connect(self) -> None:
        """As in the base class; the connection ends at the deadline."""
        super().connect()
        if self.sock is not None:
            self.connections.sockets.append(self.sock)


class _CheckedTLSConnection(_CheckedConnection, HTTPSConnection):
    """A checked connection with TLS, verified for the host's name."""


class _Adapter(HTTPAdapter):
    def __init__(self, connections: _Connections) -> None:
        self._connections = connections
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)

        def make_pool(base: type, connection: type) -> type:
            checked = type(connection.__name__, (connection,), {"connections": self._connections})
            return type(base.__name__, (base,), {"ConnectionCls": checked})

        self.poolmanager.pool_classes_by_scheme = {
            "http": make_pool(urllib3.HTTPConnectionPool, _CheckedConnection),
            "https": make_pool(urllib3.HTTPSConnectionPool, _CheckedTLSConnection),
        }


@contextlib.contextmanager
def _open_session(policy: Policy, most_redirects: int = MOST_REDIRECTS) -> Iterator[requests.Session]:
    connections = _Connections(policy, time.monotonic() + policy.seconds)
    session = requests.Session()
    session.trust_env = False
    session.max_redirects = most_redirects
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(connections))
    timer = threading.Timer(policy.seconds, connections.close_all)
    timer.daemon = True
    timer.start()
    try:
        with session:
            yield session
    finally:
        timer.cancel()


@contextlib.contextmanager
def _translate_failures(url: str) -> Iterator[None]:
    host = _parse_host(url)
    try:
        yield
    except requests.TooManyRedirects as error:
        raise UrlUnreachable(host=host, reason="there are too many redirects.") from error
    except (requests.exceptions.InvalidSchema, requests.exceptions.InvalidURL, ValueError) as error:
        raise UrlUnreachable(host=host, reason="only http and https URLs are supported.") from error
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise UrlUnreachable(host=host, reason="the connection failed or took too long.") from error


@contextlib.contextmanager
def _open_response(
    policy: Policy, url: str, headers: Mapping[str, str], body: Any, most_redirects: int = MOST_REDIRECTS
) -> Iterator[Iterator[bytes]]:
    deadline = time.monotonic() + policy.seconds
    with (
        _translate_failures(url),
        _open_session(policy, most_redirects) as session,
        _send_request(session, url, headers, body) as response,
    ):
        yield _iterate_blocks(response, url, deadline)


def _send_request(
    session: requests.Session, url: str, headers: Mapping[str, str], body: Any = None
) -> requests.Response:
    response = session.request(
        "GET" if body is None else "POST",
        url,
        headers=dict(headers),
        json=body,
        stream=True,
        timeout=(CONNECT_SECONDS, READ_SECONDS),
    )
    if response.status_code >= 400:
        response.close()
        reason = f"the server responded with status {response.status_code}."
        error = UrlUnreachable(host=_parse_host(url), reason=reason)
        error.server_status = response.status_code
        raise error
    return response


def _parse_host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _iterate_blocks(response: requests.Response, url: str, deadline: float) -> Iterator[bytes]:
    yield from response.iter_content(BLOCK)
    # Without Content-Length, a connection closed early looks like a complete response.
    if time.monotonic() >= deadline:
        raise UrlUnreachable(host=_parse_host(url), reason="the download took too long.")


def _limit_size(blocks: Iterator[bytes], most: int) -> Iterator[bytes]:
    size = 0
    for block in blocks:
        size += len(block)
        if size > most:
            raise UrlTooLarge(most=most)
        yield block


# --- Documents and files -------------------------------------------------------------------------


def fetch_json(
    policy: Policy,
    url: str,
    body: Any = None,
    *,
    headers: Mapping[str, str] | None = None,
    most_redirects: int = MOST_REDIRECTS,
) -> Any:
    """Fetch the JSON document at a URL, by POST if a ``body`` is given; redirects get the ``headers``, too.

    Raises:
        UrlForbidden, UrlUnreachable, UrlTooLarge: it cannot be fetched, or is not valid JSON.
    """
    most = min(policy.bytes, MOST_DOCUMENT_BYTES)
    accept = {"Accept": "application/json, application/geo+json;q=0.9", **(headers or {})}
    with _open_response(policy, url, accept, body, most_redirects) as blocks:
        content = b"".join(_limit_size(blocks, most))
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UrlUnreachable(host=_parse_host(url), reason="the response is not valid JSON.") from error


def download_file(policy: Policy, url: str, place: Path) -> None:
    """Download a URL to a file; raises the errors of `fetch_json`. Nothing is left after a failure."""
    with place.open("xb") as file:
        try:
            # Failures to write the file must not be mistaken for failures of the connection.
            with _open_response(policy, url, {}, None) as blocks:
                for block in _limit_size(blocks, policy.bytes):
                    _write_block(file, block)
                _write_block(file, b"")
        except BaseException:
            # The file was created above.
            place.unlink(missing_ok=True)
            raise


def _write_block(file: IO[bytes], block: bytes) -> None:
    """Write a block; flush the file if the block is empty."""
    try:
        file.write(block) if block else file.flush()
    except OSError as error:
        raise StorageFailure.from_os_error(error) from error


# --- Rasters read in ranges ----------------------------------------------------------------------


class RemoteFile(io.RawIOBase):
    """A raster file on a foreign server, read with range requests.

    It must begin like a TIFF or JPEG 2000 file: other formats of GDAL can refer to local files.
    GDAL sees the beginning that was checked, even if the server changes it later.

    Raises:
        UrlForbidden, UrlUnreachable: it cannot be read, is not such a file, or range requests fail.
    """

    def __init__(self, policy: Policy, url: str) -> None:
        super().__init__()
        self._url, self._place = url, 0
        self._resources = contextlib.ExitStack()
        with _translate_failures(url):
            self._session = self._resources.enter_context(_open_session(policy))
            self._head, self._size = self._read_range(0, HEAD_BYTES)
        if not self._head.startswith(RASTER_SIGNATURES):
            self.close()
            raise UrlUnreachable(
                host=_parse_host(url), reason="the file is neither a TIFF nor a JPEG 2000 file."
            )

    def _read_range(self, start: int, length: int) -> tuple[bytes, int]:
        """Read bytes from an offset, once more if the connection is lost; return them and the file's size."""
        try:
            return self._request_range(start, length)
        except requests.exceptions.ChunkedEncodingError:
            return self._request_range(start, length)

    def _request_range(self, start: int, length: int) -> tuple[bytes, int]:
        last = start + length - 1
        headers = {"Range": f"bytes={start}-{last}", "Accept-Encoding": "identity"}
        with _send_request(self._session, self._url, headers) as response:
            content_range = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
            if response.status_code != 206 or content_range is None or int(content_range[1]) != start:
                raise UrlUnreachable(
                    host=_parse_host(self._url), reason="the server does not support range requests."
                )
            content = b"".join(_limit_size(response.iter_content(BLOCK), length))
        if len(content) < min(length, int(content_range[2]) - start):
            raise UrlUnreachable(host=_parse_host(self._url), reason="the connection was lost.")
        return content, int(content_range[2])

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The position of the next byte."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(base + offset, 0)
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes into a buffer."""
        length = min(len(buffer), self._size - self._place)
        if length <= 0:
            return 0
        content = self._head[self._place : self._place + length]
        if len(content) < length:
            with _translate_failures(self._url):
                content += self._read_range(self._place + len(content), length - len(content))[0]
        buffer[: len(content)] = content
        self._place += len(content)
        return len(content)

    def close(self) -> None:
        """End the connection."""
        self._resources.close()
        super().close()


def open_remote_file(policy: Policy, url: str, sign: Callable[[str], str] | None) -> RemoteFile:
    """Open the file at a URL, or at what ``sign`` makes of it; raises the errors of `RemoteFile`."""
    return RemoteFile(policy, url if sign is None else sign(url))


@dataclass(frozen=True)
class Opener(FileContainer):
    """Opens rasters at user-supplied URLs, for ``rasterio.open(url, opener=...)``; can be pickled."""

    policy: Policy
    sign: Callable[[str], str] | None = None

    def open(self, path: str, mode: str = "r", **_: Any) -> io.BufferedReader:
        """Open the file at a URL, read-only."""
        if "w" in mode or "a" in mode or "+" in mode:
            raise PermissionError(path)
        return io.BufferedReader(open_remote_file(self.policy, path, self.sign), BLOCK)

    def size(self, path: str) -> int:
        """The size of the file in bytes."""
        with open_remote_file(self.policy, path, self.sign) as file:
            return file.seek(0, io.SEEK_END)

    def isfile(self, path: str) -> bool:
        """Always: a missing file raises when it is opened."""
        return True

    def isdir(self, path: str) -> bool:
        """Never."""
        return False

    def ls(self, path: str) -> list[str]:
        """Nothing: sidecar files are ignored."""
        return []

    def mtime(self, path: str) -> int:
        """Unknown."""
        return 0

    def rm(self, path: str) -> None:
        """Refused."""
        raise PermissionError(path)


@dataclass(frozen=True)
class RemoteFiles:
    """URLs permitted by a policy, as a place of foreign rasters; can be pickled.

    ``sign`` makes the URL to request of one of these, such as one with a token.
    """

    policy: Policy
    sign: Callable[[str], str] | None = None

    @contextlib.contextmanager
    def expose(self, href: str) -> Iterator[str]:
        """A name by which GDAL reads from a URL through `RemoteFile`."""
        with register_opener(href, Opener(self.policy, self.sign)) as name:
            yield name

    def explain_failure(self, href: str) -> None:
        """Raise the error of the connection, if there is one."""
        open_remote_file(self.policy, href, self.sign).close()

    def read_file(self, href: str, most: int) -> bytes | None:
        """Read the file at a URL, None if there is none; raises the errors of `fetch_json`."""
        url = href if self.sign is None else self.sign(href)
        try:
            with _open_response(self.policy, url, {"Accept-Encoding": "identity"}, None) as blocks:
                return b"".join(_limit_size(blocks, min(most, self.policy.bytes)))
        except UrlUnreachable as error:
            if error.server_status in (404, 410):
                return None
            raise
