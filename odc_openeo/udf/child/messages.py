"""Messages between a caller and the process of a user-defined function: a length in 4 bytes, then JSON."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Mapping
from typing import Any

LENGTH = struct.Struct(">I")
"""Length of a message in bytes, which precedes it."""


def encode_message(message: Mapping[str, Any]) -> bytes:
    """Encode a message with its length."""
    content = json.dumps(message).encode()
    return LENGTH.pack(len(content)) + content


class Link:
    """The end of the socket pair in the process of user code; blocking."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message; threads do not interrupt each other."""
        content = encode_message(message)
        with self._lock:
            self._connection.sendall(content)

    def receive(self) -> tuple[dict[str, Any], int | None]:
        """Receive a message and the descriptor that came with it, if any.

        Raises:
            EOFError: the caller has closed the connection.
        """
        first, descriptors, _, _ = socket.recv_fds(self._connection, LENGTH.size, 1)
        (length,) = LENGTH.unpack(first + self._receive_bytes(LENGTH.size - len(first)))
        message = json.loads(self._receive_bytes(length))
        return message, descriptors[0] if descriptors else None

    def _receive_bytes(self, count: int) -> bytes:
        content = bytearray()
        while len(content) < count:
            part = self._connection.recv(min(count - len(content), 1 << 20))
            if not part:
                raise EOFError
            content += part
        return bytes(content)
