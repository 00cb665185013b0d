from __future__ import annotations

import numpy as np
import pytest

from odc_openeo.storage import storage_at
from odc_openeo.storage.zarr_stores import open_zarr_store
from tests.formats.test_zarr_regions import make_cube, read_cube, write_in_any_order


def test_regions_are_written_in_a_bucket(environment):
    store = open_zarr_store(storage_at("s3://data/results", {}), "job/result.zarr")
    cube = make_cube(dates=1, bands=1)
    write_in_any_order(store, cube)
    np.testing.assert_array_equal(read_cube(store), cube.values)


def test_stores_in_folders_stay_in_their_tree(tmp_path):
    storage = storage_at(str(tmp_path), {})
    assert open_zarr_store(storage, "job/result.zarr").root == tmp_path / "job" / "result.zarr"
    for key in ("../result.zarr", "/etc/result.zarr", "job/../../result.zarr"):
        with pytest.raises(ValueError, match="not a key"):
            open_zarr_store(storage, key)
