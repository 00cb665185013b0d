"""A service of its own for storms and benchmarks: PostgreSQL, index, scenes, a user."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from odc_openeo import db
from odc_openeo.config import Config
from odc_openeo.db import migrate
from odc_openeo.stack import postgres
from odc_openeo.users import accounts
from tests.catalog.scenes import Index
from tests.parts.jobs.site import PART_BYTES, PartsSite, add_scenes
from tests.support.index_drivers import index_environment, init_test_index


@contextmanager
def open_site(folder: Path, shape: tuple[int, int], **settings: Any) -> Iterator[PartsSite]:
    """Start a server in a folder, and make scenes of that many rows and columns."""
    log = folder / "postgresql.log"
    previous: dict[str, str | None] = {}
    server = postgres.start_server(folder / "server" / "pg", log)
    try:
        url = server.create_database("parts")
        environment = index_environment(url)
        previous = {name: os.environ.get(name) for name in environment}
        os.environ.update(environment)
        values = {"data_dir": folder / "data", "part_bytes": PART_BYTES, "part_repeats": 10_000}
        config = Config(database_url=url, **{**values, **settings})
        migrate.upgrade(config)
        init_test_index(url)
        index = Index()
        add_scenes(index, folder / "scenes", shape)
        index.datacube.close()
        user = accounts.create_user(config, "ada", "correct horse").id
        site = PartsSite(config, user, folder, environment, shape, [server])
        yield site
        db.dispose_engine(config)
        server = site.servers[-1]
    finally:
        for name, value in previous.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        server.stop(10)
