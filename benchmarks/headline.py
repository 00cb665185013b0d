"""Monthly cloud-free medians of ten bands over a square and a year: by hand, by us, and by others.

``python -m benchmarks.headline`` measures a small square with a date every ten days; with ``--kilometres 20
--days 5`` the task has its full size (3 GB of scenes, a result of 2 GB). README.md explains the columns.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks import by_hand, titiler, values
from benchmarks.compare import HAND, HERE, HTTP, PEER, Side
from benchmarks.graphs import (
    CLOUDS,
    Graph,
    finish_graph,
    get_band,
    load_scenes,
    make_child,
    make_node,
    make_reducer,
    make_ref,
)
from benchmarks.measure import Cost, summarize_costs
from benchmarks.peer import PeerError, start_peer
from benchmarks.running import CACHE, Service, empty_service, hand_client, index_documents
from benchmarks.scenes import Scenes, draw_land, make_square

TITILER: Final = "titiler-openeo"
FINE: Final = ("B02", "B03", "B04", "B08")
COARSE: Final = ("B05", "B06", "B07", "B8A", "B11", "B12")
BANDS: Final = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
YEAR: Final = ["2022-01-01", "2023-01-01"]
BLOCK: Final = 512
LONGEST_S: Final = 2 * 3600.0
"""Seconds that a side may take: on a small machine the full task takes the better part of an hour."""


def make_scenes(kilometres: int, days: int) -> Scenes:
    """Describe scenes of a year like those of Sentinel-2: bands of 10 m and 20 m, classes of 20 m."""
    return Scenes(
        f"bench_headline_{kilometres}km_{days}d",
        make_square(32632, 680000, 5160000, 100 * kilometres),
        365 // days,
        {**dict.fromkeys(BANDS, "uint16"), "SCL": "uint8"},
        draw_land,
        days=days,
        coarse=(*COARSE, "SCL"),
        averaged=BANDS,
        first=datetime(2022, 1, 2, 10, 20, tzinfo=UTC),
    )


def monthly_medians(scenes: Scenes, *, pairs: bool = False) -> Graph:
    """The graph; with ``pairs``, classes are joined in pairs, for back-ends whose ``any`` takes no list."""
    is_class = {f"is{value}": make_node("eq", x=make_ref("scl"), y=value) for value in CLOUDS}
    last = make_node("any", data=[make_ref(name) for name in is_class])
    if pairs:
        is_class["a"] = make_node("or", x=make_ref("is3"), y=make_ref("is8"))
        is_class["b"] = make_node("or", x=make_ref("is9"), y=make_ref("is10"))
        last = make_node("or", x=make_ref("a"), y=make_ref("b"))
    cloudy = make_child(scl=get_band("SCL"), **is_class, last=last)
    return finish_graph(
        {
            "load": load_scenes(scenes, *BANDS, "SCL", dates=YEAR),
            "ten": make_node("filter_bands", data=make_ref("load"), bands=list(BANDS)),
            "cloudy": make_node("reduce_dimension", data=make_ref("load"), dimension="bands", reducer=cloudy),
            "masked": make_node("mask", data=make_ref("ten"), mask=make_ref("cloudy")),
            "median": make_node(
                "aggregate_temporal_period",
                data=make_ref("masked"),
                period="month",
                reducer=make_reducer("median"),
            ),
        },
        "median",
    )


def medians_by_hand(cache: Path, scenes: Scenes, target: Path) -> None:
    """The same with odc-stac, xarray and dask, all months in one computation."""
    cube = by_hand.load_bands(cache, scenes, [*BANDS, "SCL"], {"x": BLOCK, "y": BLOCK})
    cloudy = cube["SCL"].isin(list(CLOUDS))
    ten = cube[list(BANDS)].to_dataarray("band")
    clear = ten.where((ten != 0) & ~cloudy).astype("float32")
    months = [month.chunk({"time": -1}) for _, month in clear.groupby("time.month")]
    medians = [by_hand.reduce_to_medians(month) for month in months]
    by_hand.write_images([m.transpose("band", "y", "x") for m in medians], cube.odc.crs, target)


@dataclass(frozen=True)
class Options:
    """What to measure."""

    scenes: Scenes
    cache: Path
    runs: int
    warm_up: bool
    without: frozenset[str]


@contextmanager
def start_sides(options: Options, running: Service, console: Console) -> Iterator[dict[str, Side]]:
    """Start what is needed by the sides; yield them by name."""
    scenes, graph = options.scenes, monthly_medians(options.scenes)
    here = running.processes(here=True)
    sides = {
        HAND: Side(lambda target: medians_by_hand(options.cache, scenes, target), here),
        HERE: Side(lambda target: running.in_process(graph, target), here),
        HTTP: Side(lambda target: running.over_http(graph, target), running.processes(here=False)),
    }
    sides = {name: side for name, side in sides.items() if name not in options.without}
    with ExitStack() as stack:
        for name, start in ((PEER, _start_peer), (TITILER, _start_titiler)):
            if name in options.without:
                continue
            try:
                sides[name] = stack.enter_context(start(options, running))
            except (PeerError, titiler.TitilerError) as error:
                console.print(f"without {name}: {error}", markup=False)
        yield sides


@contextmanager
def _start_peer(options: Options, running: Service) -> Iterator[Side]:
    chunks = {options.scenes.product: {"x": BLOCK, "y": BLOCK}}
    graph = monthly_medians(options.scenes, pairs=True)
    with start_peer(options.cache, (options.scenes,), chunks, seconds=LONGEST_S) as peer:
        yield Side(lambda target: peer.run(graph, target), peer.processes)


@contextmanager
def _start_titiler(options: Options, running: Service) -> Iterator[Side]:
    graph = titiler.monthly_medians(options.scenes, BANDS)
    with titiler.start_titiler(options.cache, running.address) as server:
        yield Side(lambda target: server.run(graph, target), server.processes)


def print_table(sides: dict[str, Side], options: Options, console: Console) -> None:
    """Print the costs of the sides."""
    scenes = options.scenes
    size = sum(path.stat().st_size for path in (options.cache / scenes.product).rglob("*.tif"))
    title = (
        f"{scenes.grid.shape.x / 100:g} km x {scenes.grid.shape.y / 100:g} km, {scenes.dates} dates, "
        f"{len(BANDS)} bands, {size / 1e6:.0f} MB of files; load of the machine {os.getloadavg()[0]:.1f} "
        f"on {psutil.cpu_count()} cores"
    )
    table = Table(title=title, title_justify="left")
    for name in ("", "wall s", "least s", "CPU s", "CPU hours", "read MB", "worker MB", "difference"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    base = next(iter(sides.values()))
    for name, side in sides.items():
        table.add_row(name, *_format_cells(side, base))
    console.print(table)
    for name, side in sides.items():
        if side.error is not None:
            console.print(f"{name}: {side.error[:300]}", markup=False)


def _format_cells(side: Side, base: Side) -> list[str]:
    if side.error is not None or not side.costs:
        return ["fails"]
    cost: Cost = summarize_costs(side.costs)
    compared = "" if side is base else f"{_compare(side.pixels, base.pixels):.2g}"
    return [
        f"{cost.wall_s:.1f}",
        f"{min(c.wall_s for c in side.costs):.1f}",
        f"{cost.cpu_s:.1f}",
        f"{cost.cpu_s / 3600:.4f}",
        f"{cost.read_bytes / 1e6:.0f} + {cost.other_read_bytes / 1e6:.0f}",
        f"{cost.memory_bytes / 1e6:.0f}",
        compared,
    ]


def _compare(one: np.ndarray | None, other: np.ndarray | None) -> float:
    return float("nan") if one is None or other is None else values.compare_values(one, other)


def measure(options: Options, console: Console) -> dict[str, Side]:
    """Let the sides take turns, so that other load affects all equally; the first turn warms them up."""
    definition = options.scenes.write_definition(options.cache)
    documents = options.scenes.write_scenes(options.cache)
    with empty_service(gunicorn_workers=1, sync_timeout_s=LONGEST_S) as running, hand_client(running):
        index_documents(running.stack, [definition], documents)
        with start_sides(options, running, console) as sides:
            for turn in range(options.runs + options.warm_up):
                for name, side in sides.items():
                    side.run_once(warming=options.warm_up and turn == 0)
                    if side.costs:
                        console.print(f"{name}: {side.costs[-1].wall_s:.1f} s")
        return sides


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kilometres", type=int, default=4, help="side of the square")
    parser.add_argument("--days", type=int, default=10, help="days between two scenes")
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--cold", action="store_true", help="no warm-up: for tasks of minutes")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the scenes")
    parser.add_argument("--without", nargs="*", default=[], choices=(HAND, HERE, HTTP, PEER, TITILER))
    chosen = parser.parse_args()
    chosen.cache.mkdir(parents=True, exist_ok=True)
    scenes = make_scenes(chosen.kilometres, chosen.days)
    options = Options(scenes, chosen.cache, chosen.runs, not chosen.cold, frozenset(chosen.without))
    console = Console(width=130)
    print_table(measure(options, console), options, console)


if __name__ == "__main__":
    main()
