"""The commands ``odc-openeo jobs``: list, cancel, queue, pause and resume batch jobs of all users."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from typing import Any, Final

import click

from odc_openeo.cli.tables import print_rows
from odc_openeo.config import Config
from odc_openeo.errors import OpenEOError

STATES: Final = ("created", "queued", "running", "canceled", "finished", "error")
UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
LoadConfig = Callable[[], Config]


def _parse_age(_context: click.Context, _option: click.Parameter, text: str | None) -> timedelta | None:
    """Parse an age such as ``90m``, ``12h`` or ``7d``."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,6})([smhd])", text, re.ASCII)
    if match is None:
        raise click.BadParameter("write a number and a unit: 30s, 90m, 12h or 7d")
    return timedelta(**{UNITS[match[2]]: int(match[1])})


FILTERS: Final = (
    click.option("--user", help="Name or id of the owner."),
    click.option("--state", "states", multiple=True, type=click.Choice(STATES), help="May be repeated."),
    click.option("--older", callback=_parse_age, help="Created at least so long ago: 90m, 12h, 7d."),
)


def _add_filters(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(FILTERS):
        command = option(command)
    return command


def make_jobs_group(load: LoadConfig, data_dir: Callable[..., Any]) -> click.Group:
    """Make the group; ``load`` loads the configuration, ``data_dir`` is the option for it."""

    @click.group("jobs")
    @data_dir
    def jobs() -> None:
        """Batch jobs of all users: list, cancel, queue again, pause and resume."""

    @jobs.command("list")
    @_add_filters
    @click.option(
        "--limit", type=click.IntRange(1), default=100, show_default=True, help="Most jobs that are listed."
    )
    @click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
    def list_jobs(limit: int, as_json: bool, **which: Any) -> None:
        """List jobs, the newest first."""
        _print_jobs(load(), limit, as_json, which)

    @jobs.command("cancel")
    @click.argument("ids", metavar="[ID]...", nargs=-1)
    @_add_filters
    def cancel(ids: tuple[str, ...], **which: Any) -> None:
        """Cancel jobs: those with an ID, or those that the options select."""
        _change_jobs(load(), ids, which, "cancel", ("queued", "running"))

    @jobs.command("requeue")
    @click.argument("ids", metavar="[ID]...", nargs=-1)
    @_add_filters
    def requeue(ids: tuple[str, ...], **which: Any) -> None:
        """Queue jobs again from their beginning: results and logs are discarded, running ones are stopped."""
        _change_jobs(load(), ids, which, "requeue", ("running", "canceled", "finished", "error"))

    @jobs.command("pause")
    @click.argument("ids", metavar="ID...", nargs=-1, required=True)
    def pause(ids: tuple[str, ...]) -> None:
        """Pause jobs that run in parts: parts that run now end, no others begin."""
        _pause_jobs(load(), ids, paused=True)

    @jobs.command("resume")
    @click.argument("ids", metavar="ID...", nargs=-1, required=True)
    def resume(ids: tuple[str, ...]) -> None:
        """Let paused jobs go on."""
        _pause_jobs(load(), ids, paused=False)

    return jobs


def _pause_jobs(config: Config, ids: tuple[str, ...], *, paused: bool) -> None:
    from odc_openeo.jobs.part_progress import pause_any_job

    failures = 0
    for id_ in ids:
        try:
            is_changed = pause_any_job(config, id_, paused=paused)
        except OpenEOError as error:
            click.echo(f"{id_[:100]!a}: {error}", err=True)
            is_changed = False
        else:
            done = "paused" if paused else "resumed"
            click.echo(f"{id_}: {done if is_changed else 'does not run in parts'}", err=not is_changed)
        failures += not is_changed
    if failures:
        raise click.ClickException(f"{failures} of {len(ids)} jobs were not changed")


def _print_jobs(config: Config, limit: int, as_json: bool, which: dict[str, Any]) -> None:
    from odc_openeo.jobs.operators import JobFilter, list_all_jobs
    from odc_openeo.timestamps import format_rfc3339

    entries = list_all_jobs(config, JobFilter(**which), limit)
    if as_json:
        times = (
            {"created": format_rfc3339(e.created), "updated": format_rfc3339(e.updated)} for e in entries
        )
        rows = [{**asdict(entry), **more} for entry, more in zip(entries, times, strict=True)]
        click.echo(json.dumps(rows, default=str, indent=2))
        return
    header = ("id", "user", "state", "%", "tries", "created", "worker", "title")
    print_rows(
        header,
        [
            (str(e.id), e.user, e.status, f"{e.progress:.0f}", str(e.tries), format_rfc3339(e.created))
            + (e.worker or "-", e.title or "")
            for e in entries
        ],
        as_csv=False,
    )


def _change_jobs(
    config: Config, ids: tuple[str, ...], which: dict[str, Any], action: str, states: tuple[str, ...]
) -> None:
    """Change jobs by id or by filter; never all jobs for lack of either."""
    from odc_openeo.jobs.operators import JobFilter, list_all_jobs

    if bool(ids) == any(which.values()):
        raise click.UsageError("name jobs by their ids, or select them by options")
    if not ids:
        selected = JobFilter(**{**which, "states": which["states"] or states})
        ids = tuple(str(entry.id) for entry in list_all_jobs(config, selected))
    failures = [id_ for id_ in ids if not _change_job(config, id_, action)]
    if failures:
        raise click.ClickException(f"{len(failures)} of {len(ids)} jobs were not changed")


def _change_job(config: Config, id_: str, action: str) -> bool:
    from odc_openeo.jobs.operators import cancel_any_job, requeue_job
    from odc_openeo.storage import get_storage

    try:
        if action == "cancel":
            is_changed = cancel_any_job(config, id_)
            click.echo(f"{id_}: {'canceled' if is_changed else 'neither queued nor running'}")
            return True
        previous_run, is_changed = requeue_job(config, id_)
        if previous_run is not None:
            get_storage(config).delete(f"results/{id_}/{previous_run}")
        click.echo(f"{id_}: {'queued' if is_changed else 'is in the queue already'}")
    except OpenEOError as error:
        click.echo(f"{id_[:100]!a}: {error}", err=True)
        return False
    return True
