"""Check every setting and every part that the service needs, and suggest fixes."""

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

from odc_openeo import db
from odc_openeo.catalog import Catalog, read_overrides
from odc_openeo.compute import cluster
from odc_openeo.config import (
    PREFIX,
    Config,
    allowed_gdal_drivers,
    child_environment,
    describe_settings,
    mask_password,
    odc_settings,
    unknown_variables,
)
from odc_openeo.errors import OpenEOError
from odc_openeo.stack.web_editor import find_editor_warning
from odc_openeo.udf.layers import check_udf, find_udf_warning
from odc_openeo.users import oidc

CHECK_SECONDS = 60


@dataclass(frozen=True)
class Finding:
    """Result of a check: ``text`` describes the state, or what to fix if it is not ``good``.

    A warning is about something that works but should be changed.
    """

    part: str
    good: bool
    text: str
    is_warning: bool = False


def run_checks(config: Config) -> list[Finding]:
    """Check settings, database, index, dask, GDAL, storage and sign-in independently of each other."""
    checks: list[tuple[str, Callable[[Config], str]]] = [
        ("settings", _check_settings),
        ("database", db.check_database),
        ("index", _check_index),
        ("dask", cluster.check_cluster),
        ("GDAL", _check_gdal),
        ("storage", _check_storage),
        ("user-defined functions", check_udf),
        ("sign-in", oidc.check_providers),
    ]
    warnings: list[tuple[str, Callable[[Config], str | None]]] = [
        ("index", _find_override_warning),
        ("dask", cluster.find_warning),
        ("GDAL", _find_gdal_warning),
        ("user-defined functions", find_udf_warning),
        ("settings", find_editor_warning),
    ]
    findings = [_run_check(part, check, config) for part, check in checks]
    usable = {finding.part for finding in findings if finding.good}
    texts = [(part, warn(config)) for part, warn in warnings if part in usable]
    return [*findings, *(Finding(part, True, text, is_warning=True) for part, text in texts if text)]


def _run_check(part: str, check: Callable[[Config], str], config: Config) -> Finding:
    try:
        return Finding(part, True, mask_password(check(config)))
    except (OpenEOError, ValueError, OSError, ImportError, subprocess.SubprocessError) as error:
        cause = f" ({str(error.__cause__).splitlines()[0]})" if str(error.__cause__ or "") else ""
        return Finding(part, False, mask_password(f"{error}{cause}"))


def _check_settings(config: Config) -> str:
    unknown = unknown_variables()
    if unknown:
        raise ValueError(f"unknown setting: {', '.join(unknown)}; the table above lists all settings")
    read_overrides(config.collection_overrides)
    return "all known"


def _run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=CHECK_SECONDS,
        check=False,
    )


def _check_gdal(config: Config) -> str:
    # In a separate process, since each process that reads secures GDAL for itself.
    code = (
        "from odc_openeo.config import allowed_gdal_drivers;"
        "from odc_openeo.untrusted.gdal_drivers import secure_gdal;"
        "secure_gdal(allowed_gdal_drivers())"
    )
    done = _run_python("-c", code)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise ValueError(lines[-1] if lines else "GDAL cannot be secured")
    return "opens only formats that cannot refer to other files"


def _find_gdal_warning(config: Config) -> str | None:
    allowed = allowed_gdal_drivers()
    if not allowed:
        return None
    return (
        f"{PREFIX}GDAL_DRIVERS lets GDAL use {', '.join(allowed)} in all processes. Drivers that open other "
        "files named in a file weaken the protection against users' files; convert your datasets if you can"
    )


def _find_override_warning(config: Config) -> str | None:
    if config.collection_overrides is None:
        return None
    catalog = Catalog(config)
    try:
        problems = "; ".join(catalog.list_override_problems())
        return f"{PREFIX}COLLECTION_OVERRIDES: {problems}" if problems else None
    except Exception:  # settings and index have findings of their own
        return None
    finally:
        catalog.close()


def _check_index(config: Config) -> str:
    # Use Open Data Cube's own command, which has the same view as its users.
    environment = ["--env", config.odc_environment] if config.odc_environment else []
    done = _run_python("-m", "datacube.scripts.cli_app", *environment, "system", "check")
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise ValueError(
            f"Open Data Cube reports: {lines[-1] if lines else 'nothing'}; set ODC_DEFAULT_DB_URL (and "
            "ODC_DEFAULT_INDEX_DRIVER=postgres) or datacube.conf, then run `datacube system init`"
        )
    return "Open Data Cube is reachable"


def _check_storage(config: Config) -> str:
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


def print_report(config: Config, console: Console) -> bool:
    """Print settings and findings; return whether all checks passed."""
    table = Table(Column("Setting", no_wrap=True), "Value", "Default", "Description", title="Settings")
    for row in describe_settings(config):
        table.add_row(*map(escape, row))
    console.print(table)
    for name, value in odc_settings().items():
        console.print(escape(f"{name}={value}"))
    findings = run_checks(config)
    for finding in findings:
        mark = "[green]ok  [/]" if finding.good else "[red]fail[/]"
        if finding.is_warning:
            mark = "[yellow]warn[/]"
        console.print(f"{mark} {finding.part}: {escape(finding.text)}", soft_wrap=True)
    return all(finding.good for finding in findings)
