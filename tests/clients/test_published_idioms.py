"""Process graphs as people publish them: valid without an error, and right values, computed from the files.

Each idiom is written with the Python client. It is validated first, then run; the result is compared with
numpy on the files of the sample scenes.
"""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import openeo
import pandas as pd
import pytest
import rasterio
import xarray as xr
from openeo import processes as p
from PIL import Image
from rasterio.features import geometry_mask
from rasterio.transform import from_origin
from rasterio.warp import transform_geom
from scipy.ndimage import correlate

from odc_openeo.indexing.samples import CLIMATE_PRODUCT, DEM_PRODUCT, LANDSAT_PRODUCT, S2_PRODUCT
from tests.clients import truth
from tests.processes.test_scl_masks import expected_mask
from tests.support.netcdf import load_raw

BOX = (679720.0, 5151080.0, 680680.0, 5151920.0)
FINE_SHAPE = (84, 96)
JUNE = ["2022-06-01", "2022-07-01"]
SUMMER = ["2022-06-01", "2022-09-01"]
CLIMATE_BOX = (10.0, 45.0, 10.5, 45.5)
DEM_BOX = (11.32, 46.48, 11.38, 46.51)
LANDSAT_BOX = (679785.0, 5151075.0, 680685.0, 5151915.0)
BOXES = {
    S2_PRODUCT: (BOX, "EPSG:32632"),
    CLIMATE_PRODUCT: (CLIMATE_BOX, "EPSG:4326"),
    DEM_PRODUCT: (DEM_BOX, "EPSG:4326"),
    LANDSAT_PRODUCT: (LANDSAT_BOX, "EPSG:32632"),
}
CLOUDY = (3, 8, 9, 10)
DILATION = {"kernel1_size": 3, "kernel2_size": 7, "erosion_kernel_size": 3}

Expected = np.ndarray | Callable[[Path], None]
Built = tuple[openeo.DataCube, str, Expected]


@dataclass(frozen=True)
class Sample:
    """The sample collections twice: as cubes of the client, and as pixels read from the files."""

    connection: openeo.Connection
    folder: Path

    def load(
        self, product: str, bands: list[str] | None = None, time: list[str] = JUNE, **more: Any
    ) -> openeo.DataCube:
        """The cube of the box of a collection."""
        box, crs = BOXES[product]
        extent = {**dict(zip(("west", "south", "east", "north"), box, strict=True)), "crs": crs}
        when = None if product == DEM_PRODUCT else time
        return self.connection.load_collection(product, extent, when, bands, **more)

    def s2(self, *bands: str, time: list[str] = JUNE) -> openeo.DataCube:
        return self.load(S2_PRODUCT, list(bands), time)

    def scenes(self, product: str, time: list[str] = JUNE) -> list[truth.Scene]:
        scenes = truth.scenes(self.folder / product, *time)
        if product != S2_PRODUCT:
            return scenes
        return [s for s in scenes if s.epsg == 32632 and "TPS" in str(s.properties["odc:region_code"])]

    def times(self, product: str = S2_PRODUCT, time: list[str] = JUNE) -> list[datetime]:
        return [scene.time for scene in self.scenes(product, time)]

    def pixels(
        self, band: str, product: str = S2_PRODUCT, time: list[str] = JUNE, *, finer: bool = True
    ) -> np.ndarray:
        """The values of a band (time, y, x), NaN where there is no data, on the 10 m grid for Sentinel-2."""
        values = truth.series(self.scenes(product, time), band, BOXES[product][0])
        is_coarse = finer and product == S2_PRODUCT and values.shape[1:] != FINE_SHAPE
        return truth.finer(values) if is_coarse else values

    def clouds(self, time: list[str] = JUNE) -> np.ndarray:
        return np.isin(self.pixels("SCL", time=time), CLOUDY)

    def ndvi(self, time: list[str] = JUNE) -> np.ndarray:
        red, nir = self.pixels("B04", time=time), self.pixels("B08", time=time)
        return (nir - red) / (nir + red)

    @cached_property
    def elevation(self) -> np.ndarray:
        (scene,) = truth.scenes(self.folder / DEM_PRODUCT, "2000", "2100")
        return truth.pixels(scene, "elevation", DEM_BOX)


IDIOMS: dict[str, Callable[[Sample], Built]] = {}


def idiom(build: Callable[[Sample], Built]) -> Callable[[Sample], Built]:
    """Add an idiom to the table: a cube, its format, and the pixels of the result or a check of the file."""
    IDIOMS[build.__name__] = build
    return build


@pytest.fixture(scope="module")
def sample(connection: openeo.Connection, samples: Path) -> Sample:
    return Sample(connection, samples)


@pytest.mark.parametrize("name", IDIOMS)
def test_published_idiom(sample: Sample, tmp_path: Path, name: str) -> None:
    cube, format_, expected = IDIOMS[name](sample)
    assert cube.save_result(format_).validate() == []
    path = tmp_path / "result"
    cube.download(path, format=format_)
    check_result(path, expected)


def check_result(path: Path, expected: Expected) -> None:
    """Compare the pixels of a netCDF file, or call the check of another one."""
    if callable(expected):
        expected(path)
        return
    actual = read_netcdf(path)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def read_netcdf(path: Path) -> np.ndarray:
    """The pixels of a file: bands if there are several, other dimensions, y from north to south, x."""
    data = load_raw(path)
    cubes = [v.transpose(..., *_find_axes(v)) for v in data.data_vars.values() if _find_axes(v)]
    layers = [np.asarray(cube, dtype=float) for cube in cubes]
    return layers[0] if len(layers) == 1 else np.stack(layers)


def _find_axes(variable: xr.DataArray) -> tuple[str, ...]:
    names = [("y", "x"), ("latitude", "longitude"), ("lat", "lon")]
    return next((pair for pair in names if set(pair) <= set(variable.dims)), ())


def mean_of(values: np.ndarray) -> np.ndarray:
    """The mean along time of what has data."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(values, axis=0)


def group_means(values: np.ndarray, keys: Iterable[Any]) -> np.ndarray:
    """The mean along time of each group of equal keys, in their order."""
    names = np.array(list(keys))
    return np.stack([mean_of(values[names == name]) for name in dict.fromkeys(names)])


def mask_clouds(cube: openeo.DataCube) -> openeo.DataCube:
    """The cloud mask of the scene classification: 1 where there are clouds or their shadows."""
    scl = cube.band("SCL")
    return (scl == 3) | (scl == 8) | (scl == 9) | (scl == 10)


def ndvi_of(cube: openeo.DataCube) -> openeo.DataCube:
    red, nir = cube.band("B04"), cube.band("B08")
    return (nir - red) / (nir + red)


def make_fields() -> dict[str, Any]:
    """Three polygons in longitude and latitude inside the box, as inline GeoJSON."""
    west, south, _, _ = BOX
    corners = [
        [(92, 747), (307, 747), (307, 583), (92, 583)],
        [(401, 102), (703, 123), (522, 421)],
        [(602, 778), (902, 778), (902, 441), (611, 462)],
    ]
    rings = [[(west + x, south + y) for x, y in ring] for ring in corners]
    shapes = [{"type": "Polygon", "coordinates": [[*ring, ring[0]]]} for ring in rings]
    features = [
        {"type": "Feature", "properties": {"name": f"field {i}"}, "geometry": _to_degrees(shape)}
        for i, shape in enumerate(shapes)
    ]
    return {"type": "FeatureCollection", "features": features}


def _to_degrees(shape: dict[str, Any]) -> dict[str, Any]:
    return transform_geom("EPSG:32632", "EPSG:4326", shape)


def inside_fields() -> list[np.ndarray]:
    """For each polygon the pixels whose centre is in it."""
    shapes = [transform_geom("EPSG:4326", "EPSG:32632", f["geometry"]) for f in make_fields()["features"]]
    return [~geometry_mask([shape], FINE_SHAPE, from_origin(BOX[0], BOX[3], 10, 10)) for shape in shapes]


def field_means(values: np.ndarray) -> np.ndarray:
    """The means (time, polygon)."""
    return np.array([[mean_of(date[mask]) for mask in inside_fields()] for date in values])


# --- Composites ----------------------------------------------------------------------------------


@idiom
def ndvi_median_composite(sample: Sample) -> Built:
    cube = sample.s2("B04", "B08", "SCL")
    composite = ndvi_of(cube).mask(mask_clouds(cube)).reduce_dimension(dimension="t", reducer="median")
    return composite, "netCDF", np.nanmedian(np.where(sample.clouds(), np.nan, sample.ndvi()), axis=0)


@idiom
def evi_maximum(sample: Sample) -> Built:
    cube = sample.s2("B02", "B04", "B08")
    blue, red, nir = (cube.band(b) * 0.0001 for b in ("B02", "B04", "B08"))
    evi = 2.5 * (nir - red) / ((nir + 6.0 * red - 7.5 * blue) + 1.0)
    b, r, n = (sample.pixels(band) * 0.0001 for band in ("B02", "B04", "B08"))
    return evi.max_time(), "netCDF", np.nanmax(2.5 * (n - r) / (n + 6 * r - 7.5 * b + 1), axis=0)


@idiom
def monthly_mean_composites(sample: Sample) -> Built:
    cube = sample.s2("B04", "B08", time=SUMMER).aggregate_temporal_period("month", reducer="mean")
    months = [time.month for time in sample.times(time=SUMMER)]
    layers = [group_means(sample.pixels(b, time=SUMMER), months) for b in ("B04", "B08")]
    return cube, "netCDF", np.stack(layers)


@idiom
def dekad_medians(sample: Sample) -> Built:
    cube = sample.s2("B08").aggregate_temporal_period("dekad", reducer="median")
    keys = [min((time.day - 1) // 10, 2) for time in sample.times()]
    values, names = sample.pixels("B08"), np.array(keys)
    return cube, "netCDF", np.stack([np.nanmedian(values[names == k], axis=0) for k in dict.fromkeys(keys)])


@idiom
def seasons_with_own_intervals(sample: Sample) -> Built:
    intervals = [["2022-06-01", "2022-07-01"], ["2022-07-01", "2022-09-01"]]
    cube = sample.s2("B08", time=SUMMER)
    cube = cube.aggregate_temporal(intervals, reducer="max", labels=["early", "late"])
    months = np.array([time.month for time in sample.times(time=SUMMER)])
    values = sample.pixels("B08", time=SUMMER)
    layers = [np.nanmax(values[chosen], axis=0) for chosen in (months == 6, months > 6)]
    return cube, "netCDF", np.stack(layers)


@idiom
def maximum_ndvi_pixel(sample: Sample) -> Built:
    """Of each pixel the values of the date with the highest NDVI."""
    cube = sample.s2("B04", "B08")
    score = ndvi_of(cube)
    best = score.max_time()
    chosen = score.merge_cubes(best, overlap_resolver=lambda x, y: p.neq(x, y))
    values, ndvi = np.stack([sample.pixels(b) for b in ("B04", "B08")]), sample.ndvi()
    expected = np.nanmax(np.where(ndvi == np.nanmax(ndvi, axis=0), values, np.nan), axis=1)
    return cube.mask(chosen).max_time(), "netCDF", expected


@idiom
def clouds_with_their_surroundings(sample: Sample) -> Built:
    scl = sample.s2("SCL")
    cube = sample.s2("B11").mask(scl.process("to_scl_dilation_mask", data=scl, **DILATION))
    return cube.max_time(), "netCDF", np.nanmax(_pixels_away_from_clouds(sample), axis=0)


@idiom
def clouds_with_their_surroundings_in_one_step(sample: Sample) -> Built:
    cube = sample.s2("B11", "SCL")
    cube = cube.process("mask_scl_dilation", data=cube, **DILATION).filter_bands(["B11"])
    return cube.max_time(), "netCDF", np.nanmax(_pixels_away_from_clouds(sample), axis=0)


def _pixels_away_from_clouds(sample: Sample) -> np.ndarray:
    sizes = (DILATION["kernel1_size"], DILATION["kernel2_size"], DILATION["erosion_kernel_size"])
    classes, values = (sample.pixels(band, finer=False) for band in ("SCL", "B11"))
    masks = [expected_mask(image, *sizes, [2, 4, 5, 6, 7], [3, 8, 9, 10, 11]) for image in classes]
    return np.where(np.stack(masks), np.nan, values)


@idiom
def best_pixel_of_each_month(sample: Sample) -> Built:
    """Of each pixel and month the value of the date with the highest NDVI."""
    cube = sample.s2("B04", "B08", time=SUMMER)
    months = [{"dimension": "t", "value": "month"}]
    rest = ndvi_of(cube).apply_neighborhood(
        process=lambda data: data.array_apply(
            process=lambda x, context: x.neq(y=context), context=data.max()
        ),
        size=[*months, *({"dimension": d, "value": 1, "unit": "px"} for d in ("x", "y"))],
        overlap=[],
    )
    best = cube.filter_bands(["B08"]).mask(rest).aggregate_temporal_period("month", reducer="max")
    numbers = np.array([time.month for time in sample.times(time=SUMMER)])
    values, ndvi, layers = sample.pixels("B08", time=SUMMER), sample.ndvi(SUMMER), []
    for month in dict.fromkeys(numbers.tolist()):
        scores = ndvi[numbers == month]
        chosen = np.where(scores == np.nanmax(scores, axis=0), values[numbers == month], np.nan)
        layers.append(np.nanmax(chosen, axis=0))
    return best, "netCDF", np.stack(layers)


@idiom
def monthly_maxima_of_a_part_of_the_year(sample: Sample) -> Built:
    """Periods are times: they are aggregated again, and filtered."""
    cube = sample.s2("B08", time=SUMMER).aggregate_temporal_period("day", reducer="mean")
    cube = cube.aggregate_temporal_period("month", reducer="max").filter_temporal("2022-07-01", "2022-09-01")
    months = np.array([time.month for time in sample.times(time=SUMMER)])
    values = sample.pixels("B08", time=SUMMER)
    return cube, "netCDF", np.stack([np.nanmax(values[months == m], axis=0) for m in (7, 8)])


@idiom
def first_clear_observation(sample: Sample) -> Built:
    cube = sample.s2("B04", "SCL")
    clear = (
        cube.filter_bands(["B04"]).mask(mask_clouds(cube)).reduce_dimension(dimension="t", reducer="first")
    )
    values = np.where(sample.clouds(), np.nan, sample.pixels("B04"))
    first = np.argmax(~np.isnan(values), axis=0)
    return clear, "netCDF", np.take_along_axis(values, first[None], axis=0)[0]


@idiom
def spread_over_time(sample: Sample) -> Built:
    cube = sample.s2("B08").reduce_dimension(dimension="t", reducer=lambda data: data.max() - data.min())
    values = sample.pixels("B08")
    return cube, "netCDF", np.nanmax(values, axis=0) - np.nanmin(values, axis=0)


@idiom
def standard_deviation_over_time(sample: Sample) -> Built:
    cube = sample.s2("B08").reduce_dimension(dimension="t", reducer="sd")
    return cube, "netCDF", np.nanstd(sample.pixels("B08"), axis=0, ddof=1)


@idiom
def number_of_clear_observations(sample: Sample) -> Built:
    cube = sample.s2("B04", "SCL")
    masked = cube.filter_bands(["B04"]).mask(mask_clouds(cube))
    valid = ~np.isnan(np.where(sample.clouds(), np.nan, sample.pixels("B04")))
    return masked.reduce_dimension(dimension="t", reducer="count"), "netCDF", valid.sum(axis=0).astype(float)


# --- Masks ---------------------------------------------------------------------------------------


@idiom
def dilated_cloud_mask(sample: Sample) -> Built:
    """Clouds and their neighbourhood, by a kernel of ones over the mask."""
    cube = sample.s2("B04", "SCL")
    near = mask_clouds(cube).apply_kernel(np.ones((5, 5)).tolist()) > 0.1
    masked = cube.filter_bands(["B04"]).mask(near).mean_time()
    numbers = [correlate(date.astype(float), np.ones((5, 5)), mode="constant") for date in sample.clouds()]
    clouds = np.stack(numbers) > 0.1
    return masked, "netCDF", mean_of(np.where(clouds, np.nan, sample.pixels("B04")))


@idiom
def mask_with_replacement(sample: Sample) -> Built:
    cube = sample.s2("B04", "SCL")
    masked = cube.filter_bands(["B04"]).mask(mask_clouds(cube), replacement=1).min_time()
    return masked, "netCDF", np.nanmin(np.where(sample.clouds(), 1, sample.pixels("B04")), axis=0)


@idiom
def mask_from_another_collection(sample: Sample) -> Built:
    """Where the terrain is low, resampled to the scenes."""
    dem = sample.connection.load_collection(DEM_PRODUCT, None, None).max_time()
    cube = sample.s2("B08").mean_time()
    low = dem.resample_cube_spatial(cube, method="near").filter_bands(["elevation"]).band("elevation") < 260
    masked = cube.mask(low)

    def check(path: Path) -> None:
        actual, mean = read_netcdf(path), mean_of(sample.pixels("B08"))
        kept = ~np.isnan(actual)
        np.testing.assert_allclose(actual[kept], mean[kept], rtol=1e-5)

    return masked, "netCDF", check


@idiom
def mask_polygon_of_a_field(sample: Sample) -> Built:
    field = make_fields()["features"][0]["geometry"]
    cube = sample.s2("B04").mean_time().mask_polygon(field)
    return cube, "netCDF", np.where(inside_fields()[0], mean_of(sample.pixels("B04")), np.nan)


@idiom
def filter_spatial_to_a_field(sample: Sample) -> Built:
    cube = sample.s2("B04").mean_time().filter_spatial(make_fields()["features"][0]["geometry"])
    inside = inside_fields()[0]
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    window = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    values = mean_of(sample.pixels("B04"))
    return cube, "netCDF", np.where(inside, values, np.nan)[window]


@idiom
def landsat_without_clouds(sample: Sample) -> Built:
    """The cloud bit of the quality band, by arithmetic as bits cannot be asked for."""
    cube = sample.load(LANDSAT_PRODUCT, ["red", "qa_pixel"], SUMMER)
    cloudy = cube.band("qa_pixel").apply(lambda x: p.gte(p.mod(p.floor(x / 8), 2), 1))
    composite = cube.filter_bands(["red"]).mask(cloudy).mean_time()
    red, quality = (sample.pixels(b, LANDSAT_PRODUCT, SUMMER) for b in ("red", "qa_pixel"))
    with np.errstate(invalid="ignore"):
        return composite, "netCDF", mean_of(np.where((quality // 8) % 2 >= 1, np.nan, red))


# --- Indices and bands ---------------------------------------------------------------------------


@idiom
def ndvi_process_with_a_new_band(sample: Sample) -> Built:
    cube = sample.s2("B04", "B08").ndvi(nir="B08", red="B04", target_band="NDVI").filter_bands(["NDVI"])
    return cube.mean_time(), "netCDF", mean_of(sample.ndvi())


@idiom
def normalized_difference_of_bands(sample: Sample) -> Built:
    def ndmi(bands: Any) -> Any:
        return p.normalized_difference(bands[0], bands[1])

    cube = sample.s2("B08", "B11").reduce_dimension(dimension="bands", reducer=ndmi)
    nir, swir = sample.pixels("B08"), sample.pixels("B11")
    return cube.min_time(), "netCDF", np.nanmin((nir - swir) / (nir + swir), axis=0)


@idiom
def index_beside_its_bands(sample: Sample) -> Built:
    cube = sample.s2("B04", "B08")
    index = ndvi_of(cube).add_dimension(name="bands", label="NDVI", type="bands")
    layers = [sample.pixels("B04"), sample.pixels("B08"), sample.ndvi()]
    return cube.merge_cubes(index).mean_time(), "netCDF", np.stack(list(map(mean_of, layers)))


@idiom
def reflectance_from_numbers(sample: Sample) -> Built:
    cube = sample.s2("B02", "B03").apply(lambda x: x * 0.0001)
    return cube, "netCDF", np.stack([sample.pixels("B02"), sample.pixels("B03")]) * 0.0001


@idiom
def bands_by_the_start_of_their_name(sample: Sample) -> Built:
    cube = sample.s2("B02", "B08", "SCL").filter_labels(lambda x: p.text_begins(x, "B0"), dimension="bands")
    return cube.max_time(), "netCDF", np.stack([np.nanmax(sample.pixels(b), axis=0) for b in ("B02", "B08")])


@idiom
def renamed_bands(sample: Sample) -> Built:
    cube = sample.s2("B04", "B08").rename_labels("bands", ["red", "nir"], source=["B04", "B08"])
    return cube.filter_bands(["nir"]).mean_time(), "netCDF", mean_of(sample.pixels("B08"))


@idiom
def water_by_conditions(sample: Sample) -> Built:
    """1 for water, 2 for dense plants, else 0."""

    def classify(data: Any) -> Any:
        green, red, nir = data["B03"], data["B04"], data["B08"]
        dense = p.if_(p.gt((nir - red) / (nir + red), 0.6), 2, 0)
        return p.if_(p.gt((green - nir) / (green + nir), 0), 1, dense)

    cube = sample.s2("B03", "B04", "B08").mean_time().reduce_dimension(dimension="bands", reducer=classify)
    green, red, nir = (mean_of(sample.pixels(b)) for b in ("B03", "B04", "B08"))
    dense = np.where((nir - red) / (nir + red) > 0.6, 2, 0)
    return cube, "netCDF", np.where((green - nir) / (green + nir) > 0, 1, dense).astype(float)


@idiom
def share_of_dates_above_a_threshold(sample: Sample) -> Built:
    cube = ndvi_of(sample.s2("B04", "B08")).apply(lambda x: p.if_(p.gt(x, 0.5), 1, 0)).mean_time()
    return cube, "netCDF", mean_of((sample.ndvi() > 0.5).astype(float))


# --- Time ----------------------------------------------------------------------------------------


@idiom
def gaps_filled_along_time(sample: Sample) -> Built:
    cube = sample.s2("B08", "SCL")
    filled = (
        cube.filter_bands(["B08"])
        .mask(mask_clouds(cube))
        .apply_dimension(dimension="t", process=lambda data: p.array_interpolate_linear(data))
    )
    values = np.where(sample.clouds(), np.nan, sample.pixels("B08"))
    frame = pd.DataFrame(values.reshape(len(values), -1), index=pd.DatetimeIndex(sample.times()))

    def check(path: Path) -> None:
        actual = read_netcdf(path).reshape(len(values), -1)
        by_time = frame.interpolate(method="time", limit_area="inside").to_numpy()
        by_number = frame.reset_index(drop=True).interpolate(limit_area="inside").to_numpy()
        assert np.isnan(actual).sum() == np.isnan(by_time).sum() < np.isnan(frame.to_numpy()).sum()
        np.testing.assert_allclose(actual[~frame.isna().to_numpy()], by_time[~frame.isna().to_numpy()])
        assert np.allclose(actual, by_time, equal_nan=True) or np.allclose(actual, by_number, equal_nan=True)

    return filled, "netCDF", check


@idiom
def quantiles_as_bands(sample: Sample) -> Built:
    cube = sample.s2("B08").filter_bands(["B08"]).drop_dimension("bands")
    quantiles = cube.apply_dimension(
        dimension="t",
        process=lambda data: p.quantiles(data, probabilities=[0.1, 0.5, 0.9]),
        target_dimension="bands",
    )
    return quantiles, "netCDF", np.nanquantile(sample.pixels("B08"), [0.1, 0.5, 0.9], axis=0)


@idiom
def running_total_of_rain(sample: Sample) -> Built:
    cube = sample.load(CLIMATE_PRODUCT, ["precipitation"])
    total = cube.apply_dimension(dimension="t", process=lambda data: p.cumsum(data))
    return total, "netCDF", np.cumsum(sample.pixels("precipitation", CLIMATE_PRODUCT), axis=0)


@idiom
def dry_days(sample: Sample) -> Built:
    cube = sample.load(CLIMATE_PRODUCT, ["precipitation"])
    dry = cube.reduce_dimension(
        dimension="t", reducer=lambda data: p.count(data, condition=lambda x: p.lt(x, 1))
    )
    return dry, "netCDF", (sample.pixels("precipitation", CLIMATE_PRODUCT) < 1).sum(axis=0).astype(float)


@idiom
def growing_degree_days(sample: Sample) -> Built:
    cube = sample.load(CLIMATE_PRODUCT, ["temperature"]).apply(lambda x: p.max([x - 10, 0]))
    values = sample.pixels("temperature", CLIMATE_PRODUCT)
    total = cube.reduce_dimension(dimension="t", reducer="sum")
    return total, "netCDF", np.maximum(values - 10, 0).sum(axis=0)


@idiom
def difference_to_the_mean_of_the_period(sample: Sample) -> Built:
    cube = sample.load(CLIMATE_PRODUCT, ["temperature"])
    anomalies = cube.merge_cubes(cube.mean_time(), overlap_resolver="subtract")
    values = sample.pixels("temperature", CLIMATE_PRODUCT)
    return anomalies, "netCDF", values - values.mean(axis=0)


@idiom
def part_of_the_period_after_loading(sample: Sample) -> Built:
    days = ["2022-07-10", "2022-07-13"]
    cube = sample.load(CLIMATE_PRODUCT, ["temperature"], SUMMER).filter_temporal(days)
    return cube, "netCDF", sample.pixels("temperature", CLIMATE_PRODUCT, days)


@idiom
def weekly_totals(sample: Sample) -> Built:
    cube = sample.load(CLIMATE_PRODUCT, ["precipitation"]).aggregate_temporal_period("week", reducer="sum")
    weeks = np.array([time.isocalendar().week for time in sample.times(CLIMATE_PRODUCT)])
    values = sample.pixels("precipitation", CLIMATE_PRODUCT)
    return cube, "netCDF", np.stack([values[weeks == week].sum(axis=0) for week in dict.fromkeys(weeks)])


# --- Space ---------------------------------------------------------------------------------------


@idiom
def coarser_pixels_by_average(sample: Sample) -> Built:
    cube = sample.s2("B04").mean_time().resample_spatial(resolution=20, method="average")
    blocks = mean_of(sample.pixels("B04")).reshape(42, 2, 48, 2)
    return cube, "netCDF", blocks.mean(axis=(1, 3))


@idiom
def to_degrees(sample: Sample) -> Built:
    cube = sample.s2("B04").mean_time().resample_spatial(resolution=0.0002, projection=4326, method="near")
    mean = mean_of(sample.pixels("B04"))

    def check(path: Path) -> None:
        actual = read_netcdf(path)
        assert 0.5 < np.isfinite(actual).mean() <= 1
        assert np.isin(np.round(actual[np.isfinite(actual)], 2), np.round(mean, 2)).mean() > 0.99

    return cube, "netCDF", check


@idiom
def smoothing_kernel(sample: Sample) -> Built:
    kernel = np.full((3, 3), 1 / 9)
    cube = sample.s2("B04").mean_time().apply_kernel(kernel.tolist(), border="reflect")
    return cube, "netCDF", correlate(mean_of(sample.pixels("B04")), kernel, mode="reflect")


@idiom
def edges_by_sobel(sample: Sample) -> Built:
    kernel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    cube = sample.s2("B04").mean_time().apply_kernel(kernel.tolist())
    edges = correlate(mean_of(sample.pixels("B04")), kernel.astype(float), mode="constant")

    def check(path: Path) -> None:
        np.testing.assert_allclose(read_netcdf(path)[1:-1, 1:-1], edges[1:-1, 1:-1], rtol=1e-4, atol=0.01)

    return cube, "netCDF", check


@idiom
def blocks_of_pixels(sample: Sample) -> Built:
    size = [{"dimension": "x", "value": 12, "unit": "px"}, {"dimension": "y", "value": 12, "unit": "px"}]
    cube = sample.s2("B04").max_time().apply_neighborhood(lambda data: data * 2, size=size)
    return cube, "netCDF", 2 * np.nanmax(sample.pixels("B04"), axis=0)


@idiom
def two_collections_on_one_grid(sample: Sample) -> Built:
    s2 = sample.s2("B04").mean_time()
    rain = sample.connection.load_collection(CLIMATE_PRODUCT, None, JUNE, ["precipitation"]).max_time()
    merged = s2.merge_cubes(rain.resample_cube_spatial(s2, method="near"))

    def check(path: Path) -> None:
        actual = read_netcdf(path)
        np.testing.assert_allclose(actual[0], mean_of(sample.pixels("B04")), rtol=1e-5)
        values = truth.series(sample.scenes(CLIMATE_PRODUCT), "precipitation", (11.3, 46.45, 11.4, 46.55))
        assert set(np.unique(actual[1].round(3))) <= set(np.unique(values.max(axis=0).round(3)))

    return merged, "netCDF", check


@idiom
def two_loads_of_one_collection(sample: Sample) -> Built:
    merged = sample.s2("B04").merge_cubes(sample.s2("B08"))
    return merged, "netCDF", np.stack([sample.pixels("B04"), sample.pixels("B08")])


@idiom
def smaller_box_after_loading(sample: Sample) -> Built:
    cube = sample.s2("B04").mean_time()
    west, south, _, north = BOX
    box = {"west": west + 100, "south": south + 40, "east": west + 400, "north": north - 100, "crs": 32632}
    return cube.filter_bbox(box), "netCDF", mean_of(sample.pixels("B04"))[10:80, 10:40]


@idiom
def terrain_above_a_height(sample: Sample) -> Built:
    dem = sample.load(DEM_PRODUCT).max_time()
    cube = dem.mask(dem.apply(lambda x: p.lt(x, 900)))
    return cube, "netCDF", np.where(sample.elevation < 900, np.nan, sample.elevation)


# --- Statistics of zones, tables -----------------------------------------------------------------


@idiom
def time_series_of_fields_as_csv(sample: Sample) -> Built:
    cube = sample.s2("B04", "B08", "SCL")
    means = ndvi_of(cube).mask(mask_clouds(cube)).aggregate_spatial(make_fields(), reducer="mean")
    expected = field_means(np.where(sample.clouds(), np.nan, sample.ndvi()))

    def check(path: Path) -> None:
        table = pd.read_csv(path).sort_values(["date", "feature_index"])
        np.testing.assert_allclose(table["value"].to_numpy().reshape(expected.shape), expected, rtol=1e-5)

    return means, "CSV", check


@idiom
def time_series_of_fields_as_json(sample: Sample) -> Built:
    means = sample.s2("B04").aggregate_spatial(make_fields(), reducer="mean")
    expected = field_means(sample.pixels("B04"))

    def check(path: Path) -> None:
        series = json.loads(path.read_text())
        assert [key[:10] for key in sorted(series)] == [f"{time:%Y-%m-%d}" for time in sample.times()]
        values = np.array([series[key] for key in sorted(series)], dtype=float)[..., 0]
        np.testing.assert_allclose(values, expected, rtol=1e-5)

    return means, "JSON", check


@idiom
def time_series_of_fields_as_netcdf(sample: Sample) -> Built:
    maxima = sample.s2("B08").aggregate_spatial(make_fields(), reducer="max")
    values = sample.pixels("B08")
    expected = np.array([[np.nanmax(date[mask]) for mask in inside_fields()] for date in values])

    def check(path: Path) -> None:
        data = load_raw(path)
        variables = [v for v in data.data_vars.values() if "t" in v.dims and v.dtype.kind in "iuf"]
        np.testing.assert_allclose(variables[0].transpose("t", ...), expected, rtol=1e-6)

    return maxima, "netCDF", check


@idiom
def spread_in_fields_as_geojson(sample: Sample) -> Built:
    spread = (
        sample.s2("B04").mean_time().aggregate_spatial(make_fields(), lambda data: data.max() - data.min())
    )
    values = mean_of(sample.pixels("B04"))
    expected = [np.nanmax(values[mask]) - np.nanmin(values[mask]) for mask in inside_fields()]

    def check(path: Path) -> None:
        collection = json.loads(path.read_text())
        numbers = [_find_number(feature["properties"]) for feature in collection["features"]]
        np.testing.assert_allclose(numbers, expected, rtol=1e-4)

    return spread, "GeoJSON", check


def _find_number(properties: dict[str, Any]) -> float:
    return next(properties[name] for name in ("B04", "value") if name in properties)


@idiom
def values_at_points(sample: Sample) -> Built:
    places = [(BOX[0] + 105, BOX[3] - 205), (BOX[0] + 555, BOX[3] - 405)]
    points = {"type": "MultiPoint", "coordinates": places}
    features = [
        {"type": "Feature", "properties": {}, "geometry": {"type": "Point", "coordinates": c}}
        for c in _to_degrees(points)["coordinates"]
    ]
    cube = sample.s2("B08").mean_time()
    values = cube.aggregate_spatial({"type": "FeatureCollection", "features": features}, reducer="mean")
    mean = mean_of(sample.pixels("B08"))

    def check(path: Path) -> None:
        table = pd.read_csv(path)
        column = next(name for name in ("B08", "value") if name in table.columns)
        np.testing.assert_allclose(table[column], [mean[20, 10], mean[40, 55]], rtol=1e-5)

    return values, "CSV", check


@idiom
def mean_of_a_whole_region(sample: Sample) -> Built:
    means = sample.load(CLIMATE_PRODUCT, ["temperature"]).reduce_spatial("mean")
    expected = sample.pixels("temperature", CLIMATE_PRODUCT).mean(axis=(1, 2))

    def check(path: Path) -> None:
        text = path.read_text()
        numbers = np.array(_collect_numbers(json.loads(text)))
        matches = [n for n in expected if np.isclose(numbers, n, rtol=1e-5).any()]
        assert len(matches) == len(expected)

    return means, "JSON", check


def _collect_numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [n for item in value.values() for n in _collect_numbers(item)]
    if isinstance(value, list):
        return [n for item in value for n in _collect_numbers(item)]
    return [float(value)] if isinstance(value, int | float) and not isinstance(value, bool) else []


# --- Pictures and files --------------------------------------------------------------------------


@idiom
def true_colour_picture(sample: Sample) -> Built:
    cube = sample.s2("B04", "B03", "B02").mean_time().linear_scale_range(0, 3000, 0, 255)
    values = np.stack([mean_of(sample.pixels(b)) for b in ("B04", "B03", "B02")], axis=-1)

    def check(path: Path) -> None:
        picture = np.asarray(Image.open(path))[..., :3].astype(float)
        assert np.abs(picture - np.clip(values / 3000 * 255, 0, 255)).max() <= 1

    return cube, "PNG", check


@idiom
def dates_as_geotiffs(sample: Sample) -> Built:
    cube = sample.s2("B04", "B08")

    def check(path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            names = sorted(archive.namelist())
            assert len(names) == len(sample.times())
            with rasterio.open(io.BytesIO(archive.read(names[0]))) as file:
                actual = file.read()
        expected = [np.nan_to_num(sample.pixels(band)[0]) for band in ("B04", "B08")]
        np.testing.assert_array_equal(actual, expected)

    return cube, "GTiff", check


@idiom
def classes_as_small_integers(sample: Sample) -> Built:
    cube = ndvi_of(sample.s2("B04", "B08")).max_time() > 0.7

    def check(path: Path) -> None:
        with rasterio.open(path) as file:
            np.testing.assert_array_equal(file.read(1) > 0, np.nanmax(sample.ndvi(), axis=0) > 0.7)

    return cube, "GTiff", check


# --- Other ways to run ---------------------------------------------------------------------------


def test_picture_with_a_colormap(sample: Sample, tmp_path: Path) -> None:
    index = ndvi_of(sample.s2("B04", "B08")).max_time().linear_scale_range(0, 1, 0, 255)
    saved = index.save_result("PNG", options={"colormap": ["#000000", "#ff0000"]})
    assert saved.validate() == []
    saved.download(tmp_path / "picture.png")
    picture = np.asarray(Image.open(tmp_path / "picture.png").convert("RGB")).astype(float)
    expected = np.clip(np.nanmax(sample.ndvi(), axis=0), 0, 1) * 255
    assert np.abs(picture[..., 0] - expected).max() <= 1
    assert not picture[..., 1:].any()


def test_user_defined_process_called_with_parameters(sample: Sample, tmp_path: Path) -> None:
    data = openeo.api.process.Parameter.raster_cube("data", description="A cube")
    factor = openeo.api.process.Parameter.number("factor", description="A factor", default=1)
    process = sample.connection.datacube_from_process("apply", data=data, process=_make_product("factor"))
    sample.connection.save_user_defined_process("times_factor", process, parameters=[data, factor])
    cube = sample.s2("B04").process("times_factor", data=sample.s2("B04").mean_time(), factor=3)
    assert cube.save_result("netCDF").validate() == []
    cube.download(tmp_path / "result.nc", format="netCDF")
    check_result(tmp_path / "result.nc", 3 * mean_of(sample.pixels("B04")))


def _make_product(parameter: str) -> dict[str, Any]:
    arguments = {"x": {"from_parameter": "x"}, "y": {"from_parameter": parameter}}
    return {"process_graph": {"times": {"process_id": "multiply", "arguments": arguments, "result": True}}}


def test_clear_scenes_by_their_metadata(sample: Sample, tmp_path: Path) -> None:
    scenes = [s for s in sample.scenes(S2_PRODUCT, SUMMER) if s.properties["eo:cloud_cover"] < 20]
    cube = sample.load(S2_PRODUCT, ["B04"], SUMMER, max_cloud_cover=19.999).mean_time()
    assert cube.save_result("netCDF").validate() == []
    cube.download(tmp_path / "result.nc", format="netCDF")
    check_result(tmp_path / "result.nc", mean_of(truth.series(scenes, "B04", BOX)))


def test_two_results_of_one_job(sample: Sample, tmp_path: Path) -> None:
    cube = ndvi_of(sample.s2("B04", "B08"))
    saved = [cube.max_time().save_result("netCDF"), cube.min_time().save_result("GTiff")]
    job = sample.connection.create_job(saved, title="Two results")
    assert [entry for entry in job.logs() if entry["level"] == "warning"] == []
    job.start_and_wait(print=lambda _: None, max_poll_interval=1)
    paths = job.get_results().download_files(tmp_path)
    (netcdf,) = [path for path in paths if path.suffix == ".nc"]
    (tiff,) = [path for path in paths if path.suffix == ".tif"]
    check_result(netcdf, np.nanmax(sample.ndvi(), axis=0))
    with rasterio.open(tiff) as file:
        np.testing.assert_allclose(file.read(1), np.nanmin(sample.ndvi(), axis=0), rtol=1e-5)
