"""The commands ``odc-openeo index stac`` and ``odc-openeo export items``: STAC Items in and out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from odc_openeo.config import Config

PARQUET: Final = (".parquet", ".geoparquet")
LoadConfig = Callable[[], Config]


def make_index_command(load_config: LoadConfig) -> click.Command:
    """Make the command ``stac`` of the group ``index``."""

    @click.command("stac")
    @click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
    @click.option("--product", help="The product to add to.  [default: each Item's collection]")
    @click.option(
        "--processes",
        type=click.IntRange(1, 64),
        default=2,
        show_default=True,
        help="Processes that index a Parquet file.",
    )
    @click.option(
        "--allow-folder",
        "folders",
        multiple=True,
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        help="Items in a Parquet file may have local files in this folder. May be repeated.",
    )
    def index_stac(
        paths: tuple[Path, ...], product: str | None, processes: int, folders: tuple[Path, ...]
    ) -> None:
        """Index STAC Items: JSON files of an Item or an ItemCollection, folders of them, or stac-geoparquet.

        Items in Parquet files (.parquet) are added in bulk; those that are indexed already stay as they are,
        so that the command can be repeated after an interruption. Bad rows are named; the others are added.
        """
        from odc_openeo.indexing.index import IndexingError
        from odc_openeo.indexing.stac import index_stac

        load_config()
        tables = [path for path in paths if path.suffix.lower() in PARQUET]
        try:
            if len(tables) < len(paths):
                done = index_stac([path for path in paths if path not in tables], product)
                counts = (len(done.added), len(done.updated), len(done.unchanged))
                click.echo("{} added, {} updated, {} unchanged".format(*counts))
            bad = sum([_index_table(path, product, processes, folders) for path in tables])
        except IndexingError as error:
            raise click.ClickException(str(error)) from error
        if bad:
            raise click.ClickException(f"{bad} rows could not be indexed")

    return index_stac


def _index_table(path: Path, product: str | None, processes: int, folders: tuple[Path, ...]) -> int:
    """Index a Parquet file and say what was done; return the number of bad rows."""
    from odc_openeo.indexing.bulk import BulkRequest, BulkResult, index_parquet

    result, reported = BulkResult(), 0
    for result in index_parquet(BulkRequest(path, product, folders), processes):
        count = result.added + result.present + result.bad
        if count // 10_000 > reported // 10_000:
            click.echo(f"{path}: {count} rows", err=True)
        reported = count
    for problem in result.problems:
        click.echo(f"{path}: {problem}", err=True)
    if result.bad > len(result.problems):
        click.echo(f"{path}: and {result.bad - len(result.problems)} more", err=True)
    click.echo(f"{path}: {result.added} added, {result.present} unchanged, {result.bad} bad rows")
    return result.bad


def make_export_group(load_config: LoadConfig, data_dir: Callable[[Any], Any]) -> click.Group:
    """Make the group of commands ``export``."""

    @click.group("export")
    @data_dir
    def export_group() -> None:
        """Write what the index holds to files."""

    @export_group.command("items")
    @click.argument("collection")
    @click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
    @click.option("--url", default="", help="Address of this service, with which links to Items begin.")
    def export_items(collection: str, file: Path, url: str) -> None:
        """Write the STAC Items of a COLLECTION to a stac-geoparquet FILE, with the URLs of the index."""
        from odc_openeo.catalog import Catalog
        from odc_openeo.catalog.items_parquet import export_collection
        from odc_openeo.errors import OpenEOError

        try:
            count, skipped = export_collection(Catalog(load_config()), collection, file, url.rstrip("/"))
        except OpenEOError as error:
            raise click.ClickException(error.message) from error
        except OSError as error:
            raise click.ClickException(f"cannot write {file}: {error.strerror}") from error
        without = f", {skipped} without a geometry left out" if skipped else ""
        click.echo(f"{file}: {count} items{without}")

    return export_group
