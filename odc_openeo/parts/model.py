"""The split of a job into parts, as plain values that go to PostgreSQL as JSON and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from odc_openeo.config import Config
from odc_openeo.graph.estimate import THREADS

Range = tuple[int, int]
"""The first index and the one after the last, along a dimension."""

Kind = Literal["whole", "space", "geometries", "time", "stages"]

KINDS: Final[tuple[Kind, ...]] = ("whole", "space", "geometries", "time", "stages")
"""How a job splits: not at all, over blocks of its output grid, over geometries, over dates, or in blocks of
the input whose results are combined in a second stage."""


@dataclass(frozen=True)
class PixelWindow:
    """Rows and columns of a grid; the ends are not in it."""

    rows: Range
    columns: Range

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of rows and columns."""
        return self.rows[1] - self.rows[0], self.columns[1] - self.columns[0]

    def to_dict(self) -> dict[str, Any]:
        """Return the window as JSON."""
        return {"rows": list(self.rows), "columns": list(self.columns)}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> PixelWindow:
        """Make a window of its JSON."""
        return cls(_read_range(document["rows"]), _read_range(document["columns"]))


@dataclass(frozen=True)
class Part:
    """One part of a job, numbered from 0: of the output, what is in all of its limits.

    ``window`` is on the grid of the output or, where parts are combined in a second stage, on the grid that
    is reduced; ``times`` and ``geometries`` are ranges of labels; ``bounds`` are those (west, south, east,
    north) of the geometries, in the reference system of the output. None is no limit. ``tasks`` and
    ``input_bytes`` are estimates.
    """

    number: int
    window: PixelWindow | None = None
    times: Range | None = None
    geometries: Range | None = None
    tasks: int = 0
    input_bytes: int = 0
    bounds: tuple[float, float, float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the part as JSON."""
        return {
            "number": self.number,
            "window": None if self.window is None else self.window.to_dict(),
            "times": None if self.times is None else list(self.times),
            "geometries": None if self.geometries is None else list(self.geometries),
            "tasks": self.tasks,
            "input_bytes": self.input_bytes,
            "bounds": None if self.bounds is None else list(self.bounds),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Part:
        """Make a part of its JSON."""
        window, times, geometries = (document.get(name) for name in ("window", "times", "geometries"))
        return cls(
            document["number"],
            None if window is None else PixelWindow.from_dict(window),
            None if times is None else _read_range(times),
            None if geometries is None else _read_range(geometries),
            document["tasks"],
            document["input_bytes"],
            None if document.get("bounds") is None else tuple(document["bounds"]),
        )


@dataclass(frozen=True)
class OutputTemplate:
    """The form of the whole output of a job, known before any of its parts is computed.

    ``kind`` is "raster", "vector" or "json"; ``format`` is a name as in ``GET /file_formats`` (None if
    nothing is saved) and ``options`` are those of `save_result`, defaults included. ``dims`` are in the
    order of the cube, ``sizes`` their lengths, ``chunks`` the longest chunk along each. ``crs`` is WKT,
    ``transform`` the six numbers of an affine transform from pixels to coordinates, ``spatial_dims`` are
    rows and columns. ``labels`` are those of all dimensions but rows, columns and geometries (times in RFC
    3339, UTC). ``nodata`` is None where there is none, NaN in floats, or the value of each band.
    """

    kind: Literal["raster", "vector", "json"]
    format: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    dims: tuple[str, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    chunks: Mapping[str, int] = field(default_factory=dict)
    dtype: str | None = None
    crs: str | None = None
    transform: tuple[float, ...] | None = None
    spatial_dims: tuple[str, str] | None = None
    labels: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    nodata: Any = None
    time_dimension: str | None = None
    bands_dimension: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the template as JSON; NaN is the string "nan"."""
        document = asdict(self)
        document["nodata"] = _write_number(self.nodata)
        return document

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> OutputTemplate:
        """Make a template of its JSON."""
        fields = dict(document)
        for name in ("dims", "transform", "spatial_dims"):
            fields[name] = None if fields[name] is None else tuple(fields[name])
        return cls(**{**fields, "nodata": _read_number(fields["nodata"])})


@dataclass(frozen=True)
class Stage:
    """The first stage of a reduction of all pixels: statistics of the pixels of each part.

    ``source`` is the node whose cube is reduced, ``template`` describes that cube (the windows of parts are
    on its grid), ``reducer`` is the node of the reducer, ``dtype`` that of the combined values.
    """

    source: str
    reducer: Mapping[str, Any]
    dtype: str
    template: OutputTemplate

    def to_dict(self) -> dict[str, Any]:
        """Return the stage as JSON."""
        return {
            "source": self.source,
            "reducer": dict(self.reducer),
            "dtype": self.dtype,
            "template": self.template.to_dict(),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Stage:
        """Make a stage of its JSON."""
        template = OutputTemplate.from_dict(document["template"])
        return cls(document["source"], document["reducer"], document["dtype"], template)


@dataclass(frozen=True)
class JobSplit:
    """How a job splits into parts.

    ``reason`` says in a plain sentence why a job that is larger than a part does not split. ``tasks``,
    ``input_bytes`` and ``output_bytes`` are estimates for the whole job.
    """

    kind: Kind
    parts: tuple[Part, ...]
    reason: str | None = None
    tasks: int = 0
    input_bytes: int = 0
    output_bytes: int = 0
    template: OutputTemplate = field(default_factory=lambda: OutputTemplate("json"))
    stage: Stage | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the job is one part."""
        return self.kind == "whole"

    def to_dict(self) -> dict[str, Any]:
        """Return the split as JSON."""
        return {
            "kind": self.kind,
            "parts": [part.to_dict() for part in self.parts],
            "reason": self.reason,
            "tasks": self.tasks,
            "input_bytes": self.input_bytes,
            "output_bytes": self.output_bytes,
            "template": self.template.to_dict(),
            "stage": None if self.stage is None else self.stage.to_dict(),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> JobSplit:
        """Make a split of its JSON."""
        return cls(
            document["kind"],
            tuple(map(Part.from_dict, document["parts"])),
            document["reason"],
            document["tasks"],
            document["input_bytes"],
            document["output_bytes"],
            OutputTemplate.from_dict(document["template"]),
            None if document.get("stage") is None else Stage.from_dict(document["stage"]),
        )


@dataclass(frozen=True)
class PartLimits:
    """The most that one part may be: tasks of its dask graph, bytes that it reads, bytes that its largest
    tasks hold in a worker (None: any) of ``worker_threads``. A job has at most ``most_parts``. Windows begin
    and end at multiples of ``block`` pixels of the output grid, except at its ends.

    A job that fits is one part, unless ``side`` (the side of windows in pixels) or ``labels`` (geometries or
    dates of a part) say that parts are smaller. All parts together may read ``most_repeats`` times what the
    whole reads.
    """

    tasks: int = 50_000
    input_bytes: int = 64 * 2**30
    worker_bytes: int | None = None
    worker_threads: int = THREADS
    most_parts: int = 10_000
    block: int = 512
    side: int | None = None
    labels: int | None = None
    most_repeats: float = 4.0

    @classmethod
    def from_config(cls, config: Config) -> PartLimits:
        """Return the limits that the settings give."""
        return cls(
            tasks=config.part_tasks,
            input_bytes=config.part_bytes,
            most_parts=config.most_parts,
            most_repeats=config.part_repeats,
        )


def _read_range(value: Sequence[int]) -> Range:
    first, end = value
    return int(first), int(end)


def _write_number(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_write_number(item) for item in value]
    return "nan" if isinstance(value, float) and value != value else value


def _read_number(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_read_number(item) for item in value]
    return float("nan") if value == "nan" else value
