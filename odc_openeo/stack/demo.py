"""The demonstration: typical first steps of a user, with the openEO client and a running service."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from odc_openeo.indexing.samples import S2_PRODUCT, SAMPLE_AREA

MONTH: Final = ("2022-06-01", "2022-07-01")
SEASON: Final = ("2022-03-01", "2022-11-01")
CLOUDY: Final = (0, 1, 3, 8, 9, 10)
"""Scene classes without a clear view of land: no data, defective, cloud shadow, clouds, cirrus."""

PLACES: Final = ("west", "middle", "east")


@dataclass(frozen=True)
class _Step:
    """One step of the demonstration: its title, and its function, which returns a summary of the outcome."""

    title: str
    work: Callable[[], str]


def run_demo(url: str, output: Path, user: str, password: str, console: Console) -> None:
    """List collections, compute a composite and a time series, and write both with pictures to ``output``.

    Writes ``ndvi-composite.tif`` (COG), ``ndvi-composite.png``, ``ndvi-series.csv``, ``ndvi-series.json`` and
    ``ndvi-series.png``. Errors of the service are raised as exceptions of the client.
    """
    import openeo

    output.mkdir(parents=True, exist_ok=True)
    connection = openeo.connect(url).authenticate_basic(user, password)
    _list_collections(connection, console)
    composite, series = output / "ndvi-composite.tif", output / "ndvi-series"
    steps = [
        _Step(
            "Cloud-masked median NDVI of June 2022",
            lambda: _describe_files(composite, ndvi_composite(connection).download(composite)),
        ),
        _Step("Picture of the composite", lambda: _describe_files(draw_composite(composite))),
        _Step("Mean NDVI of three fields, every clear date", lambda: _save_series(connection, series)),
        _Step("Plot of the series", lambda: _describe_files(draw_series(series.with_suffix(".json")))),
    ]
    with Progress(
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[outcome]}"),
        console=console,
    ) as progress:
        for number, step in enumerate(steps, start=1):
            task = progress.add_task(f"{number}/{len(steps)} {step.title}", total=1, outcome="")
            progress.update(task, completed=1, outcome=escape(step.work()))
    console.print(f"Results are in [bold]{escape(str(output.resolve()))}[/bold]")


def _list_collections(connection: Any, console: Console) -> None:
    table = Table("Collection", "Title", "Time", box=None, header_style="bold")
    for collection in connection.list_collections():
        start, end = ((t or "open")[:10] for t in collection["extent"]["temporal"]["interval"][0])
        table.add_row(collection["id"], collection.get("title", ""), f"{start} – {end}")
    console.print(table)


def clear_ndvi(connection: Any, interval: tuple[str, str], area: Mapping[str, float]) -> Any:
    """The NDVI where the scene classification has no clouds, as a cube of the client."""
    bands = ["B04", "B08", "SCL"]
    cube = connection.load_collection(
        S2_PRODUCT, spatial_extent=dict(area), temporal_extent=list(interval), bands=bands
    )
    classes = cube.band("SCL")
    cloudy = classes == CLOUDY[0]
    for value in CLOUDY[1:]:
        cloudy = cloudy | (classes == value)
    return cube.ndvi(red="B04", nir="B08").mask(cloudy)


def ndvi_composite(connection: Any) -> Any:
    """The median NDVI of a month over the sample area, saved as Cloud Optimized GeoTIFF."""
    return clear_ndvi(connection, MONTH, SAMPLE_AREA).median_time().save_result(format="GTiff")


def ndvi_series(connection: Any) -> Any:
    """The mean NDVI of three fields over the season, as a cube of the client."""
    area = make_polygons()
    return clear_ndvi(connection, SEASON, _get_bounds(area)).aggregate_spatial(area, reducer="mean")


def make_polygons() -> dict[str, Any]:
    """Make three fields, a few hundred metres wide each, in the sample area: GeoJSON in degrees."""
    width = SAMPLE_AREA["east"] - SAMPLE_AREA["west"]
    south = (SAMPLE_AREA["south"] + SAMPLE_AREA["north"]) / 2
    features = []
    for number, name in enumerate(PLACES):
        west = SAMPLE_AREA["west"] + width * (0.2 + 0.27 * number)
        corners = [(0.0, 0.001), (0.006, 0.0), (0.007, 0.004), (0.001, 0.005), (0.0, 0.001)]
        ring = [[round(west + x, 6), round(south + y, 6)] for x, y in corners]
        geometry = {"type": "Polygon", "coordinates": [ring]}
        features.append({"type": "Feature", "geometry": geometry, "properties": {"name": name}})
    return {"type": "FeatureCollection", "features": features}


def _get_bounds(collection: Mapping[str, Any]) -> dict[str, float]:
    points = [point for f in collection["features"] for point in f["geometry"]["coordinates"][0]]
    longitudes, latitudes = zip(*points, strict=True)
    return {
        "west": min(longitudes),
        "south": min(latitudes),
        "east": max(longitudes),
        "north": max(latitudes),
    }


def _save_series(connection: Any, stem: Path) -> str:
    cube = ndvi_series(connection)
    csv, json_ = stem.with_suffix(".csv"), stem.with_suffix(".json")
    cube.save_result(format="CSV").download(csv)
    cube.save_result(format="JSON").download(json_)
    return _describe_files(csv, json_)


def draw_composite(path: Path) -> Path:
    """Draw an NDVI GeoTIFF with a legend, as a PNG file next to it."""
    import rasterio
    from matplotlib.figure import Figure

    with rasterio.open(path) as source:
        ndvi = source.read(1, masked=True)
        left, bottom, right, top = source.bounds
        crs = source.crs
    figure = Figure(figsize=(8, 6.5), layout="constrained")
    axes = figure.subplots()
    extent = (left / 1000, right / 1000, bottom / 1000, top / 1000)
    image = axes.imshow(ndvi, cmap="YlGn", vmin=0, vmax=0.9, extent=extent, interpolation="nearest")
    axes.set(
        title="Median NDVI, June 2022, clouds masked", xlabel=f"Easting, km ({crs})", ylabel="Northing, km"
    )
    axes.ticklabel_format(useOffset=False)
    figure.colorbar(image, ax=axes, label="NDVI", shrink=0.8)
    picture = path.with_suffix(".png")
    figure.savefig(picture, dpi=130)
    return picture


def draw_series(path: Path) -> Path:
    """Plot a time series as a PNG file next to it; the JSON has the values of each polygon for each date."""
    import numpy as np
    from matplotlib.dates import ConciseDateFormatter
    from matplotlib.figure import Figure

    series: dict[str, list[Any]] = json.loads(path.read_text(encoding="utf-8"))
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for number, (name, colour) in enumerate(zip(PLACES, ("#b81f4b", "#0e6a7a", "#c58a1b"), strict=True)):
        values = {time: _to_number(fields[number]) for time, fields in series.items()}
        clear = {time[:10]: value for time, value in values.items() if value is not None}
        dates = np.array(list(clear), dtype="datetime64[D]")
        axes.plot(dates, list(clear.values()), marker="o", markersize=4, color=colour, label=name)
    axes.set(title="Mean NDVI of three fields, clear dates", ylabel="NDVI")
    axes.xaxis.set_major_formatter(ConciseDateFormatter(axes.xaxis.get_major_locator()))
    axes.grid(alpha=0.3)
    axes.legend(title="Field", frameon=False)
    picture = path.with_suffix(".png")
    figure.savefig(picture, dpi=130)
    return picture


def _to_number(value: Any) -> float | None:
    """Convert the value of a polygon, which is in a list if the cube has a bands dimension."""
    inner = value[0] if isinstance(value, list) else value
    return None if inner is None or inner != inner else float(inner)


def _describe_files(*written: Any) -> str:
    """Describe written files by names and sizes."""
    paths = [path for path in written if isinstance(path, Path)]
    return ", ".join(f"{path.name} ({path.stat().st_size / 1024:.0f} KiB)" for path in dict.fromkeys(paths))
