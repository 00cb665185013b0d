"""The command ``odc-openeo secrets``: files of secrets for containers."""

from __future__ import annotations

from pathlib import Path

import click

DATABASE_URL = "postgresql+psycopg2://odc@postgres:5432/odc"


@click.command("secrets")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--database-url", default=DATABASE_URL, show_default=True, help="The URL without a password.")
@click.option(
    "--signing-key",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file with the key that signed URLs so far, to be taken over if it exists.",
)
@click.option("--renew-password", is_flag=True, help="Replace the password of the database.")
def make_secrets(folder: Path, database_url: str, signing_key: Path | None, renew_password: bool) -> None:
    """Make the secrets of the service as files in FOLDER: docs/compose.md. Those that are there stay."""
    from odc_openeo.stack import secret_files

    names = secret_files.make_secrets(
        folder, database_url, signing_key=signing_key, renew_password=renew_password
    )
    for name in names:
        click.echo(f"made {folder / name}")
    if not names:
        click.echo(f"{folder} has all secrets")
