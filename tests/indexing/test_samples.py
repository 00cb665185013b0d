"""The sample scenes: the same every time, valid COGs, and land that looks like land."""

from __future__ import annotations

import hashlib
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from numpy.typing import NDArray
from odc.geo.geom import Geometry
from pyproj import Transformer
from rasterio.features import geometry_mask
from rasterio.warp import Resampling, reproject
from rasterio.windows import from_bounds
from rio_cogeo import cog_validate

from odc_openeo.indexing import samples as maker
from odc_openeo.indexing.samples import (
    CLIMATE_PRODUCT,
    CONFORMANCE_BOX,
    DEM_PRODUCT,
    FIELDS,
    LANDSAT_PRODUCT,
    S2_PRODUCT,
    S2_TILES,
    SAMPLE_AREA,
    SampleSet,
)
from odc_openeo.indexing.sensors import Plot

Samples = dict[str, SampleSet]
CLOUDY = (3, 8, 9, 10)


def tile_documents(sample_sets: Samples, code: str) -> dict[date, Path]:
    return {
        date.fromisoformat(p.parent.name): p for p in sample_sets[S2_PRODUCT].documents if code in p.parts
    }


def read(document: Path, band: str, box: bool = False) -> NDArray[Any]:
    with rasterio.open(document.parent / f"{band}.tif") as source:
        edges = [CONFORMANCE_BOX[side] for side in ("west", "south", "east", "north")]
        return source.read(1, window=from_bounds(*edges, source.transform) if box else None)


def ndvi(document: Path, box: bool = False) -> NDArray[np.float64]:
    red, nir = (read(document, band, box).astype(float) for band in ("B04", "B08"))
    with np.errstate(invalid="ignore"):
        return (nir - red) / (nir + red)


def cloud_free(document: Path) -> NDArray[np.bool_]:
    classes = np.kron(read(document, "SCL"), np.ones((2, 2), np.uint8))
    return ~np.isin(classes, (0, *CLOUDY))


def test_scene_is_the_same_twice(sample_sets: Samples, tmp_path: Path) -> None:
    tile = S2_TILES[1]
    maker.write_sentinel2(tmp_path, tile, Plot.survey(tile.geobox), week=13)
    again = tmp_path / S2_PRODUCT / tile.code / "2022-06-01"
    first = tile_documents(sample_sets, tile.code)[date(2022, 6, 1)].parent
    names = sorted(path.name for path in first.iterdir())
    assert len(names) == 8
    for name in names:
        digests = [hashlib.sha256((folder / name).read_bytes()).hexdigest() for folder in (first, again)]
        assert digests[0] == digests[1], name


def test_making_again_keeps_the_files(sample_sets: Samples, samples: Path) -> None:
    document = sample_sets[DEM_PRODUCT].documents[0]
    before = document.stat().st_mtime_ns
    assert {sample.product: sample for sample in maker.make_samples(samples)} == sample_sets
    assert document.stat().st_mtime_ns == before


@pytest.mark.parametrize("product", [S2_PRODUCT, LANDSAT_PRODUCT, DEM_PRODUCT, CLIMATE_PRODUCT])
def test_files_are_cogs(sample_sets: Samples, product: str) -> None:
    for path in sorted(sample_sets[product].documents[-1].parent.glob("*.tif")):
        valid, errors, _ = cog_validate(path, strict=True)
        assert valid, errors
        with rasterio.open(path) as source:
            assert source.overviews(1)
            assert source.descriptions == (path.stem,)
            assert source.nodata is not None


@pytest.mark.parametrize("product", [S2_PRODUCT, LANDSAT_PRODUCT, DEM_PRODUCT, CLIMATE_PRODUCT])
def test_documents_match_their_files(sample_sets: Samples, product: str) -> None:
    path = sample_sets[product].documents[0]
    document = yaml.safe_load(path.read_text())
    for band, measurement in document["measurements"].items():
        grid = document["grids"][measurement.get("grid", "default")]
        with rasterio.open(path.parent / measurement["path"]) as source:
            assert list(source.shape) == grid["shape"], band
            assert list(source.transform)[:6] == pytest.approx(grid["transform"][:6], abs=1e-12), band
            assert source.crs == rasterio.CRS.from_user_input(document["crs"])


def test_one_acquisition_every_week(sample_sets: Samples) -> None:
    days = sorted(tile_documents(sample_sets, "32TPS"))
    weeks = [day.isocalendar().week for day in days]
    assert weeks == list(range(weeks[0], weeks[0] + len(weeks)))
    assert [day for day in days if date(2022, 6, 1) <= day < date(2022, 6, 3)] == [date(2022, 6, 1)]
    assert len([day for day in days if day.month == 6]) == 5


def test_conformance_box_is_valid_land_on_both_sides_of_the_threshold(sample_sets: Samples) -> None:
    for day, document in tile_documents(sample_sets, "32TPS").items():
        assert read(document, "B04", box=True).shape == (84, 96)
        assert read(document, "B04", box=True).min() > 0, day
        assert read(document, "B11", box=True).min() > 0, day
    first = tile_documents(sample_sets, "32TPS")[date(2022, 6, 1)]
    assert not np.isin(read(first, "SCL", box=True), (0, 6, *CLOUDY)).any()
    greenness = ndvi(first, box=True)
    assert 0.1 < (greenness > 0.75).mean() < 0.9


def test_every_place_is_clear_once_in_june(sample_sets: Samples) -> None:
    documents = [path for day, path in tile_documents(sample_sets, "32TPS").items() if day.month == 6]
    assert np.mean(np.any([cloud_free(document) for document in documents], axis=0)) > 0.99


def test_classes_agree_with_pixels(sample_sets: Samples) -> None:
    document = tile_documents(sample_sets, "32TPS")[date(2022, 6, 8)]
    classes = np.kron(read(document, "SCL"), np.ones((2, 2), np.uint8))
    greenness, blue = ndvi(document), read(document, "B02").astype(float)
    assert {3, 4, 5, 6, 7, 8, 9, 10} <= set(np.unique(classes))
    assert np.median(blue[classes == 9]) > 4 * np.median(blue[classes == 4])
    assert np.median(greenness[classes == 4]) > 0.6 > 0.4 > np.median(greenness[classes == 5])
    assert np.median(greenness[classes == 6]) < 0
    cover = yaml.safe_load(document.read_text())["properties"]["eo:cloud_cover"]
    assert cover == pytest.approx(100 * np.isin(classes, (8, 9, 10)).mean(), abs=0.01)


def field_series(sample_sets: Samples, name: str) -> dict[date, float]:
    geometry = next(f["geometry"] for f in FIELDS["features"] if f["id"] == name)
    series = {}
    for day, document in tile_documents(sample_sets, "32TPS").items():
        with rasterio.open(document.parent / "B04.tif") as source:
            projected = Geometry(geometry, "EPSG:4326").to_crs("EPSG:32632")
            inside = ~geometry_mask([projected.json], source.shape, source.transform)
        clear = inside & cloud_free(document)
        if clear.sum() > 0.9 * inside.sum():
            series[day] = float(ndvi(document)[clear].mean())
    return series


def test_fields_have_seasons(sample_sets: Samples) -> None:
    wheat, maize, forest = (field_series(sample_sets, name) for name in ("wheat", "maize", "forest"))
    assert min(len(wheat), len(maize), len(forest)) > 12
    assert max(wheat, key=lambda day: wheat[day]) < date(2022, 6, 20) < date(2022, 7, 1)
    assert max(maize, key=lambda day: maize[day]) > date(2022, 7, 1)
    assert max(forest.values()) > 0.8
    assert all(max(series.values()) - min(series.values()) > 0.3 for series in (wheat, maize, forest))


def test_zones_show_the_same_land(sample_sets: Samples) -> None:
    day = date(2022, 6, 8)
    west, east = (tile_documents(sample_sets, code)[day] for code in ("32TPS", "33TTM"))
    with rasterio.open(west.parent / "B08.tif") as source, rasterio.open(east.parent / "B08.tif") as other:
        assert (source.crs.to_epsg(), other.crs.to_epsg()) == (32632, 32633)
        moved = np.zeros(source.shape, np.uint16)
        warp = {"src_nodata": 0, "dst_nodata": 0, "resampling": Resampling.bilinear}
        reproject(rasterio.band(other, 1), moved, dst_transform=source.transform, dst_crs=source.crs, **warp)
        source_values = source.read(1)
    both = (moved > 0) & (source_values > 0)
    assert both.sum() > 10_000
    assert np.corrcoef(moved[both], source_values[both])[0, 1] > 0.95


def test_same_day_scenes_overlap(sample_sets: Samples) -> None:
    shared = set(tile_documents(sample_sets, "32TPS")) & set(tile_documents(sample_sets, "32TQS"))
    assert len(shared) == 17
    document = yaml.safe_load(tile_documents(sample_sets, "32TQS")[date(2022, 6, 1)].read_text())
    assert document["properties"]["datetime"] == "2022-06-01T10:10:45Z"
    assert S2_TILES[0].geobox.extent.intersects(S2_TILES[1].geobox.extent)


def test_swath_edge_leaves_no_data_outside_the_footprint(sample_sets: Samples) -> None:
    document = tile_documents(sample_sets, "32TPS")[date(2022, 6, 22)]
    footprint = yaml.safe_load(document.read_text())["geometry"]
    with rasterio.open(document.parent / "B04.tif") as source:
        outside = geometry_mask([footprint], source.shape, source.transform, all_touched=True)
        empty = source.read(1) == 0
    assert 0.1 < empty.mean() < 0.4
    assert empty[outside].all()
    assert outside.sum() > 0.9 * empty.sum()


def test_areas_lie_inside_the_weekly_tile() -> None:
    tile = S2_TILES[0].geobox.extent.boundingbox
    transformer = Transformer.from_crs(4326, 32632, always_xy=True)
    west, south, east, north = transformer.transform_bounds(
        SAMPLE_AREA["west"], SAMPLE_AREA["south"], SAMPLE_AREA["east"], SAMPLE_AREA["north"]
    )
    assert tile.left < west < east < tile.right
    assert tile.bottom < south < north < tile.top
    assert CONFORMANCE_BOX["west"] % 10 == CONFORMANCE_BOX["south"] % 10 == 0


def test_elevation_covers_the_scenes(sample_sets: Samples) -> None:
    with rasterio.open(sample_sets[DEM_PRODUCT].documents[0].parent / "elevation.tif") as source:
        bounds, heights = source.bounds, source.read(1)
    for tile in (*(tile.geobox for tile in S2_TILES), maker.LANDSAT_GRID):
        box = tile.extent.to_crs("EPSG:4326").boundingbox
        assert bounds.left < box.left < box.right < bounds.right
        assert bounds.bottom < box.bottom < box.top < bounds.top
    assert 200 < heights.min() < 260 < 1500 < heights.max() < 3500


def test_climate_has_seasons_and_gaps(sample_sets: Samples) -> None:
    by_day = {datetime.fromisoformat(p.parent.name).date(): p for p in sample_sets[CLIMATE_PRODUCT].documents}
    assert len(by_day) == 183
    april, july = (read(by_day[day], "temperature") for day in (date(2022, 4, 5), date(2022, 7, 20)))
    assert np.nanmean(july) > np.nanmean(april) + 8
    assert 0.05 < np.isnan(july).mean() < 0.4
    rain = read(by_day[date(2022, 4, 5)], "precipitation")
    assert np.nanmin(rain) == 0
    assert np.array_equal(np.isnan(rain), np.isnan(april))


def test_landsat_quality_bits(sample_sets: Samples) -> None:
    for document in sample_sets[LANDSAT_PRODUCT].documents:
        quality = read(document, "qa_pixel")
        cloud, clear = (quality >> 3) & 1, (quality >> 6) & 1
        assert not (cloud & clear).any()
        assert read(document, "red").min() > 0
