"""Values that the tutorials must arrive at, computed from the sample scenes or known of their land."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import odc.stac
import rasterio
from pystac_client import Client

CLOUDY = (3, 8, 9, 10)


def load_ndvi(names: Mapping[str, Any], start: str, end: str) -> np.ndarray:
    """NDVI of the tutorials' box by odc-stac, NaN under clouds: an array of time, y and x."""
    root = names["connection"].root_url
    items = Client.open(root).search(
        collections=["s2_l2a_sample"], bbox=[11.32, 46.46, 11.39, 46.52], datetime=f"{start}/{end}"
    )
    scenes = odc.stac.load(
        items.item_collection(),
        bands=["B04", "B08", "SCL"],
        crs="EPSG:32632",
        resolution=10,
        x=(679000, 682000),
        y=(5150000, 5153000),
        groupby="solar_day",
    )
    red, nir = (scenes[band].where(scenes[band] != 0) * 0.0001 - 0.01 for band in ("B04", "B08"))
    ndvi = (nir - red) / (nir + red)
    return ndvi.where(~scenes["SCL"].isin(CLOUDY)).values


def check_composite(names: Mapping[str, Any]) -> None:
    """The composite is the median by numpy, and has no gaps; clouds lower the mean."""
    composite = names["composite"].values
    assert composite.shape == (300, 300)
    assert np.isfinite(composite).all()
    assert composite.mean() > names["cloudy_mean"].mean() + 0.03
    expected = np.nanmedian(load_ndvi(names, "2022-06-01", "2022-06-30T23:59:59Z"), axis=0)
    # Nearest neighbours of tiles in another zone may differ at the edges of fields.
    assert np.mean(np.isclose(composite, expected, atol=1e-4)) > 0.9


def check_fields(names: Mapping[str, Any]) -> None:
    """The fields are those of the land: wheat before maize."""
    series = names["series"]
    assert list(series.columns) == ["forest", "maize", "wheat"]
    assert len(series) == 35
    assert series["wheat"].idxmax() < series["maize"].idxmax()
    assert series.loc["2022-07-10":"2022-07-31", "wheat"].max() < 0.5
    assert series.loc["2022-07-10":"2022-07-31", "maize"].min() > 0.8


def check_change(names: Mapping[str, Any]) -> None:
    """What the notebook says of the fields is so, and the file is a GeoTIFF with its reference system."""
    values = names["values"]
    assert values.shape == (300, 300)
    assert names["fallen"].sum() > 10_000
    assert names["risen"].sum() > 10_000
    with rasterio.open(Path("change.tif")) as file:
        assert file.crs.to_epsg() == 32632
        assert file.res == (10, 10)


def check_function(names: Mapping[str, Any]) -> None:
    """Fields turn green in spring or early summer; water and roads do not."""
    day = names["day"].values
    assert day.shape == (140, 140)
    assert 0.01 < np.isnan(day).mean() < 0.3
    low, high = np.nanpercentile(day, [1, 99])
    assert 61 <= low < high <= 213
    assert high - low > 60


def check_months(names: Mapping[str, Any]) -> None:
    """The job gives eight months; the greenest is in summer."""
    months = names["monthly_ndvi"]
    assert months.sizes == {"t": 8, "y": 300, "x": 300}
    assert list(months["t"].dt.month.values) == list(range(3, 11))
    assert 4 <= int(names["valley_mean"].argmax()) <= 5
    assert names["job"].status() == "finished"


CHECKS: Mapping[str, Callable[[Mapping[str, Any]], None]] = {
    "ndvi-composite": check_composite,
    "field-series": check_fields,
    "change-map": check_change,
    "own-function": check_function,
    "results-in-xarray": check_months,
}
