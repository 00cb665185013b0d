"""Each row measured four times: ours over HTTP and in-process, by hand, and with openeo-processes-dask.

``python -m benchmarks.compare 2 7`` measures only rows 2 and 7; README.md explains the columns.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import by_hand, floor, graphs, values
from benchmarks.measure import RUNS, Cost, Processes, measure_cost, summarize_costs
from benchmarks.peer import Peer, PeerError, start_peer
from benchmarks.running import CACHE, Service, hand_client, start_service

HTTP, HERE, HAND, PEER = "over HTTP", "in-process", "by hand", "openeo-processes-dask"
FLOOR = "windows and numpy"
"""Without dask and xarray: decoding, arithmetic and encoding alone."""
LIKE_PEER = "over HTTP, its graph"
"""Ours with the graph of the peer, where that graph is simpler."""
SIDES: Final = (FLOOR, HAND, HERE, HTTP, PEER, LIKE_PEER)
WHOLE = "the whole box"


@dataclass(frozen=True)
class Row:
    """One row: the same work as a graph and, where it makes sense, as a function written by hand."""

    title: str
    graph: dict[str, Any]
    hand: Callable[[Path, Path], None] | None
    peer_graph: dict[str, Any] | None = None
    integers: bool = False
    counts: bool = True
    peer_alone: bool = False
    """Whether only the peer accepts its graph."""
    whole: Callable[[Path], None] | None = None
    """Reads all pixels in the boxes, to compare the bytes read."""
    floor: Callable[[Path, Path], None] | None = None
    """The same with as little as possible around it."""


def list_rows() -> dict[str, Row]:
    """The rows by number."""
    return {
        "1": Row(
            "20 km box, 12 dates, 4 bands",
            graphs.box_to_cogs(),
            by_hand.box_to_cogs,
            integers=True,
            floor=floor.box_to_cogs,
        ),
        "2": Row(
            "masked median NDVI",
            graphs.masked_median(),
            by_hand.masked_median,
            graphs.masked_median(pairs=True),
            floor=floor.masked_median,
        ),
        "3": Row(
            "monthly means, interpolated",
            graphs.monthly_means(),
            by_hand.monthly_means,
            graphs.monthly_means(pairs=True),
        ),
        "4": Row(
            "series of 500 polygons",
            graphs.polygon_series(),
            by_hand.polygon_series,
            whole=by_hand.whole_tile("B04"),
            floor=floor.polygon_series,
        ),
        "5": Row(
            "two zones, 20 m, EPSG:3035",
            graphs.merged_zones(),
            by_hand.merged_zones,
            graphs.merged_zones(pairs=True),
            floor=floor.merged_zones,
        ),
        "6": Row(
            "smoothed DEM and slope",
            graphs.smoothed_slope(),
            by_hand.smoothed_slope,
            graphs.smoothed_heights(),
            floor=floor.smoothed_slope,
        ),
        "7": Row("three uses of one load", graphs.three_uses(), by_hand.three_uses, floor=floor.three_uses),
        "8": Row(
            "preview, 100x coarser",
            graphs.coarse_preview(),
            by_hand.coarse_preview,
            whole=by_hand.whole_tile("B04", "B08"),
        ),
        "9": Row("1 + 1", graphs.one_and_one(), None, counts=False),
        "10": Row(
            "curve of two years",
            graphs.yearly_curve(),
            by_hand.yearly_curve,
            graphs.yearly_curve_of_cube(),
            peer_alone=True,
        ),
    }


@dataclass
class Side:
    """One way of doing the work of a row, its costs, or the reason why it fails."""

    run: Callable[[Path], None]
    processes: Processes
    costs: list[Cost] = field(default_factory=list)
    pixels: np.ndarray | None = None
    error: str | None = None

    @contextmanager
    def _make_target(self) -> Iterator[Path]:
        target = Path(tempfile.mkdtemp(prefix="odc-openeo-bench-"))
        try:
            yield target
        finally:
            shutil.rmtree(target)

    def run_once(self, *, warming: bool) -> None:
        """Run once; the first run keeps the values, and the warm-up run is not counted."""
        if self.error is not None:
            return
        with self._make_target() as target:
            try:
                cost = measure_cost(lambda: self.run(target), self.processes)
            except Exception as error:
                # The table shows the failure; the other sides continue.
                self.error = f"{type(error).__name__}: {error}"
                return
            if self.pixels is None and any(target.glob("*")):
                self.pixels = values.read_cube(target)
            if not warming:
                self.costs.append(cost)


def list_sides(row: Row, running: Service, other: Peer | None) -> dict[str, Side]:
    """The sides of a row, by name."""
    result: dict[str, Side] = {}
    here = running.processes(here=True)
    if row.floor is not None:
        least = row.floor
        result[FLOOR] = Side(lambda target: least(running.cache, target), here)
    if row.hand is not None:
        hand = row.hand
        result[HAND] = Side(lambda target: hand(running.cache, target), here)
    result[HERE] = Side(lambda target: running.in_process(row.graph, target), here)
    http = running.processes(here=False)
    result[HTTP] = Side(lambda target: running.over_http(row.graph, target), http)
    if other is not None:
        graph = row.peer_graph or row.graph
        result[PEER] = Side(lambda target: other.run(graph, target, integers=row.integers), other.processes)
        if row.peer_graph is not None and not row.peer_alone:
            result[LIKE_PEER] = Side(lambda target: running.over_http(graph, target), http)
    return result


def measure_row(row: Row, running: Service, other: Peer | None, runs: int) -> dict[str, Side]:
    """Warm up all sides, then let them take turns, so that a busy machine affects all equally."""
    measured_sides = list_sides(row, running, other)
    for turn in range(runs + 1):
        for side in measured_sides.values():
            side.run_once(warming=turn == 0)
    if row.whole is not None:
        whole = row.whole
        measured_sides[WHOLE] = Side(lambda _: whole(running.cache), running.processes(here=True))
        measured_sides[WHOLE].run_once(warming=False)
    return measured_sides


# --- Tables --------------------------------------------------------------------------------------


def print_row(row: Row, results: Mapping[str, Side], console: Console) -> None:
    """Print the table of a row: costs of the sides, and ratios to the work by hand."""
    table = Table(title=row.title, title_justify="left")
    for name in (
        "",
        "wall s",
        "ratio",
        "least s",
        "ratio",
        "CPU s",
        "ratio",
        "read MB",
        "worker MB",
        "difference",
    ):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    base = results.get(HAND)
    for name in SIDES:
        if name in results:
            table.add_row(name, *_format_cells(results[name], base))
    console.print(table)
    if all(name in results and results[name].costs for name in (WHOLE, HERE)):
        whole, here = (summarize_costs(results[name].costs) for name in (WHOLE, HERE))
        times = whole.read_bytes / (here.read_bytes + here.other_read_bytes)
        console.print(f"the whole box: {_format_megabytes(whole)} MB read, {times:.1f} times ours")
    for name, side in results.items():
        if side.error is not None:
            console.print(f"{name}: {side.error[:300]}", markup=False)


def _format_cells(side: Side, base: Side | None) -> list[str]:
    if side.error is not None or not side.costs:
        return ["fails"]
    cost = summarize_costs(side.costs)
    least = min(c.wall_s for c in side.costs)
    ratios = ["", "", ""]
    if base is not None and base.costs:
        usual = summarize_costs(base.costs)
        ratios = [
            f"{ours / theirs:.2f}" if theirs else ""
            for ours, theirs in (
                (cost.wall_s, usual.wall_s),
                (least, _least_seconds(base)),
                (cost.cpu_s, usual.cpu_s),
            )
        ]
    return [
        f"{cost.wall_s:.3f}", ratios[0], f"{least:.3f}", ratios[1], f"{cost.cpu_s:.2f}", ratios[2],
        _format_megabytes(cost), f"{cost.memory_bytes / 1e6:.0f}", _format_difference(side, base),
    ]  # fmt: skip


def _format_megabytes(cost: Cost) -> str:
    """Megabytes read by the workers, and by the other processes."""
    return f"{cost.read_bytes / 1e6:.1f} + {cost.other_read_bytes / 1e6:.1f}"


def _least_seconds(side: Side) -> float:
    return min(c.wall_s for c in side.costs)


def _format_difference(side: Side, base: Side | None) -> str:
    if base is None or base is side or base.pixels is None or side.pixels is None:
        return ""
    return f"{values.compare_values(side.pixels, base.pixels):.2g}"


def show_means(results: Mapping[str, Mapping[str, Side]], console: Console) -> None:
    """Print geometric means of the ratios of medians and of least times, over all rows that count."""
    listed = list_rows()
    counted = [dict(sides) for number, sides in results.items() if listed[number].counts]
    for sides in counted:
        sides.setdefault(LIKE_PEER, sides[HTTP])
    for ours, theirs in ((HERE, HAND), (HTTP, HAND), (LIKE_PEER, PEER)):
        both = [s for s in counted if ours in s and theirs in s and s[ours].costs and s[theirs].costs]
        if not both:
            continue
        medians = [
            summarize_costs(s[ours].costs).wall_s / summarize_costs(s[theirs].costs).wall_s for s in both
        ]
        least = [_least_seconds(s[ours]) / _least_seconds(s[theirs]) for s in both]
        console.print(
            f"{ours} / {theirs}, {len(both)} rows: geometric mean {statistics.geometric_mean(medians):.2f} "
            f"(least times {statistics.geometric_mean(least):.2f}), largest {max(medians):.2f} "
            f"({max(least):.2f})"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", help="numbers of the rows to measure; all by default")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the scenes")
    parser.add_argument("--no-peer", action="store_true", help="without openeo-processes-dask")
    options = parser.parse_args()
    console = Console(width=120)
    console.print(f"load at the start: {describe_load()}")
    done: dict[str, dict[str, Side]] = {}
    with start_service(options.cache, gunicorn_workers=1) as running, hand_client(running):
        listed = list_rows()
        for number in options.rows or listed:
            # A separate peer per row, as one that exceeds its time has to be killed.
            with _start_peer(options, console) as other:
                done[number] = measure_row(listed[number], running, other, options.runs)
            print_row(listed[number], done[number], console)
            console.print(f"load: {describe_load()}")
    show_means(done, console)


def describe_load() -> str:
    """Describe how many processes wanted to run, in the last 1, 5 and 15 minutes, and the cores there are."""
    return ", ".join(f"{mean:.1f}" for mean in os.getloadavg()) + f" on {os.cpu_count()} cores"


@contextmanager
def _start_peer(options: argparse.Namespace, console: Console) -> Iterator[Peer | None]:
    if options.no_peer:
        yield None
        return
    try:
        context = start_peer(options.cache)
        peer_process = context.__enter__()
    except PeerError as error:
        console.print(f"without openeo-processes-dask: {error}")
        yield None
        return
    try:
        yield peer_process
    finally:
        context.__exit__(None, None, None)


if __name__ == "__main__":
    main()
