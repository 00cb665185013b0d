"""The command ``odc-openeo``. Each command imports what it needs, so that ``--help`` responds at once."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from odc_openeo import __version__
from odc_openeo.config import (
    DEMO_USER,
    PREFIX,
    ROLES,
    Config,
    allowed_gdal_drivers,
    child_environment,
)
from odc_openeo.errors import OpenEOError
from odc_openeo.stack.gunicorn_command import gunicorn_command

FOLDER = click.Path(file_okay=False, path_type=Path)
ROLE = click.Choice(ROLES)
# A password on the command line could be seen by every user of the machine.
PASSWORD_STDIN = click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")


def load_settings(**options: Any) -> Config:
    """Load the configuration; command-line options take precedence over ``ODC_OPENEO_*``."""
    try:
        return Config(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        lines = [f"{_describe_location(item['loc'])}{item['msg']}" for item in error.errors()]
        raise click.ClickException("\n".join(lines)) from error


def _describe_location(location: tuple[int | str, ...]) -> str:
    return f"{PREFIX}{'.'.join(map(str, location)).upper()}: " if location else ""


def print_message(text: str) -> None:
    """Print a line immediately, errors to standard error."""
    click.echo(text, err=text.startswith("Error"))


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
def up(no_samples: bool, **options: Any) -> None:
    """Run the whole stack on this machine: PostgreSQL, dask, HTTP server, sample scenes."""
    from odc_openeo.stack import embedded

    sys.exit(embedded.run_stack(load_settings(**options), samples=not no_samples, say=print_message))


@cli.command()
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on.  [default: 8080]")
def serve(**options: Any) -> None:
    """Serve HTTP with the configured database, Open Data Cube and dask scheduler."""
    from odc_openeo.users import oidc

    config = load_settings(**options)
    _need_database(config)
    oidc.list_providers(config)
    command = gunicorn_command(config)
    os.execve(command[0], command, child_environment(config))


@cli.command()
def worker() -> None:
    """Run batch jobs, one at a time, until stopped; start one worker per job that should run in parallel."""
    import logging
    import signal
    import threading

    from odc_openeo.untrusted.gdal_drivers import secure_gdal
    from odc_openeo.worker import run_worker

    config = load_settings()
    _need_database(config)
    secure_gdal(allowed_gdal_drivers())
    level = config.log_level.upper()
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    run_worker(config, stop)


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


@cli.command()
def migrate() -> None:
    """Create or upgrade the database schema."""
    from odc_openeo.db import migrate

    config = load_settings()
    _need_database(config)
    migrate.upgrade(config)
    click.echo("Database schema is up to date")


@cli.group()
def index() -> None:
    """Add products, sample scenes and STAC Items to the Open Data Cube index."""


@index.command("products")
def index_products() -> None:
    """Add the product definitions that come with this package."""
    from odc_openeo.indexing.index import IndexingError, index_products, product_definitions

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
        sets = index_samples(folder or load_settings().data_dir / "samples")
    except IndexingError as error:
        raise click.ClickException(str(error)) from error
    for item in sets:
        click.echo(f"{item.product}: {len(item.documents)} datasets")


@index.command("stac")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--product", help="The product to add to.  [default: each Item's collection]")
def index_stac(paths: tuple[Path, ...], product: str | None) -> None:
    """Index STAC Items: JSON files of an Item or an ItemCollection, or folders of them."""
    from odc_openeo.indexing.index import IndexingError
    from odc_openeo.indexing.stac import index_stac

    try:
        done = index_stac(paths, product)
    except IndexingError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{len(done.added)} added, {len(done.updated)} updated, {len(done.unchanged)} unchanged")


@cli.group()
def user() -> None:
    """Manage users: add, list, enable, disable, set roles and passwords."""


@user.command("add")
@click.argument("name")
@click.option("--role", "roles", multiple=True, type=ROLE, help="A role of the user; may be repeated.")
@PASSWORD_STDIN
def user_add(name: str, roles: tuple[str, ...], password_stdin: bool) -> None:
    """Create the user NAME, who signs in with a password; prompts for the password."""
    from odc_openeo.users import accounts

    accounts.create_user(load_settings(), name, _read_password(password_stdin), roles)
    click.echo(f"Created user {name}")


@user.command("password")
@click.argument("who", metavar="NAME")
@PASSWORD_STDIN
def user_password(who: str, password_stdin: bool) -> None:
    """Change the password of the user NAME; prompts for it. Ends all their sessions."""
    from odc_openeo.users import accounts

    account = accounts.set_password(load_settings(), who, _read_password(password_stdin))
    click.echo(f"Changed the password of user {account.name}")


def _read_password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))


@user.command("list")
def user_list() -> None:
    """List all users: id, name, roles, state, and the issuer if they come from a provider."""
    from odc_openeo.users import accounts

    for account in accounts.list_users(load_settings()):
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

    account = accounts.disable_user(load_settings(), who, disabled=disabled)
    click.echo(f"{'Disabled' if disabled else 'Enabled'} user {account.name}")


@user.command("revoke")
@click.argument("who", metavar="NAME_OR_ID")
def user_revoke(who: str) -> None:
    """End all sessions of a user, who may sign in again. A provider's own tokens stay valid."""
    from odc_openeo.users import accounts

    account, count = accounts.end_sessions(load_settings(), who)
    click.echo(f"Ended {count} sessions of user {account.name}")


@user.command("roles")
@click.argument("who", metavar="NAME_OR_ID")
@click.option("--role", "roles", multiple=True, type=ROLE, help="A role; may be repeated.")
def user_roles(who: str, roles: tuple[str, ...]) -> None:
    """Set a user's roles to exactly those given; none without --role. Roles from a provider's claims stay."""
    from odc_openeo.users import accounts

    account = accounts.set_roles(load_settings(), who, roles)
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
def doctor() -> None:
    """List all settings, check database, index, dask and storage, and suggest fixes."""
    from rich.console import Console

    from odc_openeo.stack.doctor import print_report

    wide = None if sys.stdout.isatty() else 160
    if not print_report(load_settings(), Console(width=wide)):
        sys.exit(1)


@cli.command()
def version() -> None:
    """Print the version."""
    click.echo(__version__)


def main() -> None:
    """Entry point: print known errors as one line, without a traceback."""
    try:
        cli(prog_name="odc-openeo")
    except (OpenEOError, ValueError, RuntimeError) as error:
        print_message(f"Error: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        print_message("Stopped")
        sys.exit(130)


if __name__ == "__main__":
    main()
