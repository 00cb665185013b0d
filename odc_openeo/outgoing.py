"""The one door for requests to addresses that users name: where they may lead, how much, how long.

The address that is checked is the one that is connected to, at each redirect anew, so that neither names that
change their address nor redirects lead into the operator's network. Proxies of the environment are not used,
as the check would be theirs. ``docs/adr/0005-outgoing-requests.md`` tells why.
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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import urlsplit

import requests
import urllib3
from rasterio._vsiopener import _opener_registration
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
    """Where requests may lead; ``allow`` and ``deny`` are hosts, domains with a leading dot, and networks."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    bytes: int = 2**31
    seconds: float = 300.0

    @classmethod
    def of(cls, config: Config) -> Policy:
        """The operator's policy."""
        lists = (_listed(config.outgoing_allow), _listed(config.outgoing_deny))
        return cls(*lists, config.outgoing_max_bytes, config.outgoing_timeout_s)

    def addresses(self, host: str, port: int) -> list[str]:
        """The addresses of a host.

        Raises:
            UrlForbidden: one of them may not be asked.
            UrlUnreachable: the host has none.
        """
        name = host.strip("[]").rstrip(".").lower()
        try:
            found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise UrlUnreachable(host=name, reason="there is no such host.") from error
        addresses = list(dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found))
        for address in addresses:
            if not self._permits(name, ipaddress.ip_address(address)):
                raise UrlForbidden(host=name)
        return addresses

    def _permits(self, name: str, address: Address) -> bool:
        real = _carried(address)
        if any(_matches(entry, name, real) for entry in self.deny):
            return False
        public = real.is_global and not real.is_multicast
        return public or any(_matches(entry, name, real) for entry in self.allow)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip().lower() for part in text.split(",") if part.strip())


def _carried(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, if it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1] or address


def _matches(entry: str, name: str, address: Address) -> bool:
    if entry == "*":
        return True
    with contextlib.suppress(ValueError):
        return address in ipaddress.ip_network(entry, strict=False)
    return name.endswith(entry) if entry.startswith(".") else name == entry


# --- Connections ---------------------------------------------------------------------------------


@dataclass
class _Visit:
    """Connections for one purpose, which all end at the deadline."""

    policy: Policy
    deadline: float
    sockets: list[socket.socket] = field(default_factory=list)

    def hang_up(self) -> None:
        """End all connections, whatever waits for them."""
        for connected in self.sockets:
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)


class _Checked(HTTPConnection):
    """A connection to an address that the policy permits."""

    visit: _Visit

    def _new_conn(self) -> socket.socket:
        host, port = self._dns_host, self.port or self.default_port or 80
        failure: OSError | None = None
        for address in self.visit.policy.addresses(host, port):
            try:
                return create_connection((address, port), CONNECT_SECONDS, socket_options=self.socket_options)
            except OSError as error:
                failure = error
        raise UrlUnreachable(host=host, reason="it does not answer.") from failure

    def connect(self) -> None:
        """As in the base class; the connection ends at the deadline."""
        super().connect()
        if self.sock is not None:
            self.visit.sockets.append(self.sock)


class _CheckedTLS(_Checked, HTTPSConnection):
    """The same with TLS, for the host's own name."""


class _Adapter(HTTPAdapter):
    def __init__(self, visit: _Visit) -> None:
        self._visit = visit
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)

        def pool(base: type, connection: type) -> type:
            made = type(connection.__name__, (connection,), {"visit": self._visit})
            return type(base.__name__, (base,), {"ConnectionCls": made})

        self.poolmanager.pool_classes_by_scheme = {
            "http": pool(urllib3.HTTPConnectionPool, _Checked),
            "https": pool(urllib3.HTTPSConnectionPool, _CheckedTLS),
        }


@contextlib.contextmanager
def _session(policy: Policy) -> Iterator[requests.Session]:
    visit = _Visit(policy, time.monotonic() + policy.seconds)
    session = requests.Session()
    session.trust_env = False
    session.max_redirects = MOST_REDIRECTS
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(visit))
    end = threading.Timer(policy.seconds, visit.hang_up)
    end.daemon = True
    end.start()
    try:
        with session:
            yield session
    finally:
        end.cancel()


@contextlib.contextmanager
def _failures(url: str) -> Iterator[None]:
    host = _host(url)
    try:
        yield
    except requests.TooManyRedirects as error:
        raise UrlUnreachable(host=host, reason="it redirects too often.") from error
    except (requests.exceptions.InvalidSchema, requests.exceptions.InvalidURL, ValueError) as error:
        raise UrlUnreachable(host=host, reason="only http and https addresses can be read.") from error
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise UrlUnreachable(host=host, reason="the connection failed or took too long.") from error


@contextlib.contextmanager
def _answer(policy: Policy, url: str, headers: Mapping[str, str], body: Any) -> Iterator[Iterator[bytes]]:
    deadline = time.monotonic() + policy.seconds
    with _failures(url), _session(policy) as session, _ask(session, url, headers, body) as answer:
        yield _blocks(answer, url, deadline)


def _ask(
    session: requests.Session, url: str, headers: Mapping[str, str], body: Any = None
) -> requests.Response:
    answer = session.request(
        "GET" if body is None else "POST",
        url,
        headers=dict(headers),
        json=body,
        stream=True,
        timeout=(CONNECT_SECONDS, READ_SECONDS),
    )
    if answer.status_code >= 400:
        answer.close()
        raise UrlUnreachable(host=_host(url), reason=f"it answers with status {answer.status_code}.")
    return answer


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _blocks(answer: requests.Response, url: str, deadline: float) -> Iterator[bytes]:
    yield from answer.iter_content(BLOCK)
    # Where no length was announced, a connection that was ended looks like a whole answer.
    if time.monotonic() >= deadline:
        raise UrlUnreachable(host=_host(url), reason="it took too long.")


def _limited(blocks: Iterator[bytes], most: int) -> Iterator[bytes]:
    size = 0
    for block in blocks:
        size += len(block)
        if size > most:
            raise UrlTooLarge(most=most)
        yield block


# --- What is asked for ---------------------------------------------------------------------------


def fetch_json(policy: Policy, url: str, body: Any = None) -> Any:
    """The JSON document at an address; with a ``body`` it is asked for by POST.

    Raises:
        UrlForbidden, UrlUnreachable, UrlTooLarge: it can't be had, or is no JSON.
    """
    most = min(policy.bytes, MOST_DOCUMENT_BYTES)
    accept = {"Accept": "application/json, application/geo+json;q=0.9"}
    with _answer(policy, url, accept, body) as blocks:
        content = b"".join(_limited(blocks, most))
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UrlUnreachable(host=_host(url), reason="its answer is no JSON.") from error


def download(policy: Policy, url: str, place: Path) -> None:
    """Write what is at an address to a file; the errors of `fetch_json`. Nothing stays after a failure."""
    with place.open("xb") as file:
        try:
            # The file's own failures must not be taken for those of the connection.
            with _answer(policy, url, {}, None) as blocks:
                for block in _limited(blocks, policy.bytes):
                    _write_block(file, block)
                _write_block(file, b"")
        except BaseException:
            # It was made here.
            place.unlink(missing_ok=True)
            raise


def _write_block(file: IO[bytes], block: bytes) -> None:
    """Write a block, or what is still in the buffer if it is empty."""
    try:
        file.write(block) if block else file.flush()
    except OSError as error:
        raise StorageFailure.from_os_error(error) from error


# --- Parts of rasters ----------------------------------------------------------------------------


class RemoteFile(io.RawIOBase):
    """A raster file on a foreign server, of which only the parts that are read are asked for.

    It has to begin as TIFF or JPEG 2000 do: other formats that GDAL knows can refer to files of this machine.
    What it began with is what GDAL sees, also if the server says something else later.

    Raises:
        UrlForbidden, UrlUnreachable: it can't be had, is no such file, or the server gives no parts.
    """

    def __init__(self, policy: Policy, url: str) -> None:
        super().__init__()
        self._url, self._place = url, 0
        self._resources = contextlib.ExitStack()
        with _failures(url):
            self._session = self._resources.enter_context(_session(policy))
            self._head, self._size = self._part(0, HEAD_BYTES)
        if not self._head.startswith(RASTER_SIGNATURES):
            self.close()
            raise UrlUnreachable(host=_host(url), reason="the file is neither a TIFF nor a JPEG 2000 file.")

    def _part(self, start: int, length: int) -> tuple[bytes, int]:
        """The bytes from a place on, and the size of the file."""
        last = start + length - 1
        headers = {"Range": f"bytes={start}-{last}", "Accept-Encoding": "identity"}
        with _ask(self._session, self._url, headers) as answer:
            told = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
            if answer.status_code != 206 or told is None or int(told[1]) != start:
                raise UrlUnreachable(host=_host(self._url), reason="it gives no parts of files (Range).")
            content = b"".join(_limited(answer.iter_content(BLOCK), length))
        if len(content) < min(length, int(told[2]) - start):
            raise UrlUnreachable(host=_host(self._url), reason="the connection was lost.")
        return content, int(told[2])

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The place of the next byte."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(base + offset, 0)
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes into a buffer."""
        wanted = min(len(buffer), self._size - self._place)
        if wanted <= 0:
            return 0
        found = self._head[self._place : self._place + wanted]
        if len(found) < wanted:
            with _failures(self._url):
                found += self._part(self._place + len(found), wanted - len(found))[0]
        buffer[: len(found)] = found
        self._place += len(found)
        return len(found)

    def close(self) -> None:
        """End the connection."""
        self._resources.close()
        super().close()


@dataclass(frozen=True)
class Opener(FileContainer):
    """Opens rasters at foreign addresses, for ``rasterio.open(url, opener=...)``; can be pickled."""

    policy: Policy

    def open(self, path: str, mode: str = "r", **_: Any) -> io.BufferedReader:
        """The file at an address, to read only."""
        if "w" in mode or "a" in mode or "+" in mode:
            raise PermissionError(path)
        return io.BufferedReader(RemoteFile(self.policy, path), BLOCK)

    def size(self, path: str) -> int:
        """The bytes of the file."""
        with RemoteFile(self.policy, path) as file:
            return file.seek(0, io.SEEK_END)

    def isfile(self, path: str) -> bool:
        """Always: what is not there is told when it is opened."""
        return True

    def isdir(self, path: str) -> bool:
        """Never."""
        return False

    def ls(self, path: str) -> list[str]:
        """Nothing: files beside a raster are not looked at."""
        return []

    def mtime(self, path: str) -> int:
        """Not known."""
        return 0

    def rm(self, path: str) -> None:
        """Refused."""
        raise PermissionError(path)


@dataclass(frozen=True)
class RemoteFiles:
    """Addresses that a policy permits, as a place of foreign rasters; can be pickled."""

    policy: Policy

    @contextlib.contextmanager
    def expose(self, href: str) -> Iterator[str]:
        """A name by which GDAL reads from an address through `RemoteFile`."""
        with _opener_registration(href, Opener(self.policy)) as name:
            yield name

    def explain_failure(self, href: str) -> None:
        """Raise the error of the connection, if there is one."""
        RemoteFile(self.policy, href).close()
