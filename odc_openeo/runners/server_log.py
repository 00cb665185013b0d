"""The log of the service: standard error, where the operator's service manager collects it."""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from typing import Any, Final

from odc_openeo.config import Config, mask_password
from odc_openeo.telemetry.log_records import IDS, get_log_ids

_CONTROLS: Final = {
    number: f"\\x{number:02x}" for number in (*range(0x20), *range(0x7F, 0xA0)) if number != ord("\t")
} | {
    number: f"\\u{number:04x}" for number in (0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}
"""Characters that start lines, move cursors, or turn text around, and how they are written."""


class OneLineFormatter(logging.Formatter):
    """Writes a message on one line, whatever it quotes: user code and requests could forge lines.

    Tracebacks, which follow a message, have lines of their own.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Return the line of a record."""
        return super().formatMessage(record).translate(_CONTROLS)


class JsonFormatter(logging.Formatter):
    """Writes a record as one JSON object on one line, in ASCII, with the ids of `log_records`.

    Nothing that a message quotes can begin a line or another object. Passwords in URLs are masked.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record, the traceback included."""
        ids = getattr(record, "ids", None) or get_log_ids()
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage().removeprefix(f"[{ids.get('request')}] "),
            "process": record.process,
            **{name: ids[name] for name in IDS if name in ids},
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        line = json.dumps({name: _clean_value(value) for name, value in entry.items()})
        return line.replace("\x7f", "\\u007f")


def _clean_value(value: Any) -> Any:
    if isinstance(value, int | float | None):
        return value
    if isinstance(value, list | tuple):
        return [_clean_value(member) for member in value]
    # Lone surrogates, which some paths have, are not valid in JSON for many parsers.
    return mask_password(str(value)).encode("utf-8", "backslashreplace").decode()


class IdFilter(logging.Filter):
    """Keeps the ids of the thread that makes a record, whichever thread writes it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the ids; no record is dropped."""
        if not hasattr(record, "ids"):
            record.ids = get_log_ids()
        return True


def log_to_stderr(config: Config) -> None:
    """Write log records of this package to standard error, unless the process has set up logging itself."""
    log = logging.getLogger("odc_openeo")
    log.setLevel(config.log_level.upper())
    if not log.hasHandlers():
        log.addHandler(make_stderr_handler(config))
    write_audit_log(config)


def make_stderr_handler(config: Config) -> logging.Handler:
    """Make the handler that writes to standard error."""
    handler = logging.StreamHandler()
    handler.addFilter(IdFilter())
    handler.setFormatter(make_formatter(config))
    return handler


def make_formatter(config: Config) -> logging.Formatter:
    """Make the formatter of the setting ``log_format``."""
    if config.log_format == "json":
        return JsonFormatter()
    return OneLineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s")


class _AuditFile(WatchedFileHandler):
    """Appends to a file that only its owner may read; opened again after it was rotated.

    Lines of several processes do not mix: each is one write to a file that is open for appending.
    """

    def _open(self) -> Any:
        os.close(os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600))
        return super()._open()


def write_audit_log(config: Config) -> None:
    """Write the events of the audit log to the file of the setting ``audit_log``, if it names one.

    Raises:
        OSError: the file cannot be written.
    """
    log = logging.getLogger("odc_openeo.audit")
    for handler in [handler for handler in log.handlers if isinstance(handler, _AuditFile)]:
        log.removeHandler(handler)
        handler.close()
    if config.audit_log is not None:
        file = _AuditFile(config.audit_log, encoding="utf-8")
        file.setFormatter(JsonFormatter())
        log.addHandler(file)
    # Without a file, events are among the other messages.
    log.propagate = config.audit_log is None
