"""Sockets of Python in a sandbox that has none: streams that the caller of this process relays to hosts.

Names are not resolved here: each gets an address of the reserved network 240.0.0.0/4 that stands for it.
"""

from __future__ import annotations

import _socket
import errno
import ipaddress
import os
import socket
import threading
from typing import Any

from .messages import LENGTH, encode_message

FIRST_ADDRESS = int(ipaddress.IPv4Address("240.0.0.1"))
PORTS = {"http": 80, "https": 443, "ftp": 21, "domain": 53}
LEVELS = (socket.IPPROTO_TCP, socket.IPPROTO_IP, socket.IPPROTO_IPV6)

_Socket = socket.socket


class Broker:
    """Asks the caller of this process for connections, one at a time."""

    def __init__(self, descriptor: int) -> None:
        self._connection = _Socket(fileno=descriptor)
        self._lock = threading.Lock()
        self._names: dict[str, str] = {}
        self._addresses: dict[str, str] = {}

    def name_address(self, host: str) -> str:
        """Return the address that stands for a host; addresses stand for themselves."""
        try:
            return str(ipaddress.ip_address(host.partition("%")[0]))
        except ValueError:
            pass
        with self._lock:
            if host not in self._addresses:
                address = str(ipaddress.IPv4Address(FIRST_ADDRESS + len(self._addresses)))
                self._addresses[host], self._names[address] = address, host
            return self._addresses[host]

    def connect(self, address: str, port: int) -> int:
        """Return the descriptor of a stream to a host.

        Raises:
            OSError: the operator has not opened the network for it, or it does not respond.
        """
        with self._lock:
            host = self._names.get(address, address)
            self._connection.sendall(encode_message({"host": host, "port": port}))
            head, descriptors, _, _ = socket.recv_fds(self._connection, LENGTH.size, 1)
            (length,) = LENGTH.unpack(head + self._receive(LENGTH.size - len(head)))
            answer = self._receive(length)
        if descriptors:
            return descriptors[0]
        import json  # noqa: PLC0415

        raise ConnectionRefusedError(errno.ECONNREFUSED, json.loads(answer)["error"])

    def _receive(self, count: int) -> bytes:
        content = self._connection.recv(count, socket.MSG_WAITALL) if count else b""
        if len(content) < count:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "the network is closed")
        return content


_broker: Broker
_peers: dict[int, tuple[str, int]] = {}
"""The hosts that descriptors are connected to."""


class RelayedSocket(_Socket):
    """A TCP socket that is connected by `Broker`; other sockets are as the kernel allows them."""

    def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:
        if fileno is None and family in (-1, socket.AF_INET, socket.AF_INET6):
            flags = getattr(socket, "SOCK_NONBLOCK", 0) | getattr(socket, "SOCK_CLOEXEC", 0)
            if type != -1 and type & ~flags != socket.SOCK_STREAM:
                raise PermissionError(errno.EPERM, "only TCP is possible here")
            # A stream without another end, until it is connected.
            stream, end = _socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            end.close()
            number = stream.detach()
            _peers.pop(number, None)
            family = socket.AF_INET if family == -1 else family
            super().__init__(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, number)
            if type != -1 and type & getattr(socket, "SOCK_NONBLOCK", 0):
                self.setblocking(False)
            return
        super().__init__(family, type, proto, fileno)

    def connect(self, address: Any) -> None:
        """Connect to a host, at once: also sockets that do not block wait here."""
        if not isinstance(address, tuple) or self.family not in (socket.AF_INET, socket.AF_INET6):
            super().connect(address)
            return
        host, port = address[:2]
        descriptor = _broker.connect(_broker.name_address(host), port)
        timeout = self.gettimeout()
        os.dup2(descriptor, self.fileno(), inheritable=False)
        os.close(descriptor)
        self.settimeout(timeout)
        _peers[self.fileno()] = (host, port)

    def connect_ex(self, address: Any) -> int:
        """Connect to a host; return the number of the error, or 0."""
        try:
            self.connect(address)
        except OSError as error:
            return error.errno or errno.ECONNREFUSED
        return 0

    def getpeername(self) -> Any:
        """Return the host and port."""
        if self.family not in (socket.AF_INET, socket.AF_INET6):
            return super().getpeername()
        peer = _peers.get(self.fileno())
        if peer is None:
            raise OSError(errno.ENOTCONN, "the socket is not connected")
        return peer

    def getsockname(self) -> Any:
        """Return an address of this machine that says nothing."""
        if self.family not in (socket.AF_INET, socket.AF_INET6):
            return super().getsockname()
        return "0.0.0.0", 0

    def setsockopt(self, level: int, *arguments: Any) -> None:
        """Set an option; those of TCP and IP have no effect."""
        if level not in LEVELS:
            super().setsockopt(level, *arguments)

    def getsockopt(self, level: int, *arguments: Any) -> Any:
        """Return an option; those of TCP and IP are 0."""
        if level not in LEVELS:
            return super().getsockopt(level, *arguments)
        return 0 if len(arguments) < 2 else bytes(arguments[1])

    def sendmsg(self, buffers: Any, *_: Any) -> int:
        """Send buffers, without the system call that could pass on descriptors."""
        return self.send(b"".join(buffers))


def _look_up(
    host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
) -> list[tuple[Any, ...]]:
    """Stand in for `socket.getaddrinfo`."""
    if type not in (0, socket.SOCK_STREAM) or family not in (0, socket.AF_INET, socket.AF_INET6):
        raise socket.gaierror(socket.EAI_SERVICE, "only TCP is possible here")
    name = host.decode() if isinstance(host, bytes) else (host or "127.0.0.1")
    address = _broker.name_address(name)
    number = PORTS.get(port) if isinstance(port, str) and not port.isdecimal() else int(port or 0)
    if number is None:
        raise socket.gaierror(socket.EAI_SERVICE, f"the service {port} is not known here")
    if ":" in address:
        return [(socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, number, 0, 0))]
    if family == socket.AF_INET6:
        raise socket.gaierror(socket.EAI_NONAME, "only IPv4 is possible here")
    return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, number))]


def open_network(descriptor: int) -> None:
    """Let the sockets of Python go through the caller of this process; call it before `ssl` is imported."""
    global _broker
    _broker = Broker(descriptor)
    socket.socket = RelayedSocket  # type: ignore[misc]
    socket.getaddrinfo = _look_up
    socket.gethostbyname = _broker.name_address
