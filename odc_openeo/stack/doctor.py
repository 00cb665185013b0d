"""Check every setting and every part that the service needs, and suggest fixes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from odc_openeo import db
from odc_openeo.catalog import Catalog, read_overrides
from odc_openeo.catalog.index_check import IndexUnusable, check_index, find_index_warning
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
from odc_openeo.db.schema_check import DatabaseUnusable, check_schema
from odc_openeo.errors import OpenEOError
from odc_openeo.load.bucket_check import check_buckets
from odc_openeo.stack.web_editor import find_editor_warning
from odc_openeo.storage import check_storage
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
        ("database", _check_database),
        ("index", check_index),
        ("dask", cluster.check_cluster),
        ("GDAL", _check_gdal),
        ("storage", _check_storage),
        ("buckets", check_buckets),
        ("user-defined functions", check_udf),
        ("sign-in", oidc.check_providers),
    ]
    warnings: list[tuple[str, Callable[[Config], str | None]]] = [
        ("index", find_index_warning),
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
    except (DatabaseUnusable, IndexUnusable) as error:
        return Finding(part, False, mask_password(str(error)))
    except (OpenEOError, ValueError, OSError, ImportError, subprocess.SubprocessError) as error:
        cause = f" ({str(error.__cause__).splitlines()[0]})" if str(error.__cause__ or "") else ""
        return Finding(part, False, mask_password(f"{error}{cause}"))


def _check_settings(config: Config) -> str:
    unknown = unknown_variables()
    if unknown:
        raise ValueError(
            f"unknown setting: {', '.join(unknown)}; `odc-openeo doctor --settings` lists them all"
        )
    read_overrides(config.collection_overrides)
    return "all known"


def _run_command(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
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
    done = _run_command([sys.executable, "-c", code])
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


def _check_database(config: Config) -> str:
    if config.database_url is not None:
        check_schema(config)
    return db.check_database(config)


def _check_storage(config: Config) -> str:
    try:
        return check_storage(config)
    except Exception as error:  # each kind of store has its own errors
        raise ValueError(f"{error}; set {PREFIX}STORAGE_URL, or give the right to write") from error


def print_report(config: Config, console: Console) -> bool:
    """Print the findings, problems first; return whether all checks passed."""
    findings = run_checks(config)
    for finding in sorted(findings, key=lambda finding: (finding.good, not finding.is_warning)):
        mark = "[green]ok  [/]" if finding.good else "[red]fail[/]"
        if finding.is_warning:
            mark = "[yellow]warn[/]"
        console.print(f"{mark} {finding.part}: {escape(finding.text)}", soft_wrap=True)
    return all(finding.good for finding in findings)


def print_settings(config: Config, console: Console) -> None:
    """Print the settings, and the variables of Open Data Cube."""
    table = Table(Column("Setting", no_wrap=True), "Value", "Default", "Description", title="Settings")
    for row in describe_settings(config):
        table.add_row(*map(escape, row))
    console.print(table)
    for name, value in odc_settings().items():
        console.print(escape(f"{name}={value}"))
