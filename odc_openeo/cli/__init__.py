"""The command ``odc-openeo``. Each command imports what it needs, so that ``--help`` responds at once."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from odc_openeo import __version__
from odc_openeo.cli.items import make_export_group, make_index_command
from odc_openeo.cli.jobs import make_jobs_group
from odc_openeo.cli.search_index import make_tune_command
from odc_openeo.cli.secret_files import make_secrets
from odc_openeo.config import (
    DEMO_USER,
    PREFIX,
    Config,
    allowed_gdal_drivers,
    child_environment,
    find_metrics_folder,
    mask_password,
    unknown_variables,
)
from odc_openeo.errors import OpenEOError
from odc_openeo.stack.gunicorn_command import gunicorn_command

DAY = click.DateTime(["%Y-%m-%d"])
FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, allow_dash=True, path_type=Path)


def _check_roles(
    _context: click.Context, _option: click.Parameter, names: tuple[str, ...]
) -> tuple[str, ...]:
    from odc_openeo.users.roles import check_role

    try:
        return tuple(check_role(name) for name in names)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


# A password on the command line could be seen by every user of the machine.
PASSWORD_STDIN = click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")


def _remember_folder(context: click.Context, _option: click.Parameter, folder: Path | None) -> None:
    if folder is not None:
        context.find_root().meta["data_dir"] = folder


DATA_DIR = click.option(
    "--data-dir",
    type=FOLDER,
    expose_value=False,
    callback=_remember_folder,
    help="Folder of the stack that `odc-openeo up` runs.",
)


def load_operator_settings(**options: Any) -> Config:
    """Load the configuration with database, index and cluster of the stack that runs with its data folder."""
    from odc_openeo.stack.running_stack import attach

    context = click.get_current_context()
    return attach(load_settings(data_dir=context.find_root().meta.get("data_dir"), **options))


def load_settings(**options: Any) -> Config:
    """Load the configuration; command-line options take precedence over ``ODC_OPENEO_*``."""
    for name in unknown_variables():
        print_message(f"Warning: {name} is not a setting; `odc-openeo doctor --settings` lists them all")
    try:
        return Config(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        lines = [f"{_describe_location(item['loc'])}{item['msg']}" for item in error.errors()]
        raise click.ClickException("\n".join(lines)) from error


def _describe_location(location: tuple[int | str, ...]) -> str:
    return f"{PREFIX}{'.'.join(map(str, location)).upper()}: " if location else ""


def print_message(text: str) -> None:
    """Print a line immediately, errors and warnings to standard error."""
    click.echo(text, err=text.startswith(("Error", "Warning")))


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="odc-openeo")
def cli() -> None:
    """An openEO back-end on the Open Data Cube. `odc-openeo doctor` lists all settings."""


@cli.command()
@click.option("--data-dir", type=FOLDER, help="Folder for everything the stack stores.")
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on.  [default: 8080]")
@click.option("--no-samples", is_flag=True, help="Do not index the sample scenes.")
@click.option("--workers", type=int, help="Worker processes of the dask cluster.  [default: 2]")
@click.option(
    "--index-driver",
    type=click.Choice(["postgres", "postgis"]),
    help="Index driver of Open Data Cube; postgis needs a database_url with PostGIS.  [default: postgres]",
)
def up(no_samples: bool, **options: Any) -> None:
    """Run the whole stack on this machine: PostgreSQL, dask, HTTP server, sample scenes."""
    from odc_openeo.stack import embedded

    sys.exit(embedded.run_stack(load_settings(**options), samples=not no_samples, say=print_message))


@cli.command()
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on.  [default: 8080]")
def serve(**options: Any) -> None:
    """Serve HTTP with the configured database, Open Data Cube and dask scheduler."""
    from odc_openeo.storage.metrics_folder import make_metrics_folder
    from odc_openeo.users import accounts, oidc

    config = load_settings(**options)
    _need_database(config)
    oidc.list_providers(config)
    _check_start(config)
    if config.demo_user:
        accounts.ensure_demo_user(config)
    command = gunicorn_command(config)
    os.execve(command[0], command, child_environment(config, **make_metrics_folder(config)))


@cli.command()
@click.option("--metrics-port", type=click.IntRange(1, 65535), help="Port of metrics of this worker.")
@click.option("--parts", is_flag=True, help="Compute on threads of this worker, without a dask cluster.")
def worker(metrics_port: int | None, parts: bool) -> None:
    """Run batch jobs and parts of large ones, one at a time, until stopped.

    Start one worker per job that should run in parallel. With --parts no dask cluster is needed: more workers
    make jobs in parts faster.
    """
    import logging
    import signal
    import threading

    from odc_openeo.monitoring.listener import MetricsRegistry, start_listener
    from odc_openeo.monitoring.recorder import start_recording
    from odc_openeo.runners.server_log import make_stderr_handler, write_audit_log
    from odc_openeo.untrusted.gdal_drivers import secure_gdal
    from odc_openeo.worker import ExecutorUnavailable, make_executor, run_worker

    config = load_settings()
    _check_start(config)
    secure_gdal(allowed_gdal_drivers())
    level = config.log_level.upper()
    logging.basicConfig(level=level, handlers=[make_stderr_handler(config)])
    write_audit_log(config)
    if find_metrics_folder() is not None or metrics_port is not None:
        recorder = start_recording()
        start_listener(
            config.model_copy(update={"metrics_port": metrics_port}), recorder, MetricsRegistry(recorder)
        )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        executor = make_executor(config, parts=parts)
    except ExecutorUnavailable as error:
        raise click.ClickException(str(error)) from error
    run_worker(config, stop, executor)


@cli.command("dask-worker", context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="ADDRESS [OPTIONS OF `dask worker`]...")
def dask_worker(options: tuple[str, ...]) -> None:
    """Run a dask worker with the environment, GDAL drivers and threads that this service needs.

    ADDRESS is the address of the scheduler, such as tcp://scheduler:8786. The options, --help among them, are
    those of `dask worker`.
    """
    from odc_openeo.compute.cluster import WORKER_ENVIRONMENT
    from odc_openeo.stack.dask_worker import dask_worker_command

    command = dask_worker_command(options)
    os.execve(command[0], command, child_environment(None, **WORKER_ENVIRONMENT))


def _need_database(config: Config) -> None:
    if config.database_url is None:
        raise click.ClickException(
            f"set {PREFIX}DATABASE_URL to your PostgreSQL, or use `odc-openeo up`, which brings its own"
        )


def _load_with_data_dir() -> Config:
    """Load the settings as they are, without those of a running stack."""
    return load_settings(data_dir=click.get_current_context().find_root().meta.get("data_dir"))


def _load_with_database() -> Config:
    """Load the configuration of a command that needs the tables of this service."""
    from odc_openeo import db
    from odc_openeo.db.schema_check import check_schema
    from odc_openeo.runners.server_log import write_audit_log

    db.use_patient_connections()
    config = load_operator_settings()
    _need_database(config)
    check_schema(config)
    write_audit_log(config)
    return config


def _check_start(config: Config) -> None:
    """Refuse to start without tables of this service, index and valid rules: each request would fail."""
    from odc_openeo.catalog.index_check import check_index
    from odc_openeo.db.schema_check import check_schema
    from odc_openeo.storage.buckets import read_bucket_rules

    _need_database(config)
    read_bucket_rules(config.buckets)
    check_schema(config)
    check_index(config)
    _check_bucket(config)


def _check_bucket(config: Config) -> None:
    """Refuse to start if results cannot be stored in the bucket that is named; a folder may come later."""
    from odc_openeo.storage import check_storage, is_bucket_url

    if is_bucket_url(config.storage):
        try:
            check_storage(config)
        except ValueError as error:
            raise click.ClickException(f"{error}; see {PREFIX}STORAGE_URL") from None


@cli.command()
def migrate() -> None:
    """Create or upgrade the database schema."""
    from odc_openeo.db.schema_check import upgrade_schema

    config = load_settings()
    _need_database(config)
    upgrade_schema(config)
    click.echo("Database schema is up to date")


@cli.group()
@DATA_DIR
def index() -> None:
    """Add products, sample scenes and STAC Items to the Open Data Cube index."""


@index.command("products")
def index_products() -> None:
    """Add the product definitions that come with this package."""
    from odc_openeo.indexing.index import IndexingError, index_products, product_definitions

    load_operator_settings()
    definitions = product_definitions()
    try:
        index_products(definitions)
    except IndexingError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"Added {len(definitions)} products")


@index.command("samples")
@click.option("--folder", type=FOLDER, help="Folder for the scenes.  [default: data_dir/samples]")
def index_samples(folder: Path | None) -> None:
    """Create and index the sample scenes; existing ones are left unchanged."""
    from odc_openeo.indexing.index import IndexingError, index_samples

    try:
        sets = index_samples(folder or load_operator_settings().data_dir / "samples")
    except IndexingError as error:
        raise click.ClickException(str(error)) from error
    for item in sets:
        click.echo(f"{item.product}: {len(item.documents)} datasets")


index.add_command(make_index_command(load_operator_settings))
index.add_command(make_tune_command(load_operator_settings))
cli.add_command(make_export_group(load_operator_settings, DATA_DIR))


@cli.group()
@DATA_DIR
def user() -> None:
    """Manage users: add, list, enable, disable, set roles and passwords."""


@user.command("add")
@click.argument("name")
@click.option(
    "--role", "roles", multiple=True, callback=_check_roles, help="A role of the user; may be repeated."
)
@PASSWORD_STDIN
def user_add(name: str, roles: tuple[str, ...], password_stdin: bool) -> None:
    """Create the user NAME, who signs in with a password; prompts for the password."""
    from odc_openeo.users import accounts

    accounts.create_user(_load_with_database(), name, _read_password(password_stdin), roles)
    click.echo(f"Created user {name}")


@user.command("password")
@click.argument("who", metavar="NAME")
@PASSWORD_STDIN
def user_password(who: str, password_stdin: bool) -> None:
    """Change the password of the user NAME; prompts for it. Ends all their sessions."""
    from odc_openeo.users import accounts

    account = accounts.set_password(_load_with_database(), who, _read_password(password_stdin))
    click.echo(f"Changed the password of user {account.name}")


def _read_password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))


@user.command("list")
def user_list() -> None:
    """List all users: id, name, roles, state, and the issuer if they come from a provider."""
    from odc_openeo.users import accounts

    for account in accounts.list_users(_load_with_database()):
        state = "disabled" if account.disabled else "active"
        row = (str(account.id), account.name, ",".join(account.roles), state, account.issuer or "")
        click.echo("\t".join(row))


@user.command("disable")
@click.argument("who", metavar="NAME_OR_ID")
@click.option("--undo", is_flag=True, help="Enable the user again, as `enable` does.")
def user_disable(who: str, undo: bool) -> None:
    """Disable a user and all their tokens immediately."""
    _set_disabled(who, not undo)


@user.command("enable")
@click.argument("who", metavar="NAME_OR_ID")
def user_enable(who: str) -> None:
    """Enable a disabled user again."""
    _set_disabled(who, False)


def _set_disabled(who: str, disabled: bool) -> None:
    from odc_openeo.users import accounts

    account = accounts.disable_user(_load_with_database(), who, disabled=disabled)
    click.echo(f"{'Disabled' if disabled else 'Enabled'} user {account.name}")


@user.command("revoke")
@click.argument("who", metavar="NAME_OR_ID")
def user_revoke(who: str) -> None:
    """End all sessions of a user, who may sign in again. A provider's own tokens stay valid."""
    from odc_openeo.users import accounts

    account, count = accounts.end_sessions(_load_with_database(), who)
    click.echo(f"Ended {count} sessions of user {account.name}")


@user.command("roles")
@click.argument("who", metavar="NAME_OR_ID")
@click.option("--role", "roles", multiple=True, callback=_check_roles, help="A role; may be repeated.")
def user_roles(who: str, roles: tuple[str, ...]) -> None:
    """Set a user's roles to exactly those given; none without --role. Roles from a provider's claims stay."""
    from odc_openeo.users import accounts

    account = accounts.set_roles(_load_with_database(), who, roles)
    click.echo(f"Roles of user {account.name}: {', '.join(account.roles) or 'none'}")


@cli.command()
@click.option(
    "--output", type=FOLDER, default="demo-output", show_default=True, help="Folder for the results."
)
@click.option("--url", help="Use a running service instead of starting one.")
def demo(output: Path, url: str | None) -> None:
    """Start the stack, compute a composite and a time series with the openEO client, stop the stack."""
    from rich.console import Console

    from odc_openeo.stack import embedded
    from odc_openeo.stack.demo import run_demo

    if find_spec("openeo") is None or find_spec("matplotlib") is None:
        raise click.ClickException(
            "the demonstration needs the openEO client and matplotlib: pip install 'odc-openeo[demo]'"
        )
    console = Console()
    if url is not None:
        run_demo(url, output, DEMO_USER, DEMO_USER, console)
        return

    def print_step(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    with tempfile.TemporaryDirectory(prefix="odc-openeo-demo-") as folder, embedded.stop_signals():
        config = load_settings(data_dir=folder, host="127.0.0.1", port=embedded.free_port(), demo_user=True)
        print_step("Starting PostgreSQL, dask and the HTTP server")
        with embedded.Stack(config, say=print_step) as stack:
            print_step(f"The service runs at {stack.url}")
            run_demo(stack.url, output, DEMO_USER, DEMO_USER, console)
        print_step("Stopped everything that was started")


@cli.command()
@DATA_DIR
@click.argument("target", type=click.Path(path_type=Path))
def backup(target: Path) -> None:
    """Back up database, results, files and keys into the file TARGET, which ends with .tar.

    Any other TARGET is a folder, made if it is missing, which gets a new file. The service may run meanwhile.
    The file is as secret as the service's own data.
    """
    from odc_openeo.stack.backup import make_backup

    summary = make_backup(_load_with_data_dir(), target)
    click.echo(f"{summary.path}: {', '.join(summary.schemas)}, {summary.files} files")
    for remark in summary.remarks:
        print_message(f"Warning: {remark}")


@cli.command()
@DATA_DIR
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--replace", is_flag=True, help="Remove what is there now: tables, results, files.")
def restore(file: Path, replace: bool) -> None:
    """Restore the backup FILE; the service must not run. Restore only files that you trust."""
    from odc_openeo.stack.backup import restore_backup

    summary = restore_backup(_load_with_data_dir(), file, replace=replace)
    click.echo(f"Restored {', '.join(summary.schemas)} and {summary.files} files")
    for remark in summary.remarks:
        print_message(f"Warning: {remark}")


@cli.command()
@DATA_DIR
@click.option("--since", type=DAY, help="First day, such as 2026-06-01 (UTC).")
@click.option("--until", type=DAY, help="Last day.")
@click.option(
    "--by",
    type=click.Choice(["user", "collection", "month"]),
    default="user",
    show_default=True,
    help="What a row is about.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values instead of a table.")
def usage(since: datetime | None, until: datetime | None, by: Any, as_csv: bool) -> None:
    """Report what users have used: runs, CPU hours, hours, bytes of results and tiles."""
    from odc_openeo.cli.tables import print_rows
    from odc_openeo.jobs.usage import read_usage

    days = [None if day is None else day.date() for day in (since, until)]
    totals = read_usage(_load_with_database(), by, *days)
    header = (by, "runs", "cpu_hours", "hours", "bytes")
    rows = [
        (key, f"{a.runs:g}", f"{a.cpu_s / 3600:.4f}", f"{a.seconds / 3600:.4f}", f"{a.nbytes:.0f}")
        for key, a in totals.items()
    ]
    print_rows(header, rows, as_csv=as_csv)


cli.add_command(make_jobs_group(_load_with_database, DATA_DIR))
cli.add_command(make_secrets)


@cli.group("collections")
@DATA_DIR
def collection_group() -> None:
    """Collections as clients see them, with the operator's overrides."""


@collection_group.command("check")
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def collections_check(file: Path | None) -> None:
    """Check a FILE of overrides against the index, by default that of the settings."""
    from odc_openeo.catalog import Catalog

    config = load_operator_settings(collection_overrides=file)
    if config.collection_overrides is None:
        raise click.ClickException(f"name a file, or set {PREFIX}COLLECTION_OVERRIDES")
    catalog = Catalog(config)
    try:
        problems = catalog.list_override_problems()
        visible, restricted = len(catalog.list_collections()), catalog.count_restricted()
    finally:
        catalog.close()
    if problems:
        raise click.ClickException("\n".join(problems))
    click.echo(f"No problems: {visible} collections are visible, {restricted} of them not to everybody")


@collection_group.command("refresh")
@click.option(
    "--all", "anew", is_flag=True, help="Read all datasets, also of collections that are up to date."
)
def collections_refresh(anew: bool) -> None:
    """Bring extents and counts of all collections up to date, however long it takes.

    The service does this by itself in the background; run it after an upgrade, or after millions of datasets
    were indexed, before users come.
    """
    from odc_openeo.catalog import Catalog, Summary

    def print_summary(summary: Summary) -> None:
        click.echo(f"{summary.product}: {summary.count} datasets")

    catalog = Catalog(_load_with_database())
    try:
        catalog.refresh_summaries(print_summary, anew=anew)
        count = len(catalog.list_collections())
    finally:
        catalog.close()
    click.echo(f"Extents and counts of {count} collections are up to date")


@cli.command()
@DATA_DIR
@click.argument("graph", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("--program", type=FILE, help="Write the Python program to this file; - for standard output.")
@click.option("--diagram", type=FILE, help="Write the plan as a Mermaid flowchart to this file.")
@click.option("--user", "name", help="Evaluate as this user, whose stored processes and files count.")
def explain(graph: str, program: Path | None, diagram: Path | None, name: str | None) -> None:
    """Explain the process graph in the JSON file GRAPH: its plan, and a program that gives the same values.

    Nothing is computed. GRAPH may hold the process graph itself, a process, or a request or job with one.
    """
    from odc_openeo.explain import explain_process
    from odc_openeo.untrusted.gdal_drivers import secure_gdal
    from odc_openeo.users import accounts

    secure_gdal(allowed_gdal_drivers())
    config = load_operator_settings()
    user = None if name is None else _find_user(accounts.list_users(config), name)
    explanation = explain_process(config, _read_graph(graph), user)
    if program != Path("-"):
        click.echo(explanation["text"], nl=False)
    for file, member in ((program, "program"), (diagram, "diagram")):
        if file is not None:
            with click.open_file(str(file), "w", encoding="utf-8") as target:
                target.write(explanation[member])


def _find_user(users: Sequence[Any], who: str) -> Any:
    """The id of a user by name or id."""
    ids = [user.id for user in users if who in (user.name, str(user.id))]
    if len(ids) != 1:
        raise click.ClickException(f"there is no user {who!r}; `odc-openeo user list` lists them")
    return ids[0]


def _read_graph(path: str) -> dict[str, Any]:
    """Read a process from a file that holds it, a request with it, or its graph only."""
    from odc_openeo.untrusted.strict_json import parse_json

    with click.open_file(path, encoding="utf-8") as file:
        try:
            content = parse_json(file.read())
        except UnicodeDecodeError as error:
            raise click.ClickException(f"{path} is not text in UTF-8") from error
    process = content.get("process", content) if isinstance(content, dict) else None
    if not isinstance(process, dict) or not process:
        raise click.ClickException(f"{path} holds no process graph: it must be a JSON object")
    return process if "process_graph" in process else {"process_graph": process}


@cli.command()
@DATA_DIR
@click.option("--settings", is_flag=True, help="List all settings, too.")
def doctor(settings: bool) -> None:
    """Check database, index, dask and storage, and suggest fixes: problems first. Changes nothing."""
    from rich.console import Console

    from odc_openeo.stack.doctor import print_report, print_settings

    console = Console(width=None if sys.stdout.isatty() else 160)
    config = load_operator_settings()
    is_good = print_report(config, console)
    if settings:
        print_settings(config, console)
    if not is_good:
        sys.exit(1)


@cli.command("env")
@DATA_DIR
def print_environment() -> None:
    """Print the variables of the stack that runs, for `eval "$(odc-openeo env)"`; some may be secret."""
    from odc_openeo.stack.running_stack import find_running_stack, format_exports

    config = load_operator_settings()
    stack = find_running_stack(config.data_dir)
    if stack is None:
        raise click.ClickException(
            f"no stack of yours runs with {config.data_dir}: start `odc-openeo up`, or name its --data-dir"
        )
    click.echo(format_exports(config, stack))


@cli.command()
def version() -> None:
    """Print the version."""
    click.echo(__version__)


def main() -> None:
    """Entry point: print known errors as one line, without a traceback."""
    try:
        cli(prog_name="odc-openeo")
    except (OpenEOError, ValueError, RuntimeError) as error:
        print_message(f"Error: {mask_password(str(error))}")
        sys.exit(1)
    except Exception as error:
        from odc_openeo.db.connection_errors import describe_database_error

        text = describe_database_error(error)
        if text is None:
            raise
        print_message(f"Error: {text}")
        sys.exit(1)
    except KeyboardInterrupt:
        print_message("Stopped")
        sys.exit(130)
