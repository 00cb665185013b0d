"""The command ``odc-openeo index tune``: an index of the database that searches of many datasets need."""

from __future__ import annotations

from collections.abc import Callable

import click

from odc_openeo.config import Config


def make_tune_command(load_config: Callable[[], Config]) -> click.Command:
    """Make the command ``tune`` of the group ``index``."""

    @click.command("tune")
    @click.option("--drop", is_flag=True, help="Drop it.")
    def tune_index(drop: bool) -> None:
        """Add the database index that searches of many datasets need (index driver postgis).

        It is made while others use the database, in some minutes for a million datasets, by the user of the
        settings, who must own the tables of the index of Open Data Cube.
        """
        from odc_openeo.catalog import search_index
        from odc_openeo.catalog.odc_environment import read_environment

        environment = read_environment(load_config())
        if environment.driver != "postgis":
            raise click.ClickException(
                f"the index driver is {environment.driver}: Open Data Cube makes such indexes itself"
            )
        engine = environment.create_engine()
        try:
            if drop:
                search_index.drop_index(engine)
            else:
                search_index.create_index(engine)
        except search_index.TuningError as error:
            raise click.ClickException(str(error)) from error
        finally:
            engine.dispose()
        click.echo(f"index odc.{search_index.NAME} is {'dropped' if drop else 'there'}")

    return tune_index
