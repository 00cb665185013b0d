"""Wall time, CPU time, bytes read and peak memory of work done by several processes together."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

RUNS = 5


@dataclass(frozen=True)
class Processes:
    """The measured processes: ``workers`` compute chunks, those in ``other_pids`` do the rest."""

    workers: Sequence[int]
    other_pids: Sequence[int] = ()

    @property
    def all_pids(self) -> list[int]:
        """The ids of all processes."""
        return [*self.workers, *self.other_pids]


@dataclass(frozen=True)
class Cost:
    """The cost of some work: times, bytes read from files, and the peak memory of a worker."""

    wall_s: float
    cpu_s: float
    read_bytes: int
    other_read_bytes: int
    memory_bytes: int


def measure_cost(action: Callable[[], object], processes: Processes) -> Cost:
    """Run the action and measure its cost."""
    for pid in processes.workers:
        # Reset the peak memory.
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    cpu, read, other_bytes = (
        _cpu_seconds(processes.all_pids),
        _bytes_read(processes.workers),
        _bytes_read(processes.other_pids),
    )
    start = time.perf_counter()
    action()
    wall = time.perf_counter() - start
    peak = max((_peak_memory(pid) for pid in processes.workers), default=0)
    return Cost(
        wall,
        _cpu_seconds(processes.all_pids) - cpu,
        _bytes_read(processes.workers) - read,
        _bytes_read(processes.other_pids) - other_bytes,
        peak,
    )


def _cpu_seconds(pids: Iterable[int]) -> float:
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


def _bytes_read(pids: Iterable[int]) -> int:
    """Bytes read by `read` and similar calls: from files, cached or not, but not from dask's sockets."""
    return sum(_read_number(f"/proc/{pid}/io", "rchar") for pid in pids)


def _peak_memory(pid: int) -> int:
    return 1024 * _read_number(f"/proc/{pid}/status", "VmHWM")


def _read_number(path: str, name: str) -> int:
    line = next(line for line in Path(path).read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])


def summarize_costs(costs: Sequence[Cost]) -> Cost:
    """Summarize costs: the median of each figure, the maximum of memory."""
    return Cost(
        statistics.median(c.wall_s for c in costs),
        statistics.median(c.cpu_s for c in costs),
        int(statistics.median(c.read_bytes for c in costs)),
        int(statistics.median(c.other_read_bytes for c in costs)),
        max(c.memory_bytes for c in costs),
    )


def percentiles(seconds: Sequence[float]) -> tuple[float, float, float]:
    """Compute p50, p95 and p99 in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return 1000 * cuts[49], 1000 * cuts[94], 1000 * cuts[98]


def fit_slope(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Fit the growth of cost with size: the exponent of a power law, 1 if proportional."""
    import numpy as np

    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])
