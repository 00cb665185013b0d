"""Uploads from the form of the files page.

The parts of a form are read one after the other: its token is checked before a byte of a file is stored, and
files go straight to where they are kept, so that no copy fills a disk before a limit is checked.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from typing import IO, Final, cast

from flask import request
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData

from odc_openeo.api.backend import backend
from odc_openeo.api.pages.forms import check_form, check_form_token
from odc_openeo.api.view_bodies import MULTIPART
from odc_openeo.errors import RequestInvalid
from odc_openeo.untrusted.strict_json import check_string
from odc_openeo.user_data import files
from odc_openeo.user_data.file_rules import UserFile

BLOCK_BYTES: Final = 256 * 1024
MAX_FIELD_BYTES: Final = 4096
MAX_PARTS: Final = 100
FOLDER: Final = "folder"
"""Name of the field with the folder in which the files are to be."""


def receive_uploads(user: str, secret: str | None) -> list[UserFile]:
    """Store the files of the submitted form for a user; those before one that is refused stay.

    Raises:
        FormInvalid: the form does not come from one of these pages; nothing was stored.
        RequestInvalid: it has no file, or ended early.
        OpenEOError: a file was refused, see `files.receive_file`.
    """
    if request.mimetype != MULTIPART:
        check_form(secret)
        raise RequestInvalid(reason="it has no file. Choose a file first.")
    # None would mean the limit for JSON bodies; `files` enforces the limits for files.
    request.max_content_length = sys.maxsize
    parts, fields = FormParts(request.stream, request.mimetype_params.get("boundary", "")), dict[str, str]()
    received = []
    with _translate_form_errors():
        for part in parts.iterate_parts():
            if isinstance(part, Field):
                fields[part.name] = parts.read_field()
                continue
            check_form_token(secret, fields.get("form_key", ""))
            if part.filename:
                path = _join_path(fields.get(FOLDER, ""), part.filename)
                stream = cast(IO[bytes], FilePart(parts))
                received.append(files.receive_file(backend().config, user, path, stream, None))
        check_form_token(secret, fields.get("form_key", ""))
    if not received:
        raise RequestInvalid(reason="it has no file. Choose a file first.")
    return received


def _join_path(folder: str, filename: str) -> str:
    """Join folder and name; the name may not lead into another folder than the one that was typed."""
    for text in (folder, filename):
        check_string(text)
    if "/" in filename:
        raise RequestInvalid(reason="the name of a file has a slash. Give the folder in its own field.")
    folder = folder.strip().strip("/")
    return f"{folder}/{filename}" if folder else filename


@contextlib.contextmanager
def _translate_form_errors() -> Iterator[None]:
    try:
        yield
    except RequestEntityTooLarge as error:
        raise RequestInvalid(
            reason=f"it has more than {MAX_PARTS} parts, or a field of more than {MAX_FIELD_BYTES} bytes."
        ) from error
    except (ClientDisconnected, ValueError) as error:
        raise RequestInvalid(reason="the form is not complete. Send it again.") from error


class FormParts:
    """The parts of a body of multipart/form-data in their order, read only as far as is asked for."""

    def __init__(self, stream: IO[bytes], boundary: str) -> None:
        self._stream = stream
        self._decoder = MultipartDecoder(boundary.encode(), 4 * BLOCK_BYTES, max_parts=MAX_PARTS)
        self._has_more = False

    def iterate_parts(self) -> Iterator[Field | File]:
        """Iterate over fields and files; what was not read of the one before is skipped."""
        while True:
            while self._has_more:
                self.read_data()
            event = self._read_event()
            if isinstance(event, Epilogue):
                return
            if isinstance(event, Field | File):
                self._has_more = True
                yield event

    def read_field(self) -> str:
        """Read the value of the field that was iterated over last; RequestEntityTooLarge beyond the limit."""
        value = b""
        while self._has_more:
            value += self.read_data()
            if len(value) > MAX_FIELD_BYTES:
                raise RequestEntityTooLarge
        return value.decode()

    def read_data(self) -> bytes:
        """Read some bytes of the part that was iterated over last, empty at its end."""
        while self._has_more:
            event = self._read_event()
            assert isinstance(event, Data)
            self._has_more = event.more_data
            if event.data:
                return bytes(event.data)
        return b""

    def _read_event(self) -> Event:
        while isinstance(event := self._decoder.next_event(), NeedData):
            self._decoder.receive_data(self._stream.read(BLOCK_BYTES) or None)
        return event


class FilePart(io.RawIOBase):
    """The content of a file of a form, as a stream that can be read once."""

    def __init__(self, parts: FormParts) -> None:
        self._parts = parts
        self._rest = b""

    def read(self, size: int = -1, /) -> bytes:
        """Read at most ``size`` bytes, or some; empty at the end of the file."""
        block = self._rest or self._parts.read_data()
        end = len(block) if size < 0 else size
        self._rest = block[end:]
        return block[:end]
