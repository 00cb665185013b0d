"""Wall time, CPU time, bytes read and peak memory of work that several processes do together."""

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
    """The processes whose work counts: ``workers`` compute chunks, ``others`` do the rest."""

    workers: Sequence[int]
    others: Sequence[int] = ()

    @property
    def all(self) -> list[int]:
        """Their ids."""
        return [*self.workers, *self.others]


@dataclass(frozen=True)
class Cost:
    """What a piece of work cost; bytes are those read from files, by the workers and by the others; memory is
    the most that a worker held."""

    wall_s: float
    cpu_s: float
    read_bytes: int
    others_read_bytes: int
    memory_bytes: int


def measured(action: Callable[[], object], processes: Processes) -> Cost:
    """Run the action, and tell what it cost."""
    for pid in processes.workers:
        # Forget the peak so far.
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    cpu, read, others = _cpu(processes.all), _read(processes.workers), _read(processes.others)
    start = time.perf_counter()
    action()
    wall = time.perf_counter() - start
    peak = max((_peak(pid) for pid in processes.workers), default=0)
    return Cost(
        wall,
        _cpu(processes.all) - cpu,
        _read(processes.workers) - read,
        _read(processes.others) - others,
        peak,
    )


def _cpu(pids: Iterable[int]) -> float:
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


def _read(pids: Iterable[int]) -> int:
    """Bytes that went through `read` and its kin: files, cached or not, and no sockets of dask."""
    return sum(_number(f"/proc/{pid}/io", "rchar") for pid in pids)


def _peak(pid: int) -> int:
    return 1024 * _number(f"/proc/{pid}/status", "VmHWM")


def _number(path: str, name: str) -> int:
    line = next(line for line in Path(path).read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])


def summary(costs: Sequence[Cost]) -> Cost:
    """The median of each figure, the most memory."""
    return Cost(
        statistics.median(c.wall_s for c in costs),
        statistics.median(c.cpu_s for c in costs),
        int(statistics.median(c.read_bytes for c in costs)),
        int(statistics.median(c.others_read_bytes for c in costs)),
        max(c.memory_bytes for c in costs),
    )


def percentiles(seconds: Sequence[float]) -> tuple[float, float, float]:
    """p50, p95 and p99 in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return 1000 * cuts[49], 1000 * cuts[94], 1000 * cuts[98]


def slope(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """How cost grows with size: the exponent of a power law fitted to both; 1 is proportional."""
    import numpy as np

    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])
