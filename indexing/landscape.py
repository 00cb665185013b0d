"""A synthetic valley: land cover, elevation, and reflectance on a day of the year.

The land is a function of two coordinates, metres east and north of `ORIGIN` in EPSG:3035, so that every scene
shows the same ground whatever its zone, resolution or extent. Files, sensors and clouds are elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

ORIGIN = (4424600.0, 2598700.0)
BANDS = ("blue", "green", "red", "rededge", "nir", "swir")

COVERS = (
    "water",
    "conifer",
    "broadleaf",
    "meadow",
    "wheat",
    "maize",
    "orchard",
    "vineyard",
    "roof",
    "street",
    "rock",
)
COVER = {name: number for number, name in enumerate(COVERS)}

# Reflectance of a closed canopy (or of the bare surface where nothing grows), in the order of BANDS.
_CANOPY = np.array(
    [
        [0.030, 0.042, 0.024, 0.016, 0.010, 0.006],
        [0.015, 0.030, 0.017, 0.060, 0.260, 0.100],
        [0.019, 0.048, 0.021, 0.100, 0.410, 0.170],
        [0.029, 0.078, 0.038, 0.130, 0.420, 0.220],
        [0.024, 0.060, 0.028, 0.100, 0.440, 0.180],
        [0.022, 0.062, 0.023, 0.110, 0.490, 0.190],
        [0.030, 0.058, 0.038, 0.110, 0.360, 0.190],
        [0.040, 0.068, 0.052, 0.120, 0.310, 0.200],
        [0.075, 0.085, 0.120, 0.150, 0.180, 0.210],
        [0.080, 0.084, 0.088, 0.100, 0.125, 0.150],
        [0.105, 0.115, 0.125, 0.140, 0.160, 0.190],
    ],
    dtype=np.float32,
)
_SOIL = np.array([0.070, 0.098, 0.130, 0.160, 0.200, 0.290], dtype=np.float32)
_STRAW = np.array([0.085, 0.130, 0.175, 0.220, 0.300, 0.350], dtype=np.float32)
_SNOW = np.array([0.82, 0.83, 0.82, 0.80, 0.72, 0.08], dtype=np.float32)
_BUILT = (COVER["roof"], COVER["street"], COVER["rock"], COVER["water"])


@cache
def _random_table(seed: int) -> Floats:
    return np.random.default_rng(seed).random((256, 256), dtype=np.float32)


def make_noise(x: Floats, y: Floats, scale: float, seed: int, octaves: int = 1) -> Floats:
    """Make smooth noise in 0..1 whose bumps are `scale` metres wide; each octave halves width and weight."""
    total = np.zeros(x.shape, np.float32)
    weight = 0.0
    for octave in range(octaves):
        share = 0.5**octave
        total += np.float32(share) * _smooth_lattice(x, y, scale * share, seed + octave)
        weight += share
    return total / np.float32(weight)


def _smooth_lattice(x: Floats, y: Floats, scale: float, seed: int) -> Floats:
    table = _random_table(seed)
    u, v = x / np.float32(scale), y / np.float32(scale)
    column, row = np.floor(u).astype(np.int32), np.floor(v).astype(np.int32)
    u, v = u - column, v - row
    u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
    left, right = column & 255, (column + 1) & 255
    low, high = row & 255, (row + 1) & 255
    south = table[low, left] * (1 - u) + table[low, right] * u
    north = table[high, left] * (1 - u) + table[high, right] * u
    return south * (1 - v) + north * v


def smooth_step(value: Floats, start: float, end: float) -> Floats:
    """Return 0 below `start`, 1 above `end`, and a smooth transition between."""
    share = np.clip((value - start) / np.float32(end - start), 0, 1)
    return share * share * (3 - 2 * share)


def _valley_axes(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    turn = np.deg2rad(18.0)
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    return x * cos + y * sin, y * cos - x * sin


def _main_river(along: Floats) -> Floats:
    return 1250 + 230 * np.sin(along / 950) + 110 * np.sin(along / 370 + 1)


def _side_river(across: Floats) -> Floats:
    return -500 + 170 * np.sin(across / 800) + 70 * np.sin(across / 290)


def _above_floor(x: Floats, y: Floats) -> Floats:
    """Return metres from the edge of the nearer valley floor, 0 on the floor."""
    across, along = _valley_axes(x, y)
    width = 1750 + 700 * (make_noise(x, y, 2600, 11, 2) - 0.5)
    main = np.abs(across - 650) - width
    side = np.abs(along - _side_river(across)) - width / 4 + 3 * np.maximum(1500 - across, 0)
    return np.maximum(np.minimum(main, side), 0).astype(np.float32)


def compute_elevation(x: Floats, y: Floats) -> Floats:
    """Compute metres above sea level of points `x`, `y` (metres from ORIGIN)."""
    rise = _above_floor(x, y)
    ridges = 1 - np.abs(2 * make_noise(x, y, 1700, 21, 4) - 1)
    slopes = 1500 * (1 - np.exp(-rise / 2600)) + 820 * ridges * smooth_step(rise, 0, 1500)
    return (235 + slopes + 12 * make_noise(x, y, 900, 31)).astype(np.float32)


@dataclass(frozen=True)
class Ground:
    """The land at a grid of points, as far as it does not change with the date.

    `cover` is an index into COVERS; `height` is in metres; `vigour` (0..1), `tone` (about 1) and
    `grain` (about 1) make parcels and pixels of one cover differ; `slope_x`, `slope_y` are the rises per
    metre along the columns and up the rows.
    """

    cover: Ints
    height: Floats
    vigour: Floats
    tone: Floats
    grain: Floats
    slope_x: Floats
    slope_y: Floats


def survey_ground(x: Floats, y: Floats, spacing: float) -> Ground:
    """Survey the land at points `x`, `y` (metres from ORIGIN; rows go south, `spacing` metres apart)."""
    height = compute_elevation(x, y)
    rise = _above_floor(x, y)
    parcel, rim = _number_parcels(x, y)
    cover = _plant_crops(parcel, rise, rim)
    _plant_forest(cover, x, y, rise, height)
    vigour = _random_table(47)[parcel % 251, parcel % 241]
    tone = 0.9 + 0.2 * _random_table(48)[parcel % 239, parcel % 253]
    _build_towns(cover, x, y, rise)
    _add_water(cover, x, y, rise)
    down, right = (np.asarray(np.gradient(height, np.float32(spacing), axis=axis)) for axis in (0, 1))
    grain = _compute_grain(cover, x, y)
    return Ground(cover, height, vigour, tone, grain, right, -down)


@cache
def _block_centres() -> cKDTree:
    side = np.arange(-16000, 16001, 540.0)
    centres = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    return cKDTree(centres + np.random.default_rng(5).uniform(-230, 230, centres.shape))


def _number_parcels(x: Floats, y: Floats) -> tuple[Ints, NDArray[np.bool_]]:
    """Return the parcel number of each point, and whether it lies on a track between blocks of parcels."""
    tree = _block_centres()
    distance, block = tree.query(np.stack([x.ravel(), y.ravel()], axis=-1), k=2)
    rim = (distance[:, 1] - distance[:, 0] < 14).reshape(x.shape)
    nearest = block[:, 0].reshape(x.shape).astype(np.int32)
    traits = np.random.default_rng(6)
    turn = np.deg2rad(traits.normal(-18, 14, tree.n) + 90 * (traits.random(tree.n) < 0.3)).astype(np.float32)
    width = traits.uniform(55, 130, tree.n).astype(np.float32)[nearest]
    length = traits.uniform(170, 420, tree.n).astype(np.float32)[nearest]
    cos, sin = np.cos(turn)[nearest], np.sin(turn)[nearest]
    column = np.floor((x * cos + y * sin) / width).astype(np.int32)
    row = np.floor((y * cos - x * sin) / length).astype(np.int32)
    return (nearest * 7919 + column * 1543 + row * 389) & 0x7FFFFFF, rim


def _plant_crops(parcel: Ints, rise: Floats, rim: NDArray[np.bool_]) -> Ints:
    choice = _random_table(45)[parcel % 256, parcel % 247]
    shares = np.array([0.24, 0.46, 0.70, 0.80], dtype=np.float32)
    plain = np.array([COVER[c] for c in ("wheat", "meadow", "maize", "vineyard", "orchard")], dtype=np.int32)
    cover = plain[np.searchsorted(shares, choice)]
    terraces = (rise > 0) & (rise < 420)
    cover = np.where(terraces & (choice > 0.35), COVER["vineyard"], cover)
    cover = np.where((rise >= 420) | rim, COVER["meadow"], cover)
    return cover.astype(np.int32)


def _plant_forest(cover: Ints, x: Floats, y: Floats, rise: Floats, height: Floats) -> None:
    density = make_noise(x, y, 620, 51, 4)
    wooded = density > np.where(rise > 200, 0.40, 0.69) + 0.25 * smooth_step(200 - rise, 0, 200) * (rise > 0)
    needles = make_noise(x, y, 300, 61, 3) + (height - 800) / 1500 > 0.5
    treeline = 1750 + 180 * (make_noise(x, y, 400, 65, 3) - 0.5)
    cover[wooded & ~needles] = COVER["broadleaf"]
    cover[wooded & needles] = COVER["conifer"]
    cover[(height > treeline) & (cover != COVER["meadow"])] = COVER["meadow"]
    cover[height > treeline + 150] = COVER["rock"]


_TOWNS = ((500.0, 2450.0, 780.0), (-700.0, -2300.0, 260.0), (5200.0, -1000.0, 230.0), (1700.0, 700.0, 170.0))


def _build_towns(cover: Ints, x: Floats, y: Floats, rise: Floats) -> None:
    """Build towns of blocks and streets, and the road along the valley."""
    across, along = _valley_axes(x, y)
    fray = 420 * (make_noise(x, y, 330, 71, 3) - 0.5)
    lots = _random_table(73)
    for u, v, radius in _TOWNS:
        inside = np.hypot(across - u, along - v) + fray < radius
        street = (np.mod(across, 92) < 11) | (np.mod(along, 118) < 11)
        house = lots[(along // 18).astype(np.int32) & 255, (across // 15).astype(np.int32) & 255]
        cover[inside] = np.select(
            [street[inside], house[inside] < 0.42, house[inside] < 0.62],
            [COVER["street"], COVER["roof"], COVER["street"]],
            COVER["meadow"],
        )
    road = np.abs(across - 880 - 150 * np.sin(along / 1300)) < 9
    cover[road & (rise < 50)] = COVER["street"]


def _add_water(cover: Ints, x: Floats, y: Floats, rise: Floats) -> None:
    """Add the rivers and the lake."""
    across, along = _valley_axes(x, y)
    cover[np.abs(across - _main_river(along)) < 32] = COVER["water"]
    brook = (np.abs(along - _side_river(across)) < 15) & (across > _main_river(along)) & (rise < 100)
    cover[brook] = COVER["water"]
    shore = 300 * (make_noise(x, y, 480, 81, 3) - 0.5)
    cover[np.hypot((across - 250) / 0.75, along + 2350) + shore < 480] = COVER["water"]


def _compute_grain(cover: Ints, x: Floats, y: Floats) -> Floats:
    """Compute the brightness of single pixels: rough in forest and town, smooth on water."""
    fine, coarse = make_noise(x, y, 17, 91), make_noise(x, y, 160, 92, 2)
    rough = np.full(len(COVERS), 0.10, np.float32)
    for name, share in (
        ("water", 0.03),
        ("conifer", 0.38),
        ("broadleaf", 0.30),
        ("roof", 0.4),
        ("rock", 0.35),
    ):
        rough[COVER[name]] = share
    return 1 + rough[cover] * (fine - 0.5) + 0.16 * (coarse - 0.5)


def compute_greenness(land: Ground, day_of_year: int) -> Floats:
    """Compute the share of each point covered by green leaves (0..1) on a day of the year."""
    day = np.float32(day_of_year) + 16 * (land.vigour - 0.5) + (land.height - 240) / 60
    lush = 0.84 + 0.15 * np.mod(land.vigour * 7, 1)
    green = np.zeros(day.shape, np.float32)
    for name, curve in _SEASONS.items():
        chosen = land.cover == COVER[name]
        green[chosen] = curve(day[chosen]) * lush[chosen]
    return np.where(land.cover == COVER["conifer"], np.float32(0.96), green)


def _season_curve(day: Floats, spring: float, autumn: float, low: float, high: float) -> Floats:
    return low + (high - low) * smooth_step(day, spring - 20, spring + 20) * (
        1 - smooth_step(day, autumn - 16, autumn + 16)
    )


def _mowing_curve(day: Floats) -> Floats:
    regrowth = [1 - (day > cut) * (1 - smooth_step(day, cut, cut + 32)) * 0.6 for cut in (148, 199, 250)]
    return _season_curve(day, 92, 305, 0.45, 1.0) * np.prod(regrowth, axis=0)


_SEASONS = {
    "broadleaf": lambda day: _season_curve(day, 108, 296, 0.18, 1.0),
    "meadow": _mowing_curve,
    "wheat": lambda day: _season_curve(day, 88, 176, 0.22, 1.0),
    "maize": lambda day: _season_curve(day, 172, 262, 0.03, 1.0),
    "orchard": lambda day: _season_curve(day, 112, 306, 0.30, 0.92),
    "vineyard": lambda day: _season_curve(day, 140, 292, 0.22, 0.74),
}


def snow_cover(land: Ground, day_of_year: int) -> NDArray[np.bool_]:
    """Return where snow lies: above a line that rises from 1100 m in February to the summits in May."""
    day = np.array(day_of_year, np.float32)
    line = 1100 + 1500 * smooth_step(day, 55, 145) * (1 - smooth_step(day, 285, 350))
    aspect = 420 * land.slope_y
    return (land.height + aspect + 200 * (land.grain - 1) > line) & (land.cover != COVER["water"])


def compute_reflectance(land: Ground, day_of_year: int, sun: tuple[float, float]) -> Floats:
    """Compute surface reflectance (BANDS, y, x); `sun` is azimuth and elevation in degrees."""
    green = compute_greenness(land, day_of_year)
    harvested = (land.cover == COVER["wheat"]) & (165 < day_of_year < 240)
    light = land.tone * land.grain * _shade_hills(land, sun)
    built = np.isin(land.cover, _BUILT)
    snow = snow_cover(land, day_of_year)
    layers = np.empty((len(BANDS), *green.shape), np.float32)
    for band, layer in enumerate(layers):
        bare = np.where(harvested, _STRAW[band], _SOIL[band])
        canopy = _CANOPY[land.cover, band]
        surface = np.where(built, canopy, green * canopy + (1 - green) * bare)
        layer[:] = np.where(snow, _SNOW[band], surface) * light
    return layers


def _shade_hills(land: Ground, sun: tuple[float, float]) -> Floats:
    azimuth, altitude = np.deg2rad(sun)
    east, north, up = np.sin(azimuth), np.cos(azimuth), np.tan(altitude)
    facing = (up - east * land.slope_x - north * land.slope_y) / up
    facing = facing / np.sqrt(1 + land.slope_x**2 + land.slope_y**2)
    return np.clip(0.22 + 0.78 * facing, 0.18, 1.45).astype(np.float32)
