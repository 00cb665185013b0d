"""The caller's end of the connection to a process of user code, which may send anything or nothing."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final

from odc_openeo.errors import RequestInvalid
from odc_openeo.udf.arenas import ReplyInvalid
from odc_openeo.udf.child.messages import LENGTH, encode_message
from odc_openeo.untrusted.strict_json import MOST_DEPTH, is_deeper_than, parse_json

TICK_MS: Final = 100
"""Milliseconds between checks of the limits of a process."""

MOST_MESSAGE_BYTES: Final = 16 * 2**20


class Connection:
    """A socket that never blocks for longer than a tick; ``check`` raises to give up waiting."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        end.setblocking(False)
        self._readable = _poll(end, select.POLLIN)
        self._writable = _poll(end, select.POLLOUT)
        self._received = bytearray()

    def send(
        self, message: Mapping[str, Any], check: Callable[[], None], descriptor: int | None = None
    ) -> None:
        """Send a message, with a descriptor if there is one."""
        content = memoryview(encode_message(message))
        while content:
            try:
                if descriptor is None:
                    sent = self._socket.send(content)
                else:
                    sent = socket.send_fds(self._socket, [content], [descriptor])
                    descriptor = None
                content = content[sent:]
            except BlockingIOError:
                _wait_for(self._writable, check)

    def receive(self, check: Callable[[], None]) -> dict[str, Any]:
        """Receive a message.

        Raises:
            ReplyInvalid: it is not a JSON object, too large, or has numbers that are not finite.
            EOFError: the other side has ended.
        """
        self._fill(LENGTH.size, check)
        (length,) = LENGTH.unpack(self._received[: LENGTH.size])
        if length > MOST_MESSAGE_BYTES:
            raise ReplyInvalid(f"its description has {length:,} bytes, more than {MOST_MESSAGE_BYTES:,}")
        self._fill(LENGTH.size + length, check)
        content = bytes(self._received[LENGTH.size : LENGTH.size + length])
        del self._received[: LENGTH.size + length]
        return _parse_message(content)

    def _fill(self, count: int, check: Callable[[], None]) -> None:
        while len(self._received) < count:
            _wait_for(self._readable, check)
            try:
                part = self._socket.recv(2**20)
            except BlockingIOError:
                continue
            if not part:
                raise EOFError
            self._received += part

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


def _poll(end: socket.socket, events: int) -> select.poll:
    poll = select.poll()
    poll.register(end, events)
    return poll


def _wait_for(poll: select.poll, check: Callable[[], None]) -> None:
    while not poll.poll(TICK_MS):
        check()
    # A process that sends without end is checked, too.
    check()


def _parse_message(content: bytes) -> dict[str, Any]:
    try:
        text = content.decode()
        message = parse_json(text)
        if "NaN" in text or "Infinity" in text:
            json.loads(text, parse_constant=_refuse_constant)
    except (RequestInvalid, ValueError) as error:
        raise ReplyInvalid(f"its description is not valid JSON: {error}") from error
    if is_deeper_than(message):
        raise ReplyInvalid(f"its description has more than {MOST_DEPTH} lists or objects in each other")
    if not isinstance(message, dict):
        raise ReplyInvalid("its description is not a JSON object")
    return message


def _refuse_constant(name: str) -> None:
    raise ReplyInvalid(f"its labels or other values of its description contain {name}, which is not a number")
