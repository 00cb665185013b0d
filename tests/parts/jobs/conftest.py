"""One service for all tests of a module: its scenes are written once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from odc_openeo import db
from odc_openeo.config import Config
from odc_openeo.users import accounts
from tests.catalog.scenes import Index
from tests.conftest import CopyDatabase
from tests.parts.jobs.site import PART_BYTES, PartsSite, Worker, add_scenes
from tests.support.index_drivers import index_environment


@pytest.fixture(scope="module")
def parts_site(
    copy_database: CopyDatabase, _templates: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PartsSite]:
    """A service with scenes and a user."""
    folder = tmp_path_factory.mktemp("parts")
    with copy_database(_templates["odc"]) as url, pytest.MonkeyPatch.context() as patch:
        for name, value in index_environment(url).items():
            patch.setenv(name, value)
        index = Index()
        add_scenes(index, folder / "scenes")
        config = Config(
            database_url=url,
            data_dir=folder / "data",
            part_bytes=PART_BYTES,
            job_lost_after_s=4,
            part_repeats=100,
        )
        user = accounts.create_user(config, "ada", "correct horse").id
        yield PartsSite(config, user, folder, index_environment(url))
        db.dispose_engine(config)
        index.datacube.close()


@pytest.fixture(scope="module")
def parts_worker(parts_site: PartsSite) -> Iterator[Worker]:
    """A worker without a cluster."""
    worker = parts_site.start_worker("--parts")
    yield worker
    worker.kill()
