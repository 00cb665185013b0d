"""People read codes or names of reference systems, never definitions."""

from __future__ import annotations

import pyproj
import pytest
from odc.geo import CRS

from odc_openeo.spatial.reference_system_names import name_crs


@pytest.mark.parametrize(
    ("definition", "name"),
    [
        ("EPSG:32632", "EPSG:32632"),
        (pyproj.CRS(32632).to_wkt("WKT1_GDAL"), "EPSG:32632"),
        (pyproj.CRS(3035).to_wkt(), "EPSG:3035"),
        ("OGC:CRS84", "OGC:CRS84"),
        ("ESRI:54009", "ESRI:54009"),
        ("+proj=sinu +lon_0=0 +R=6371007.181 +units=m", "unnamed system (Sinusoidal)"),
        ('LOCAL_CS["a' + "\n" + 'b",UNIT["metre",1]]', "a b"),
    ],
)
def test_names(definition: str, name: str) -> None:
    assert name_crs(pyproj.CRS(definition)) == name
    if not definition.startswith("LOCAL"):
        assert name_crs(CRS(definition)) == name
