"""The two lanes of runners: for results, which may take minutes, and for what people look at meanwhile."""

from __future__ import annotations

import contextlib
from typing import Final

from odc_openeo import cluster, db
from odc_openeo.config import Config
from odc_openeo.errors import OpenEOError
from odc_openeo.evaluation.catalogs import shared_catalog
from odc_openeo.runners import Lane

PRELOAD: Final = ("odc_openeo.evaluation.preload",)
"""All that tasks need, imported once for all runners."""

RESULTS_NICENESS: Final = 5
"""So that a machine busy with results still answers everything else quickly."""


def result_lane(config: Config) -> Lane:
    """The lane of ``POST /result``."""
    return Lane(
        "results",
        runners=config.runners,
        per_user=config.runs_per_user,
        waiting=config.gunicorn_threads // 3 + 1,
        waiting_per_user=max(config.gunicorn_threads // 3, config.runs_per_user),
        niceness=RESULTS_NICENESS,
        warm=min(2, config.runners),
        preload=PRELOAD,
        warm_up=open_connections,
    )


def view_lane(config: Config) -> Lane:
    """The lane of map tiles, previews, estimates and validation."""
    runners = config.runners // 2 + 1
    return Lane(
        "views",
        runners=runners,
        per_user=min(config.runs_per_user, max(runners - 1, 1)),
        waiting=config.gunicorn_threads // 3 + 1,
        waiting_per_user=max(config.gunicorn_threads // 3, config.runs_per_user),
        warm=1,
        preload=PRELOAD,
        warm_up=open_connections,
    )


def open_connections(config: Config) -> None:
    """Connect to index, database and dask before the first task needs them."""
    # What is not there now may be there when a task needs it.
    with contextlib.suppress(OpenEOError):
        shared_catalog(config).state()
    with contextlib.suppress(OpenEOError), db.reading(config):
        pass
    with contextlib.suppress(OpenEOError):
        cluster.connect(config)
