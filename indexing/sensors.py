"""Sample sensors: the landscape as arrays of digital numbers on a grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from scipy.ndimage import zoom

from odc_openeo.indexing import landscape
from odc_openeo.indexing.landscape import BANDS, COVER, Floats, Ground
from odc_openeo.indexing.sky import Overpass, cloud_opacity, cloud_shadow, is_in_swath

Bands = dict[str, NDArray[np.generic]]

S2_SCALE, S2_OFFSET = 0.0001, -0.01
LANDSAT_SCALE, LANDSAT_OFFSET = 2.75e-05, -0.2
S2_BANDS = {"B02": "blue", "B03": "green", "B04": "red", "B08": "nir", "B05": "rededge", "B11": "swir"}
S2_COARSE = ("B05", "B11", "SCL")
LANDSAT_BANDS = {"blue": "blue", "green": "green", "red": "red", "nir08": "nir", "swir16": "swir"}

_CLOUD = np.array([0.46, 0.45, 0.45, 0.46, 0.50, 0.36], np.float32)
_SHADE = np.array([0.62, 0.55, 0.50, 0.44, 0.38, 0.38], np.float32)


@dataclass(frozen=True)
class Plot:
    """A grid and the land on it: `x`, `y` are ground coordinates of the pixel centres."""

    geobox: GeoBox
    x: Floats
    y: Floats
    ground: Ground

    @classmethod
    def survey(cls, geobox: GeoBox) -> Plot:
        """Survey the land on the grid `geobox`."""
        x, y = ground_coordinates(geobox)
        return cls(geobox, x, y, landscape.survey_ground(x, y, abs(geobox.resolution.y)))


def ground_coordinates(geobox: GeoBox) -> tuple[Floats, Floats]:
    """Return metres east and north of the landscape's origin of every pixel centre."""
    east, north = _pixel_centres(geobox)
    to_ground = Transformer.from_crs(geobox.crs.to_wkt() if geobox.crs else None, 3035, always_xy=True)
    x, y = to_ground.transform(east, north)
    return (x - landscape.ORIGIN[0]).astype(np.float32), (y - landscape.ORIGIN[1]).astype(np.float32)


def make_sentinel2(plot: Plot, overpass: Overpass) -> Bands:
    """Make the bands of a Sentinel-2 L2A-like scene: reflectance as uint16 (0 is no data), SCL as uint8.

    B02, B03, B04, B08 on the plot's grid; B05, B11 and SCL on the grid of twice the pixel size.
    """
    coarse_x, coarse_y = _halve_layer(plot.x), _halve_layer(plot.y)
    cloud, shadow = cloud_opacity(coarse_x, coarse_y, overpass), cloud_shadow(coarse_x, coarse_y, overpass)
    surface = landscape.compute_reflectance(plot.ground, overpass.day_of_year, overpass.sun)
    scene = _add_clouds(surface, _double_layer(cloud), _double_layer(shadow))
    valid = is_in_swath(plot.x, plot.y, overpass)
    coarse_valid = valid[::2, ::2] & valid[1::2, ::2] & valid[::2, 1::2] & valid[1::2, 1::2]
    valid = np.kron(coarse_valid, np.ones((2, 2), bool))
    speckle = np.random.default_rng(overpass.time.date().toordinal())
    bands: Bands = {}
    for name, colour in S2_BANDS.items():
        layer = scene[BANDS.index(colour)]
        mask = valid
        if name in S2_COARSE:
            layer, mask = _halve_layer(layer), coarse_valid
        grainy = layer * (1 + 0.004 * speckle.standard_normal(layer.shape, dtype=np.float32))
        bands[name] = _digitize_layer(grainy, mask, S2_SCALE, S2_OFFSET, coarseness=10)
    bands["SCL"] = _scene_classes(plot.ground, surface, cloud, shadow, overpass, coarse_valid)
    return bands


def make_landsat(plot: Plot, overpass: Overpass) -> Bands:
    """Make the bands of a Landsat-like scene: reflectance as uint16 (0 is no data) and qa_pixel."""
    cloud, shadow = cloud_opacity(plot.x, plot.y, overpass), cloud_shadow(plot.x, plot.y, overpass)
    surface = landscape.compute_reflectance(plot.ground, overpass.day_of_year, overpass.sun)
    scene = _add_clouds(surface, cloud, shadow)
    valid = is_in_swath(plot.x, plot.y, overpass)
    bands: Bands = {
        name: _digitize_layer(scene[BANDS.index(colour)], valid, LANDSAT_SCALE, LANDSAT_OFFSET, coarseness=60)
        for name, colour in LANDSAT_BANDS.items()
    }
    bands["qa_pixel"] = _quality_bits(plot.ground, cloud, shadow, overpass, valid)
    return bands


def make_elevation_model(geobox: GeoBox) -> Floats:
    """Return heights in metres on `geobox`, rounded to decimetres as in common elevation models."""
    x, y = ground_coordinates(geobox)
    return np.round(landscape.compute_elevation(x, y), 1)


def make_daily_climate(geobox: GeoBox, day: date) -> Bands:
    """Make air temperature (degrees Celsius), rain (mm) and soil moisture (share) of one day; NaN at sea."""
    east, north = _pixel_centres(geobox)
    x, y = east.astype(np.float32), north.astype(np.float32)
    day_of_year = day.timetuple().tm_yday
    relief = landscape.make_noise(x, y, 1.3, 151, 4) * landscape.smooth_step(y, 44.4, 46.6)
    weather = np.random.default_rng(day.toordinal()).uniform(0, 90, 2).astype(np.float32)
    front = landscape.make_noise(x + weather[0], y + weather[1], 2.4, 161, 4)
    warmth = 11.5 - 11.0 * np.cos((day_of_year - 20) / 365 * 2 * np.pi) + 7 * (front.mean() - 0.5)
    sea = y < 44.15 + 0.9 * landscape.make_noise(x, y, 1.6, 171, 4)
    rain = np.where(front > 0.55, (front - 0.55) * 140 * (0.5 + relief), 0)
    moisture = 0.14 + 0.12 * relief + 0.45 * np.maximum(front - 0.42, 0)
    layers = {
        "temperature": warmth - 15 * relief + 5 * (0.5 - front),
        "precipitation": rain,
        "soil_moisture": moisture,
    }
    frozen = layers["temperature"] < 0
    layers["soil_moisture"] = np.where(frozen, np.nan, layers["soil_moisture"])
    # Rounded to 1/1024, the trailing bits are zero and the files compress well.
    return {
        name: np.where(sea, np.nan, np.round(layer * 1024) / 1024).astype(np.float32)
        for name, layer in layers.items()
    }


def _pixel_centres(geobox: GeoBox) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rows, columns = (geobox.coordinates[dimension].values for dimension in geobox.dimensions)
    east, north = np.meshgrid(columns, rows)
    return east, north


def _halve_layer(layer: Floats) -> Floats:
    return (layer[::2, ::2] + layer[1::2, ::2] + layer[::2, 1::2] + layer[1::2, 1::2]) / np.float32(4)


def _double_layer(layer: Floats) -> Floats:
    return zoom(layer, 2, order=1, grid_mode=True, mode="nearest").astype(np.float32)


def _add_clouds(surface: Floats, cloud: Floats, shadow: Floats) -> Floats:
    """Add clouds above the surface, and dim it where they cast their shadow."""
    dimmed = surface * (1 - (1 - _SHADE[:, None, None]) * shadow)
    lit = _CLOUD[:, None, None] * (0.75 + 0.45 * cloud) * cloud
    return (dimmed * (1 - cloud) + lit).astype(np.float32)


def _digitize_layer(
    layer: Floats, valid: NDArray[np.bool_], scale: float, offset: float, coarseness: int
) -> NDArray[np.uint16]:
    # Numbers in steps of `coarseness` still look like those of a sensor, and halve the size of the files.
    number = np.round((layer - offset) / (scale * coarseness)) * coarseness
    return np.where(valid, np.clip(number, 1, 65535), 0).astype(np.uint16)


def _scene_classes(
    land: Ground, surface: Floats, cloud: Floats, shadow: Floats, overpass: Overpass, valid: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Make the scene classification of Sentinel-2 L2A, from the true cover, leaves, clouds and shadows."""
    red, nir = _halve_layer(surface[BANDS.index("red")]), _halve_layer(surface[BANDS.index("nir")])
    vegetation = (nir - red) / (nir + red)
    cover = land.cover[::2, ::2]
    built = (cover == COVER["roof"]) | (cover == COVER["street"])
    snow = landscape.snow_cover(land, overpass.day_of_year)[::2, ::2]
    rules: Mapping[int, NDArray[np.bool_]] = {
        0: ~valid,
        9: cloud > 0.6,
        8: cloud > 0.25,
        10: cloud > 0.06,
        3: shadow > 0.3,
        6: cover == COVER["water"],
        11: snow,
        7: built & (vegetation < 0.5),
        4: vegetation >= 0.45,
    }
    return np.select(list(rules.values()), list(rules), 5).astype(np.uint8)


def _quality_bits(
    land: Ground, cloud: Floats, shadow: Floats, overpass: Overpass, valid: NDArray[np.bool_]
) -> NDArray[np.uint16]:
    """Make QA_PIXEL: bits 0 fill, 1 dilated cloud, 2 cirrus, 3 cloud, 4 shadow, 5 snow, 6 clear, 7 water."""
    bits = {
        1: (cloud > 0.06) & (cloud <= 0.25),
        3: cloud > 0.25,
        4: (shadow > 0.3) & (cloud <= 0.25),
        5: landscape.snow_cover(land, overpass.day_of_year) & (cloud <= 0.25),
        7: land.cover == COVER["water"],
    }
    quality = np.zeros(cloud.shape, np.uint16)
    for bit, where in bits.items():
        quality |= where.astype(np.uint16) << bit
    clear = ~(bits[1] | bits[3] | bits[4])
    quality |= clear.astype(np.uint16) << 6
    return np.where(valid, quality, np.uint16(1))
