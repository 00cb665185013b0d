"""The stack that runs with a data folder: its launcher leaves a note for the commands of the operator."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from pydantic import SecretStr

from odc_openeo.config import PREFIX, Config, apply_environment, odc_settings

NOTE = "running-stack.json"
LOCK = "launcher.pid"


class FolderInUse(OSError):
    """Another launcher holds the data folder."""


@dataclass(frozen=True)
class RunningStack:
    """Where the parts of a stack are; ``odc`` are the variables of Open Data Cube with which it runs."""

    url: str
    database_url: str
    dask_scheduler: str | None
    odc: Mapping[str, str]


def lock_folder(folder: Path) -> IO[str]:
    """Lock a data folder for the launcher; FolderInUse names the process that holds it."""
    file = (folder / LOCK).open("a+")
    try:
        _lock_file(file)
    except BlockingIOError as error:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        file.close()
        raise FolderInUse(
            f"{folder} is in use by another `odc-openeo up` (process {owner}): stop it, or choose "
            "another --data-dir"
        ) from error
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _lock_file(file: IO[str]) -> None:
    # Commands that look whether a stack runs hold the lock for a moment.
    deadline = time.monotonic() + 0.5
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def write_note(folder: Path, stack: RunningStack) -> None:
    """Leave the note; only its owner may read it, as addresses of databases can contain passwords."""
    draft = folder / f"{NOTE}.new"
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(asdict(stack), file)
    draft.replace(folder / NOTE)


def remove_note(folder: Path) -> None:
    """Remove the note when the stack stops."""
    (folder / NOTE).unlink(missing_ok=True)


def find_running_stack(folder: Path) -> RunningStack | None:
    """Find the stack that runs with a data folder, None if there is none that this user may use."""
    try:
        with (folder / LOCK).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_note(folder)
    except OSError:
        return None
    # A launcher that was killed leaves its note.
    return None


def _read_note(folder: Path) -> RunningStack | None:
    try:
        return RunningStack(**json.loads((folder / NOTE).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def attach(config: Config) -> Config:
    """Return the configuration with database, cluster and index of the stack that runs with its data folder.

    What the settings or variables of Open Data Cube name themselves stays as it is.
    """
    stack = find_running_stack(config.data_dir)
    if stack is None:
        return config
    if not odc_settings():
        apply_environment(stack.odc)
    changes: dict[str, object] = {}
    if config.database_url is None:
        changes["database_url"] = SecretStr(stack.database_url)
    if config.dask_scheduler is None:
        changes["dask_scheduler"] = stack.dask_scheduler
    return config.model_copy(update=changes)


def format_exports(config: Config, stack: RunningStack) -> str:
    """Format the variables with which `datacube` and this command use a running stack, for a shell."""
    variables = {
        **stack.odc,
        f"{PREFIX}DATA_DIR": str(config.data_dir),
        f"{PREFIX}DATABASE_URL": stack.database_url,
        f"{PREFIX}DASK_SCHEDULER": stack.dask_scheduler or "",
    }
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items() if value)
