"""A full disk is reported as such, whatever the library that writes the file makes of it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import shapely
import xarray as xr
import xvec  # noqa: F401  the accessor

from odc_openeo.errors import StorageFailure
from odc_openeo.formats import FORMATS, Output, write_outputs
from odc_openeo.formats.write_errors import is_disk_full

ROOM = 2**18
TABLES = ("CSV", "Parquet")
WRITTEN = sorted(name for name, f in FORMATS.items() if f.write is not None)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for a quarter of a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(folder)], check=False
    )
    if mounted.returncode:
        pytest.skip("file systems can be mounted by root only")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def make_raster(shape: tuple[int, ...] = (3, 900, 900)) -> xr.DataArray:
    values = np.random.default_rng(1).integers(0, 255, shape, dtype="uint8")
    edges = {"bands": ["red", "green", "blue"], "y": 10.0 * np.arange(900)[::-1], "x": 10.0 * np.arange(900)}
    return xr.DataArray(values, edges, dims=("bands", "y", "x")).odc.assign_crs("EPSG:32632").chunk(y=300)


def make_vector() -> xr.DataArray:
    points = shapely.points(np.random.default_rng(1).uniform(0, 50, (60_000, 2)))
    values = np.random.default_rng(2).uniform(size=(len(points), 2))
    cube = xr.DataArray(values, {"geometry": points, "bands": ["a", "b"]}, dims=("geometry", "bands"))
    return cube.xvec.set_geom_indexes("geometry", crs=4326)


@pytest.mark.skipif(os.geteuid() != 0, reason="file systems can be mounted by root only")
@pytest.mark.parametrize("name", WRITTEN)
def test_every_format_says_that_the_disk_is_full(full_disk: Path, name: str) -> None:
    data = make_raster() if "raster" in FORMATS[name].gis_data_types and name not in TABLES else make_vector()
    with pytest.raises(StorageFailure, match="no space left") as raised:
        write_outputs(None, [Output.from_data(data, name)], full_disk)
    # Another try would fail as well.
    assert is_disk_full(raised.value)
    assert list(full_disk.iterdir()) == []


def test_other_failures_of_storage_are_not_taken_for_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(StorageFailure) as raised:
        write_outputs(None, [Output.from_data(3, "JSON")], tmp_path)
    assert not is_disk_full(raised.value)


def test_errors_that_lead_to_one_another() -> None:
    """Causes may go round in a circle, as those of dask's tasks can."""
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert not is_disk_full(first)
