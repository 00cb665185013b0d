"""Growth of time and memory with the work: a median NDVI of larger areas, and of more dates.

Measured in this process on the stack's cluster. A slope of 1 means that time is proportional to the work.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks import graphs
from benchmarks.measure import Cost, fit_slope, measure_cost, summarize_costs
from benchmarks.running import CACHE, Service, start_service
from benchmarks.scenes import BOX, TILE

SIDE: Final = 1280
AREAS: Final = (1, 4, 16, 64)
DATES: Final = (1, 2, 4, 8, 16)


def by_area(times: int) -> dict[str, Any]:
    """NDVI of a part of the tile, ``times`` as large as the smallest."""
    side = round(SIDE * times**0.5)
    load = graphs.load_scenes(TILE, "B04", "B08", grid=TILE.grid[:side, :side])
    return _median_graph({"load": load, "ndvi": graphs.compute_ndvi("load")})


def by_dates(times: int) -> dict[str, Any]:
    """NDVI of the box at the first ``times`` dates."""
    last = BOX.list_times()[times - 1].date().toordinal() + 1
    end = type(BOX.list_times()[0].date()).fromordinal(last).isoformat()
    load = graphs.load_scenes(BOX, "B04", "B08", dates=["2022-01-01", end])
    return _median_graph({"load": load, "ndvi": graphs.compute_ndvi("load")})


def _median_graph(graph: graphs.Graph) -> dict[str, Any]:
    reduced = graphs.make_node(
        "reduce_dimension", data=graphs.make_ref("ndvi"), dimension="t", reducer=graphs.make_reducer("median")
    )
    return graphs.finish_graph({**graph, "median": reduced}, "median")


def measure_costs(running: Service, process_graphs: Sequence[dict[str, Any]], runs: int) -> Iterator[Cost]:
    """Measure the cost of each graph; the memory of the workers is the maximum of all runs."""
    processes = running.processes(here=True)
    for graph in process_graphs:
        measured_costs = []
        for _ in range(runs):
            target = Path(tempfile.mkdtemp(prefix="odc-openeo-bench-"))
            try:
                measured_costs.append(
                    measure_cost(lambda g=graph, t=target: running.in_process(g, t), processes)
                )
            finally:
                shutil.rmtree(target)
        yield summarize_costs(measured_costs)


def print_growth(title: str, sizes: Sequence[int], measured_costs: Sequence[Cost], console: Console) -> None:
    """Print a table, slopes, and the growth of memory."""
    table = Table(title=title, title_justify="left")
    for name in ("work", "wall s", "CPU s", "read MB", "worker MB"):
        table.add_column(name, justify="right")
    for size, cost in zip(sizes, measured_costs, strict=True):
        cells = [
            f"{cost.wall_s:.2f}",
            f"{cost.cpu_s:.2f}",
            f"{(cost.read_bytes + cost.other_read_bytes) / 1e6:.1f}",
        ]
        table.add_row(f"x{size}", *cells, f"{cost.memory_bytes / 1e6:.0f}")
    console.print(table)
    wall, cpu = (
        fit_slope(sizes, [c.wall_s for c in measured_costs]),
        fit_slope(sizes, [c.cpu_s for c in measured_costs]),
    )
    memory = [c.memory_bytes for c in measured_costs if c is not measured_costs[0]]
    console.print(
        f"slopes: wall {wall:.2f}, CPU {cpu:.2f}; memory of a worker from the second line on: "
        f"largest/least {max(memory) / min(memory):.2f}"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the scenes")
    options = parser.parse_args()
    console = Console(width=120)
    with start_service(options.cache) as running:
        list(measure_costs(running, [by_dates(2), by_area(1)], 1))
        for title, sizes, make in (
            (f"median NDVI of 4 dates, x1 is {SIDE} x {SIDE} pixels", AREAS, by_area),
            (
                f"median NDVI of {BOX.grid.shape.x} x {BOX.grid.shape.y} pixels, x1 is one date",
                DATES,
                by_dates,
            ),
        ):
            print_growth(
                title, sizes, list(measure_costs(running, [make(n) for n in sizes], options.runs)), console
            )


if __name__ == "__main__":
    main()
