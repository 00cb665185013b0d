"""Each row four times: ours over HTTP and in this process, by hand, and with openeo-processes-dask.

``python -m benchmarks.compare 2 7`` measures only rows 2 and 7; see README.md for what the columns mean.
"""

from __future__ import annotations

import argparse
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

from benchmarks import by_hand, graphs, values
from benchmarks.measure import RUNS, Cost, Processes, measured, summary
from benchmarks.peer import Peer, PeerError, peer
from benchmarks.running import CACHE, Service, hand_client, service

HTTP, HERE, HAND, PEER = "over HTTP", "in-process", "by hand", "openeo-processes-dask"
LIKE_PEER = "over HTTP, its graph"
"""Ours with the graph that the peer is given, where that one is simpler."""
SIDES: Final = (HAND, HERE, HTTP, PEER, LIKE_PEER)
WHOLE = "the whole box"


@dataclass(frozen=True)
class Row:
    """What is measured: the same work as a graph and as a function written by hand, if a person would."""

    title: str
    graph: dict[str, Any]
    hand: Callable[[Path, Path], None] | None
    peer_graph: dict[str, Any] | None = None
    integers: bool = False
    counts: bool = True
    peer_alone: bool = False
    """Whether only the peer takes its graph."""
    whole: Callable[[Path], None] | None = None
    """Reads all that the boxes hold, to compare the bytes with."""


def rows() -> dict[str, Row]:
    """The rows by number."""
    return {
        "1": Row("20 km box, 12 dates, 4 bands", graphs.box_to_cogs(), by_hand.box_to_cogs, integers=True),
        "2": Row("masked median NDVI", graphs.composite(), by_hand.composite, graphs.composite(pairs=True)),
        "3": Row("monthly means, interpolated", graphs.months(), by_hand.months, graphs.months(pairs=True)),
        "4": Row("series of 500 polygons", graphs.series(), by_hand.series, whole=by_hand.whole_tile("B04")),
        "5": Row("two zones, 20 m, EPSG:3035", graphs.zones(), by_hand.zones, graphs.zones(pairs=True)),
        "6": Row("smoothed DEM and slope", graphs.terrain(), by_hand.terrain, graphs.smoothing()),
        "7": Row("three uses of one load", graphs.three_uses(), by_hand.three_uses),
        "8": Row(
            "preview, 100x coarser", graphs.preview(), by_hand.preview, whole=by_hand.whole_tile("B04", "B08")
        ),
        "9": Row("1 + 1", graphs.one_and_one(), None, counts=False),
        "10": Row(
            "curve of two years", graphs.curve(), by_hand.curve, graphs.curve_of_cube(), peer_alone=True
        ),
    }


@dataclass
class Side:
    """One way of doing the work of a row, what it cost each time, or why it does not work."""

    run: Callable[[Path], None]
    processes: Processes
    costs: list[Cost] = field(default_factory=list)
    found: np.ndarray | None = None
    error: str | None = None

    @contextmanager
    def _target(self) -> Iterator[Path]:
        target = Path(tempfile.mkdtemp(prefix="odc-openeo-bench-"))
        try:
            yield target
        finally:
            shutil.rmtree(target)

    def once(self, *, warming: bool) -> None:
        """Do it once; the first time warms up and keeps the values."""
        if self.error is not None:
            return
        with self._target() as target:
            try:
                cost = measured(lambda: self.run(target), self.processes)
            except Exception as error:
                # A line of the table says so; the other sides go on.
                self.error = f"{type(error).__name__}: {error}"
                return
            if warming:
                self.found = values.read(target) if any(target.glob("*")) else None
            else:
                self.costs.append(cost)


def sides(row: Row, running: Service, other: Peer | None) -> dict[str, Side]:
    """The sides that a row has."""
    found: dict[str, Side] = {}
    here = running.processes(here=True)
    if row.hand is not None:
        hand = row.hand
        found[HAND] = Side(lambda target: hand(running.cache, target), here)
    found[HERE] = Side(lambda target: running.in_process(row.graph, target), here)
    http = running.processes(here=False)
    found[HTTP] = Side(lambda target: running.over_http(row.graph, target), http)
    if other is not None:
        graph = row.peer_graph or row.graph
        found[PEER] = Side(lambda target: other.run(graph, target, integers=row.integers), other.processes)
        if row.peer_graph is not None and not row.peer_alone:
            found[LIKE_PEER] = Side(lambda target: running.over_http(graph, target), http)
    return found


def measure(row: Row, running: Service, other: Peer | None, runs: int) -> dict[str, Side]:
    """Warm all sides, then let them take turns, so that a busy machine is the same for all."""
    found = sides(row, running, other)
    for turn in range(runs + 1):
        for side in found.values():
            side.once(warming=turn == 0)
    if row.whole is not None:
        whole = row.whole
        found[WHOLE] = Side(lambda _: whole(running.cache), running.processes(here=True))
        found[WHOLE].once(warming=False)
    return found


# --- Tables --------------------------------------------------------------------------------------


def show(row: Row, found: Mapping[str, Side], console: Console) -> None:
    """One table: the sides with costs, and ratios to the work by hand."""
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
    base = found.get(HAND)
    for name in SIDES:
        if name in found:
            table.add_row(name, *_cells(found[name], base))
    console.print(table)
    if all(name in found and found[name].costs for name in (WHOLE, HERE)):
        whole, here = (summary(found[name].costs) for name in (WHOLE, HERE))
        times = whole.read_bytes / (here.read_bytes + here.others_read_bytes)
        console.print(f"the whole box: {_megabytes(whole)} MB read, {times:.1f} times ours")
    for name, side in found.items():
        if side.error is not None:
            console.print(f"{name}: {side.error[:300]}", markup=False)


def _cells(side: Side, base: Side | None) -> list[str]:
    if side.error is not None or not side.costs:
        return ["fails"]
    cost = summary(side.costs)
    least = min(c.wall_s for c in side.costs)
    ratios = ["", "", ""]
    if base is not None and base.costs:
        usual = summary(base.costs)
        ratios = [
            f"{ours / theirs:.2f}" if theirs else ""
            for ours, theirs in (
                (cost.wall_s, usual.wall_s),
                (least, _least(base)),
                (cost.cpu_s, usual.cpu_s),
            )
        ]
    return [
        f"{cost.wall_s:.3f}", ratios[0], f"{least:.3f}", ratios[1], f"{cost.cpu_s:.2f}", ratios[2],
        _megabytes(cost), f"{cost.memory_bytes / 1e6:.0f}", _difference(side, base),
    ]  # fmt: skip


def _megabytes(cost: Cost) -> str:
    """What the workers read, and what the others do."""
    return f"{cost.read_bytes / 1e6:.1f} + {cost.others_read_bytes / 1e6:.1f}"


def _least(side: Side) -> float:
    return min(c.wall_s for c in side.costs)


def _difference(side: Side, base: Side | None) -> str:
    if base is None or base is side or base.found is None or side.found is None:
        return ""
    return f"{values.difference(side.found, base.found):.2g}"


def show_means(found: Mapping[str, Mapping[str, Side]], console: Console) -> None:
    """Geometric means of the ratios over all rows that count, of medians and of least times."""
    listed = rows()
    counted = [dict(sides) for number, sides in found.items() if listed[number].counts]
    for sides in counted:
        sides.setdefault(LIKE_PEER, sides[HTTP])
    for ours, theirs in ((HERE, HAND), (HTTP, HAND), (LIKE_PEER, PEER)):
        both = [s for s in counted if ours in s and theirs in s and s[ours].costs and s[theirs].costs]
        if not both:
            continue
        medians = [summary(s[ours].costs).wall_s / summary(s[theirs].costs).wall_s for s in both]
        least = [_least(s[ours]) / _least(s[theirs]) for s in both]
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
    asked = parser.parse_args()
    console = Console(width=120)
    done: dict[str, dict[str, Side]] = {}
    with service(asked.cache, gunicorn_workers=1) as running, hand_client(running):
        listed = rows()
        for number in asked.rows or listed:
            # A peer of its own for each row: one that is not done in time has to be ended.
            with _peer(asked, console) as other:
                done[number] = measure(listed[number], running, other, asked.runs)
            show(listed[number], done[number], console)
    show_means(done, console)


@contextmanager
def _peer(asked: argparse.Namespace, console: Console) -> Iterator[Peer | None]:
    if asked.no_peer:
        yield None
        return
    try:
        context = peer(asked.cache)
        found = context.__enter__()
    except PeerError as error:
        console.print(f"without openeo-processes-dask: {error}")
        yield None
        return
    try:
        yield found
    finally:
        context.__exit__(None, None, None)


if __name__ == "__main__":
    main()
