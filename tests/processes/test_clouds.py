"""Clouds by s2cloudless, against the package itself."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from s2cloudless import S2PixelCloudDetector

from odc_openeo.errors import LabelNotAvailable, ProcessParameterInvalid
from odc_openeo.processes.clouds import S2CLOUDLESS_BANDS, cloud_detection

GRID = GeoBox.from_bbox((500000, 5000000, 500120, 5000080), crs="EPSG:32632", resolution=10)


def images() -> xr.DataArray:
    """Two dates of bright and dark pixels, one of them without data; a band that isn't wanted comes first."""
    random = np.random.default_rng(1)
    bands = ["B03", *S2CLOUDLESS_BANDS]
    bright = random.random((2, 1, *GRID.shape)) < 0.4
    values = np.where(bright, 0.7, 0.08) * random.uniform(0.7, 1.2, (2, len(bands), *GRID.shape))
    values[0, 4, 3, 5] = np.nan
    times = np.array(["2022-06-01", "2022-06-11"], "datetime64[ns]")
    coords = {"t": times, "bands": bands, **xr_coords(GRID, dims=("y", "x"))}
    return xr.DataArray(values, dims=("t", "bands", "y", "x"), coords=coords)


def test_probabilities_equal_the_package_per_chunk() -> None:
    data = images()
    lazy = cloud_detection(data.chunk({"t": 1, "bands": 3, "y": 5}), "s2cloudless")
    assert lazy.chunks is not None
    assert lazy.dims == data.dims
    assert lazy.bands.values.tolist() == ["cloud"]
    image = np.nan_to_num(data.sel(bands=list(S2CLOUDLESS_BANDS)).transpose("t", "y", "x", "bands").values)
    expected = S2PixelCloudDetector().get_cloud_probability_maps(image)
    expected[0, 3, 5] = np.nan
    np.testing.assert_allclose(lazy.compute().sel(bands="cloud").values, expected, atol=1e-6)
    np.testing.assert_array_equal(cloud_detection(data, None).values, lazy.values)
    assert 0.2 < np.nanmean(expected) < 0.8
    assert lazy.odc.crs == data.odc.crs


def test_other_spellings_of_bands() -> None:
    data = images()
    renamed = data.assign_coords(bands=[b.replace("B0", "B") for b in data.bands.values])
    np.testing.assert_array_equal(cloud_detection(renamed, None).values, cloud_detection(data, None).values)


def test_errors_say_what_to_change() -> None:
    data = images()
    with pytest.raises(LabelNotAvailable, match="B10"):
        cloud_detection(data.drop_sel(bands="B10"), None)
    with pytest.raises(ProcessParameterInvalid, match="scale and offset"):
        cloud_detection((data * 1e4).fillna(0).astype("uint16"), None)
    with pytest.raises(ProcessParameterInvalid, match="scale and offset"):
        cloud_detection((data * 1e4).chunk(), None).compute()
    with pytest.raises(ProcessParameterInvalid, match="Fmask"):
        cloud_detection(data, "Fmask")
