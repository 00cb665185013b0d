"""The environment that processes get from the request or job that evaluates their graph."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from odc_openeo.cube.budget import Budget
from odc_openeo.registry.demand import ALL, Demand

NODES: Final[ContextVar[tuple[tuple[str, str], ...]]] = ContextVar("nodes", default=())
"""(node id, process id) of the nodes being evaluated, the innermost first: for log entries."""

ANY_NUMBER: Final = 2**62


class NotDetermined(Exception):
    """A part of a graph can be judged only by running it: its check would read pixels or fetch files."""


@dataclass(frozen=True)
class RunLimits:
    """Limits of what the loads of a run may read together.

    ``load_bytes`` counts the bytes in memory if everything is computed, ``load_chunks`` the chunks that are
    read one by one, ``load_scenes`` the datasets of one load. A cube of more chunks than
    ``sketch_above_chunks`` is only a sketch: it has its shape, but nothing to compute.
    """

    load_bytes: int = 2**40
    load_chunks: int = 500_000
    load_scenes: int = 10_000
    sketch_above_chunks: int | None = None

    @classmethod
    def for_planning(cls, sketch_above_chunks: int) -> RunLimits:
        """Return the limits of a plan, of which nothing is too large: it may be read in parts."""
        return cls(ANY_NUMBER, ANY_NUMBER, sketch_above_chunks=sketch_above_chunks)


@dataclass
class Environment:
    """The environment of an evaluation, handed to functions with a keyword-only parameter ``env``.

    ``catalog`` gives access to collections, ``outputs`` collects the outputs of `save_result`, ``exports``
    their export targets (None where export is not possible), ``loads`` the volume of each load, which
    ``limits`` bounds. ``user`` is the id of the user who runs the graph, ``log`` takes messages for that
    user, ``demand`` is the part of the process's result that the rest of the graph needs (a process may
    return more), ``grid`` the pixel grid of the demand if it is that of another cube, ``lookup`` finds
    user-defined processes by id and namespace, ``list_own_collections`` lists the ids of the user's
    collections (None: each is looked up), ``budget`` is what JSON values and calls of child processes may
    still use, ``archives`` are those of dependencies of user code, as job options name them.
    ``checks_only``: the graph is evaluated only to find its errors; what has to be fetched from other hosts,
    or depends on work that is still going on, is then `NotDetermined`. ``trace``, where there is one, records
    the value of each node (see `odc_openeo.graph.trace`). ``part``: only this part of the process's result
    will be computed, though it has the shape of the whole; None if all of it may be.
    """

    catalog: Any = None
    user: str | None = None
    outputs: list[Any] = field(default_factory=list)
    exports: list[Any] | None = None
    loads: list[Any] = field(default_factory=list)
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("odc_openeo.run"))
    limits: RunLimits = field(default_factory=RunLimits)
    demand: Demand = ALL
    grid: Any = None
    lookup: Callable[[str, str | None], Mapping[str, Any] | None] | None = None
    list_own_collections: Callable[[], frozenset[str]] | None = None
    budget: Budget = field(default_factory=Budget)
    archives: tuple[str, ...] = ()
    checks_only: bool = False
    trace: Any = None
    part: Demand | None = None

    def require_run(self) -> None:
        """Stop the check of what only a run can tell.

        Raises:
            NotDetermined: the graph is only checked.
        """
        if self.checks_only:
            raise NotDetermined
