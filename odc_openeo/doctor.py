"""Look at every setting and every part the service needs, and say what to mend."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from uuid import uuid4

import fsspec
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from odc_openeo import cluster, db, oidc
from odc_openeo.config import (
    PREFIX,
    Config,
    child_environment,
    describe,
    mask_password,
    odc_settings,
    unknown_variables,
)
from odc_openeo.errors import OpenEOError

CHECK_SECONDS = 60


@dataclass(frozen=True)
class Finding:
    """What a check found: ``text`` says how it is, or what to mend when it is not ``good``."""

    part: str
    good: bool
    text: str


def findings(config: Config) -> list[Finding]:
    """Check database, index, dask and storage, each on its own."""
    checks: list[tuple[str, Callable[[Config], str]]] = [
        ("settings", _settings),
        ("database", db.check),
        ("index", _index),
        ("dask", cluster.check),
        ("storage", _storage),
        ("sign-in", oidc.check),
    ]
    return [_finding(part, check, config) for part, check in checks]


def _finding(part: str, check: Callable[[Config], str], config: Config) -> Finding:
    try:
        return Finding(part, True, mask_password(check(config)))
    except (OpenEOError, ValueError, OSError, ImportError, subprocess.SubprocessError) as error:
        cause = f" ({str(error.__cause__).splitlines()[0]})" if str(error.__cause__ or "") else ""
        return Finding(part, False, mask_password(f"{error}{cause}"))


def _settings(config: Config) -> str:
    unknown = unknown_variables()
    if unknown:
        raise ValueError(f"no such setting: {', '.join(unknown)}; the table above has all")
    return "all known"


def _index(config: Config) -> str:
    # By Open Data Cube's own command: it sees what its users see.
    environment = ["--env", config.odc_environment] if config.odc_environment else []
    command = [sys.executable, "-m", "datacube.scripts.cli_app", *environment, "system", "check"]
    done = subprocess.run(
        command,
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=CHECK_SECONDS,
        check=False,
    )
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise ValueError(
            f"Open Data Cube says: {lines[-1] if lines else 'nothing'}; set ODC_DEFAULT_DB_URL (and "
            "ODC_DEFAULT_INDEX_DRIVER=postgres) or datacube.conf, then run `datacube system init`"
        )
    return "Open Data Cube can be reached"


def _storage(config: Config) -> str:
    try:
        files, folder = fsspec.core.url_to_fs(config.storage)
        probe = f"{folder.rstrip('/')}/.doctor-{uuid4().hex}"
        files.makedirs(folder, exist_ok=True)
        with files.open(probe, "wb") as file:
            file.write(b"probe")
        files.rm_file(probe)
    except Exception as error:  # each kind of store has its own errors
        raise ValueError(f"cannot write to {config.storage}: {error}; set {PREFIX}STORAGE_URL") from error
    return f"can write to {config.storage}"


def report(config: Config, console: Console) -> bool:
    """Print settings and findings; whether all is good."""
    table = Table(Column("Setting", no_wrap=True), "Value", "Default", "What it is", title="Settings")
    for row in describe(config):
        table.add_row(*map(escape, row))
    console.print(table)
    for name, value in odc_settings().items():
        console.print(escape(f"{name}={value}"))
    found = findings(config)
    for finding in found:
        mark = "[green]ok  [/]" if finding.good else "[red]mend[/]"
        console.print(f"{mark} {finding.part}: {escape(finding.text)}", soft_wrap=True)
    return all(finding.good for finding in found)
