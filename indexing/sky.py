"""Clouds, their shadows and the edge of the swath for one overpass, as functions of the ground coordinates.

Coordinates are those of `landscape`: metres from its origin, so that neighbouring scenes of one day share
one sky.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from odc_openeo.indexing.landscape import Floats, make_noise, smooth_step

CLOUD_BASE = 1100.0


@dataclass(frozen=True)
class Overpass:
    """One sky: time, share of cloud (0..1), and the line (metres eastward) where the swath begins."""

    time: datetime
    clouds: float
    swath_begins: float | None = None

    @property
    def day_of_year(self) -> int:
        """Day of the year, 1 to 366."""
        return self.time.timetuple().tm_yday

    @property
    def sun(self) -> tuple[float, float]:
        """Azimuth and elevation of the sun in degrees, approximate for mid-morning at 46 degrees north."""
        season = np.cos((self.day_of_year - 172) / 365 * 2 * np.pi)
        return round(155.0 - 8 * float(season), 2), round(43.0 + 21 * float(season), 2)


def cloud_opacity(x: Floats, y: Floats, overpass: Overpass) -> Floats:
    """Compute the opacity of the clouds above each point, 0 (clear) to 1."""
    if overpass.clouds <= 0:
        return np.zeros(x.shape, np.float32)
    drift = np.random.default_rng(overpass.time.date().toordinal()).uniform(0, 90_000, 2).astype(np.float32)
    field = make_noise(x + drift[0], y + drift[1], 1500, 131, 5)
    edge = 0.5 + 0.115 * NormalDist().inv_cdf(1 - overpass.clouds)
    return smooth_step(field, edge - 0.045, edge + 0.075)


def cloud_shadow(x: Floats, y: Floats, overpass: Overpass) -> Floats:
    """Compute how deep each point lies in the shadow of a cloud, 0 to 1."""
    azimuth, altitude = np.deg2rad(overpass.sun)
    reach = CLOUD_BASE / np.tan(altitude)
    east, north = np.float32(np.sin(azimuth) * reach), np.float32(np.cos(azimuth) * reach)
    return cloud_opacity(x + east, y + north, overpass)


def is_in_swath(x: Floats, y: Floats, overpass: Overpass) -> NDArray[np.bool_]:
    """Return the points inside the swath, whose edge leans like the ground track of a descending orbit."""
    if overpass.swath_begins is None:
        return np.ones(x.shape, bool)
    return x - np.float32(0.22) * y > overpass.swath_begins
