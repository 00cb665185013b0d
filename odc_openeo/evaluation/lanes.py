"""The two lanes of runners: for results, which may take minutes, and for what people look at meanwhile."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from typing import Final

from odc_openeo import db
from odc_openeo.catalog.shared_catalog import shared_catalog
from odc_openeo.compute import cluster
from odc_openeo.config import Config, allowed_gdal_drivers
from odc_openeo.runners import Lane
from odc_openeo.untrusted.gdal_drivers import secure_gdal

PRELOAD: Final = ("odc_openeo.evaluation.preload",)
"""All that tasks need, imported once for all runners."""

RESULTS_NICENESS: Final = 5
"""So that a machine busy with results still answers everything else quickly."""


def result_lane(config: Config) -> Lane:
    """The lane of ``POST /result``."""
    lane = _make_lane(config, "results", config.runners, config.runs_per_user)
    return replace(lane, niceness=RESULTS_NICENESS, warm=min(2, config.runners))


def view_lane(config: Config) -> Lane:
    """The lane of map tiles, previews, estimates, explanations and validation."""
    runners = config.runners // 2 + 1
    return _make_lane(config, "views", runners, min(config.runs_per_user, max(runners - 1, 1)))


def _make_lane(config: Config, name: str, runners: int, per_user: int) -> Lane:
    return Lane(
        name,
        runners,
        per_user,
        waiting=max(config.gunicorn_threads // 3, config.runs_per_user),
        waiting_per_user=max(config.gunicorn_threads // 6, config.runs_per_user),
        preload=PRELOAD,
        prepare=prepare_runner,
    )


def prepare_runner(config: Config) -> None:
    """Check that GDAL is closed, and connect to what tasks may need while the first of them is on its way.

    Raises:
        GdalIsOpenError: GDAL could open what it must not.
    """
    secure_gdal(allowed_gdal_drivers())
    threading.Thread(target=open_connections, args=[config], daemon=True).start()


def open_connections(config: Config) -> None:
    """Connect to index, database and dask; what is not there now may be there when a task needs it."""
    with contextlib.suppress(Exception):
        shared_catalog(config).get_state()
    with contextlib.suppress(Exception), db.autocommit_session(config):
        pass
    with contextlib.suppress(Exception):
        cluster.connect(config)
