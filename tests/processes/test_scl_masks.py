"""Masks of scene classifications, against SciPy's own convolution of whole images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import xarray as xr
from scipy.signal.windows import gaussian

from odc_openeo.errors import LabelNotAvailable, ProcessParameterInvalid
from odc_openeo.graph import evaluate
from odc_openeo.processes.scl_masks import mask_scl_dilation, to_scl_dilation_mask
from odc_openeo.registry.demand import Demand
from odc_openeo.registry.process import PROCESSES
from tests.processes.rasters import grid, nothing_computes, raster
from tests.support.graphs import value


def classification(seed: int = 2) -> np.ndarray:
    """Vegetation and water with some clouds, shadows, single bright pixels and a strip without data."""
    random = np.random.default_rng(seed)
    classes = random.choice([4, 6], (2, 150, 190)).astype("uint8")
    for class_, row, column in ((9, 20, 30), (3, 100, 150), (8, 149, 0), (10, 60, 189)):
        classes[0, row - 3 : row + 4, max(column - 4, 0) : column + 4] = class_
    classes[1, 75, 90] = 11
    classes[0, 120, 40] = 1
    classes[:, :, 100] = np.where(np.arange(150) < 20, 0, classes[:, :, 100])
    return classes


def dilate(marked: np.ndarray, size: int, threshold: float) -> np.ndarray:
    if size <= 1:
        return marked
    kernel = np.outer(*[gaussian(size, std=size / 6)] * 2)
    return scipy.signal.convolve2d(marked, kernel / kernel.sum(), mode="same") > threshold


def expected_mask(
    classes: np.ndarray, first: int, second: int, erosion: int, clear: Any, cloudy: Any
) -> np.ndarray:
    near = ~np.isin(classes, clear)
    if erosion > 1:
        near = scipy.ndimage.binary_erosion(near, np.ones((erosion, erosion)), border_value=1)
    return dilate(near, first, 0.057) | dilate(np.isin(classes, cloudy), second, 0.025)


@pytest.mark.parametrize("chunks", [None, {"t": 1, "y": 60, "x": 47}])
@pytest.mark.parametrize(("first", "second", "erosion"), [(17, 77, 3), (5, 0, 1), (0, 21, 0), (9, 31, 5)])
def test_masks_equal_those_of_whole_images(chunks: Any, first: int, second: int, erosion: int) -> None:
    classes = classification()
    data = raster(classes, grid(150, 190), chunks, nodata=0)
    with nothing_computes():
        result = to_scl_dilation_mask(
            data, erosion, kernel1_size=first, kernel2_size=second, scl_band_name="SCL"
        )
    assert result.dtype == bool
    assert result.odc.geobox == data.odc.geobox
    values = (first, second, erosion, [2, 4, 5, 6, 7], [3, 8, 9, 10, 11])
    expected = np.stack([expected_mask(image, *values) for image in classes])
    np.testing.assert_array_equal(result.values, expected)
    assert 0 < result.values.mean() < 1


def test_other_classes_and_types() -> None:
    classes = classification().astype("float32")
    classes[0, 5, 5] = np.nan
    data = raster(classes, grid(150, 190), {"y": 70})
    result = to_scl_dilation_mask(data, 1, [1, 3, 4, 6, 8, 9, 10, 11], [9], 1, 5)
    expected = np.stack(
        [expected_mask(i, 1, 5, 1, [1, 3, 4, 6, 8, 9, 10, 11], [9]) for i in classification()]
    )
    expected[0, 5, 5] = True
    np.testing.assert_array_equal(result.values, expected)


def test_the_mask_of_one_band_masks_all_bands() -> None:
    classes = classification()
    scl = raster(classes[:, None], grid(150, 190), {"y": 50}, nodata=0).assign_coords(bands=["SCL"])
    pixels = np.random.default_rng(0).integers(1, 99, (2, 2, 150, 190)).astype("uint16")
    data = raster(pixels, grid(150, 190), {"y": 50}, nodata=0)
    graph = {
        "scl": {
            "process_id": "to_scl_dilation_mask",
            "arguments": {
                "data": value("scl"),
                "kernel1_size": 17,
                "kernel2_size": 77,
                "mask1_values": [2, 4, 5, 6, 7],
                "mask2_values": [3, 8, 9, 10, 11],
                "erosion_kernel_size": 3,
            },
        },
        "masked": {
            "process_id": "mask",
            "arguments": {"data": value("data"), "mask": {"from_node": "scl"}},
            "result": True,
        },
    }
    with nothing_computes():
        result = evaluate({"process_graph": graph}, parameters={"scl": scl, "data": data})
    marked = to_scl_dilation_mask(raster(classes, grid(150, 190))).values[:, None]
    np.testing.assert_array_equal(result.values, np.where(marked, 0, pixels))
    joined = xr.concat([data, scl.astype("uint16")], "bands", coords="different", compat="equals")
    both = mask_scl_dilation(joined.assign_attrs(nodata=0))
    np.testing.assert_array_equal(both.sel(bands=["B01", "B02"]).values, result.values)
    np.testing.assert_array_equal(both.sel(bands="SCL").values, np.where(marked[:, 0], 0, classes))


@pytest.mark.parametrize("process_id", ["to_scl_dilation_mask", "mask_scl_dilation"])
def test_masks_need_the_pixels_around(process_id: str) -> None:
    """Clouds beside the area of the result count, so that it does not depend on the area."""
    needs = PROCESSES[process_id].needs
    assert needs is not None
    assert needs(Demand(bands=("B04",)), {})["data"].margin == 38
    assert needs(Demand(), {"kernel1_size": 101, "kernel2_size": 5})["data"].margin == 51
    bands = needs(Demand(bands=("B04",)), {})["data"].bands
    assert bands == (("SCL",) if process_id == "to_scl_dilation_mask" else None)


def test_what_is_no_scene_classification() -> None:
    data = raster(np.ones((1, 2, 5, 5), "uint8"), grid(5, 5))
    with pytest.raises(LabelNotAvailable, match="B01, B02"):
        to_scl_dilation_mask(data)
    assert to_scl_dilation_mask(data, scl_band_name="common1").bands.values.tolist() == ["B01"]
    with pytest.raises(ProcessParameterInvalid, match="odd"):
        to_scl_dilation_mask(data, kernel1_size=4, scl_band_name="B01")
    with pytest.raises(ProcessParameterInvalid, match="kernel2_size"):
        to_scl_dilation_mask(data, kernel2_size=100_001, scl_band_name="B01")
    empty = to_scl_dilation_mask(data.isel(x=[]), scl_band_name="B01")
    assert empty.sizes["x"] == 0
