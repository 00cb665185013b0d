"""The command ``odc-openeo``. Each command imports what it needs, so that ``--help`` comes at once."""

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

FOLDER = click.Path(file_okay=False, path_type=Path)
ROLE = click.Choice(ROLES)
# A password on the command line could be seen by every user of the machine.
PASSWORD_STDIN = click.option(
    "--password-stdin", is_flag=True, help="Read the password from the standard input."
)


def settings(**options: Any) -> Config:
    """The configuration: options given on the command line win over ``ODC_OPENEO_*``."""
    try:
        return Config(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        lines = [f"{_where(each['loc'])}{each['msg']}" for each in error.errors()]
        raise click.ClickException("\n".join(lines)) from error


def _where(location: tuple[int | str, ...]) -> str:
    return f"{PREFIX}{'.'.join(map(str, location)).upper()}: " if location else ""


def say(text: str) -> None:
    """Print a line at once, errors to the standard error."""
    click.echo(text, err=text.startswith("Error"))


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="odc-openeo")
def cli() -> None:
    """An openEO back-end on the Open Data Cube. `odc-openeo doctor` lists all settings."""


@cli.command()
@click.option("--data-dir", type=FOLDER, help="Folder of everything the stack keeps.")
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on.  [default: 8080]")
@click.option("--no-samples", is_flag=True, help="Index no sample scenes.")
@click.option("--workers", type=int, help="Worker processes of the dask cluster.  [default: 2]")
def up(no_samples: bool, **options: Any) -> None:
    """Run the whole stack on this machine: PostgreSQL, dask, HTTP server, sample scenes."""
    from odc_openeo import embedded

    sys.exit(embedded.up(settings(**options), samples=not no_samples, say=say))


@cli.command()
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on.  [default: 8080]")
def serve(**options: Any) -> None:
    """Serve HTTP with the configured database, Open Data Cube and dask scheduler."""
    from odc_openeo import embedded, oidc

    config = settings(**options)
    _need_database(config)
    oidc.listing(config)
    command = embedded.gunicorn_command(config)
    os.execve(command[0], command, child_environment(config))


@cli.command()
def worker() -> None:
    """Run batch jobs, one after the other, until stopped; start as many as jobs shall run at once."""
    import logging
    import signal
    import threading

    from odc_openeo.gdal_drivers import secure_gdal
    from odc_openeo.worker import work

    config = settings()
    _need_database(config)
    secure_gdal(allowed_gdal_drivers())
    level = config.log_level.upper()
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    work(config, stop)


@cli.command("dask-worker", context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="ADDRESS [OPTIONS OF `dask worker`]...")
def dask_worker(options: tuple[str, ...]) -> None:
    """Run a dask worker that reads quickly and safely: environment, GDAL and threads are set for it.

    ADDRESS is that of the scheduler, such as tcp://scheduler:8786. The options, --help among them, are those
    of `dask worker`.
    """
    from odc_openeo.cluster import WORKER_ENVIRONMENT
    from odc_openeo.dask_worker import dask_worker_command

    command = dask_worker_command(options)
    os.execve(command[0], command, child_environment(None, **WORKER_ENVIRONMENT))


def _need_database(config: Config) -> None:
    if config.database_url is None:
        raise click.ClickException(
            f"set {PREFIX}DATABASE_URL to your PostgreSQL; without one, `odc-openeo up` brings its own"
        )


@cli.command()
def migrate() -> None:
    """Make our tables, or bring them up to date."""
    from odc_openeo import migrations

    config = settings()
    _need_database(config)
    migrations.upgrade(config)
    click.echo("Our tables are up to date")


@cli.group()
def index() -> None:
    """Put products, sample scenes and STAC Items into the Open Data Cube index."""


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
@click.option("--folder", type=FOLDER, help="Where the scenes are written.  [default: data_dir/samples]")
def index_samples(folder: Path | None) -> None:
    """Make the sample scenes and index them; those that are there already are left alone."""
    from odc_openeo.indexing.index import IndexingError, index_samples

    try:
        sets = index_samples(folder or settings().data_dir / "samples")
    except IndexingError as error:
        raise click.ClickException(str(error)) from error
    for each in sets:
        click.echo(f"{each.product}: {len(each.documents)} datasets")


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
    """Users: add those with a password, list all, look after their roles and who may come in."""


@user.command("add")
@click.argument("name")
@click.option("--role", "roles", multiple=True, type=ROLE, help="A role of the user; may be repeated.")
@PASSWORD_STDIN
def user_add(name: str, roles: tuple[str, ...], password_stdin: bool) -> None:
    """Make the user NAME, who signs in with a password; asks for it."""
    from odc_openeo import accounts

    accounts.create_user(settings(), name, _password(password_stdin), roles)
    click.echo(f"Made user {name}")


@user.command("password")
@click.argument("who", metavar="NAME")
@PASSWORD_STDIN
def user_password(who: str, password_stdin: bool) -> None:
    """Change the password of the user NAME; asks for it. Ends all their sessions."""
    from odc_openeo import accounts

    account = accounts.set_password(settings(), who, _password(password_stdin))
    click.echo(f"Changed the password of user {account.name}")


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))


@user.command("list")
def user_list() -> None:
    """List all users: id, name, roles, state, and the issuer of those from a provider."""
    from odc_openeo import accounts

    for account in accounts.list_users(settings()):
        state = "disabled" if account.disabled else "active"
        row = (str(account.id), account.name, ",".join(account.roles), state, account.issuer or "")
        click.echo("\t".join(row))


@user.command("disable")
@click.argument("who", metavar="NAME_OR_ID")
@click.option("--undo", is_flag=True, help="Let the user in again, as `enable` does.")
def user_disable(who: str, undo: bool) -> None:
    """Lock a user out at once, with all their tokens."""
    _set_disabled(who, not undo)


@user.command("enable")
@click.argument("who", metavar="NAME_OR_ID")
def user_enable(who: str) -> None:
    """Let a user in again who was disabled."""
    _set_disabled(who, False)


def _set_disabled(who: str, disabled: bool) -> None:
    from odc_openeo import accounts

    account = accounts.disable_user(settings(), who, disabled=disabled)
    click.echo(f"{'Disabled' if disabled else 'Enabled'} user {account.name}")


@user.command("revoke")
@click.argument("who", metavar="NAME_OR_ID")
def user_revoke(who: str) -> None:
    """End all sessions of a user, who may sign in again. Tokens of a provider are for the provider to end."""
    from odc_openeo import accounts

    account, count = accounts.end_sessions(settings(), who)
    click.echo(f"Ended {count} sessions of user {account.name}")


@user.command("roles")
@click.argument("who", metavar="NAME_OR_ID")
@click.option("--role", "roles", multiple=True, type=ROLE, help="A role; may be repeated.")
def user_roles(who: str, roles: tuple[str, ...]) -> None:
    """Give a user exactly the roles named, none without --role. Those by a provider's claims stay."""
    from odc_openeo import accounts

    account = accounts.set_roles(settings(), who, roles)
    click.echo(f"Roles of user {account.name}: {', '.join(account.roles) or 'none'}")


@cli.command()
@click.option(
    "--output", type=FOLDER, default="demo-output", show_default=True, help="Folder of the results."
)
@click.option("--url", help="Use a running service instead of starting one.")
def demo(output: Path, url: str | None) -> None:
    """Start the stack, compute a composite and a time series with the openEO client, stop the stack."""
    from rich.console import Console

    from odc_openeo import embedded
    from odc_openeo.demo import run_demo

    console = Console()
    if url is not None:
        run_demo(url, output, DEMO_USER, DEMO_USER, console)
        return

    def tell(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    with tempfile.TemporaryDirectory(prefix="odc-openeo-demo-") as folder, embedded.stop_signals():
        config = settings(data_dir=folder, host="127.0.0.1", port=embedded.free_port(), demo_user=True)
        tell("Starting PostgreSQL, dask and the HTTP server")
        with embedded.Stack(config, say=tell) as stack:
            tell(f"The service runs at {stack.url}")
            run_demo(stack.url, output, DEMO_USER, DEMO_USER, console)
        tell("Stopped everything that was started")


@cli.command()
def doctor() -> None:
    """List all settings, check database, index, dask and storage, and say what to mend."""
    from rich.console import Console

    from odc_openeo.doctor import report

    wide = None if sys.stdout.isatty() else 160
    if not report(settings(), Console(width=wide)):
        sys.exit(1)


@cli.command()
def version() -> None:
    """Print the version."""
    click.echo(__version__)


def main() -> None:
    """Entry point: known errors as one line, without a traceback."""
    try:
        cli(prog_name="odc-openeo")
    except (OpenEOError, ValueError, RuntimeError) as error:
        say(f"Error: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        say("Stopped")
        sys.exit(130)


if __name__ == "__main__":
    main()
