"""Explanations of failed connections to PostgreSQL: one line that says what to change, without passwords."""

from __future__ import annotations

import re
from typing import Final

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError, TimeoutError

from odc_openeo.config import mask_password

REASONS: Final[tuple[tuple[str, str], ...]] = (
    (
        r"password authentication failed|no password supplied|empty password",
        "{server} refuses the password of user '{user}'. Correct name and password in {setting}.",
    ),
    (
        r'role "[^"]*" does not exist|Peer authentication failed|Ident authentication failed',
        "{server} does not know user '{user}', or not from here. Create the user, or correct {setting}.",
    ),
    (
        r'database "[^"]*" does not exist',
        "{server} has no database '{database}'. Create it (`createdb {database}`), or correct {setting}.",
    ),
    (
        r"pg_hba\.conf|SSL|certificate",
        "{server} does not admit user '{user}' to database '{database}' ({reason}). "
        "Correct its pg_hba.conf, or {setting}.",
    ),
    (
        r"too many clients|remaining connection slots|too many connections",
        "{server} has no free connection. Raise max_connections, or close other clients.",
    ),
    (
        r"starting up|shutting down|in recovery mode",
        "{server} is starting or stopping. Try again in a minute.",
    ),
    (
        r"could not translate host name|Connection refused|timeout expired|No such file or directory"
        r"|No route to host|Network is unreachable|timed out|Is the server running",
        "no PostgreSQL answers at {place} ({reason}). Start it, or correct {setting}.",
    ),
)
"""Patterns of messages of PostgreSQL and its client, and what to say about them; the first match counts."""


def explain_connection_error(error: BaseException, url: URL, setting: str) -> str:
    """Explain why the database at ``url``, which ``setting`` names, cannot be reached."""
    text = _read_message(error)
    place = describe_place(url)
    words = {
        "place": place,
        "server": f"PostgreSQL at {place}",
        "user": url.username or "(none)",
        "database": url.database or url.username or "(none)",
        "setting": setting,
        "reason": _shorten(text, url),
    }
    for pattern, explanation in REASONS:
        if re.search(pattern, text, re.IGNORECASE):
            return explanation.format(**words)
    return "PostgreSQL at {place} cannot be used: {reason}. Correct {setting}.".format(**words)


def describe_database_error(error: BaseException) -> str | None:
    """Describe an error of the database in one line without values; None if it is another error."""
    if not isinstance(error, SQLAlchemyError):
        return None
    return f"the database refuses: {_shorten(_read_message(error), None)}. Run `odc-openeo doctor`."


def describe_place(url: URL) -> str:
    """Return host and port, or the folder of the socket, as for people."""
    query_host = url.query.get("host")
    host = url.host or (query_host if isinstance(query_host, str) else None)
    if host is None or host.startswith("/"):
        return host or "the local socket"
    return f"{host}:{url.port or 5432}"


def _read_message(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "too many connections"
    origin = error.orig if isinstance(error, DBAPIError) else error
    return str(origin).strip()


def _shorten(text: str, url: URL | None) -> str:
    """The last part of the first line, which has the reason; without any password."""
    line = text.splitlines()[0] if text else "no message"
    line = re.sub(r"^.*?(FATAL|ERROR): +", "", line)
    line = re.sub(r"^connection to server .*? failed: ", "", line)
    if url is not None and url.password:
        line = line.replace(str(url.password), "***")
    return mask_password(line).strip().rstrip(".")
