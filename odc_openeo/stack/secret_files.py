"""The files of secrets that containers share, read through ``ODC_OPENEO_*_FILE`` and ``ODC_CONFIG_PATH``."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

PASSWORD: Final = "database_password"
URL: Final = "database_url"
INDEX: Final = "datacube.conf"
KEY: Final = "secret_key"

READABLE: Final = 0o444
"""Mode of the files: containers read them as different users, and only the folder keeps others out."""


def make_secrets(
    folder: Path, database_url: str, *, signing_key: Path | None = None, renew_password: bool = False
) -> list[str]:
    """Make the secrets that are not there yet; return the names of the files that were made.

    Args:
        folder: Where the files are, or will be: password and URL of the database, the configuration of Open
            Data Cube for the same database, and the key that signs URLs.
        database_url: URL of the database, with a user and without a password.
        signing_key: File with an earlier key, to be taken over if it exists.
        renew_password: Whether to replace the password, and the files that contain it. The database has to
            be told.

    Raises:
        ValueError: the URL has no user, or a password; the folder or a file cannot be written or read.
    """
    parts = urlsplit(database_url)
    if not parts.username or not parts.hostname or parts.password is not None:
        raise ValueError("the URL of the database should be like postgresql+psycopg2://odc@postgres:5432/odc")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return list(_write_missing(folder, database_url, signing_key, renew_password))
    except OSError as error:
        raise ValueError(f"secrets cannot be made in {folder}: {error.strerror}") from None


def _write_missing(folder: Path, url: str, signing_key: Path | None, renew: bool) -> Iterator[str]:
    # An operator's own URL is not replaced by one of a database that does not know this password.
    if not renew and (folder / URL).exists() and not (folder / PASSWORD).exists():
        raise ValueError(f"{folder} has {URL} but no {PASSWORD}: add the password that the URL has")
    yield from _write_secret(folder / PASSWORD, secrets.token_urlsafe(32), renew)
    password = (folder / PASSWORD).read_text(encoding="utf-8").strip()
    user = urlsplit(url).username
    full = url.replace(f"//{user}@", f"//{user}:{quote(password, safe='')}@", 1)
    yield from _write_secret(folder / URL, full, renew)
    # A lone % refers to another entry.
    escaped = full.replace("%", "%%")
    yield from _write_secret(folder / INDEX, f"[default]\nindex_driver: postgres\ndb_url: {escaped}", renew)
    earlier = signing_key.read_text().strip() if signing_key and signing_key.is_file() else ""
    yield from _write_secret(folder / KEY, earlier or secrets.token_urlsafe(48), False)


def _write_secret(path: Path, text: str, replace: bool) -> Iterator[str]:
    """Write a file at once, and yield its name; if it is there and stays, do nothing.

    Several may write at the same time: the first one wins.
    """
    if path.exists() and not replace:
        return
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{text}\n")
        draft.chmod(READABLE)
        if replace:
            draft.replace(path)
        else:
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
        yield path.name
    finally:
        draft.unlink(missing_ok=True)
