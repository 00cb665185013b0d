"""How the parts of a job become results: files of their own, regions of one store, or joined in the end."""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import xarray as xr

from odc_openeo.formats import zarr_regions
from odc_openeo.jobs.claims import PartClaim
from odc_openeo.parts import JobSplit, OutputTemplate, Part
from odc_openeo.storage import Storage

Layout = Literal["files", "regions", "commits", "tables", "values"]

FILE_FORMATS: Final = ("GTiff", "netCDF")
"""Formats of which each part may be a file of its own."""

PIECES: Final = ("sample_by_feature", "tile_grid", "separate_asset_per_band")
"""Options that ask for other files than one per part."""


@dataclass(frozen=True)
class SplitPlan:
    """A split as the book has it: with its layout, the stem of file names, digests of skeleton and schema."""

    split: JobSplit
    layout: Layout
    stem: str
    skeleton: str | None
    schema: str | None = None

    @classmethod
    def from_claim(cls, claim: PartClaim) -> SplitPlan:
        """Read the plan that a part belongs to; its parts are not in there."""
        document = json.loads(claim.split)
        split = JobSplit.from_dict({**document, "parts": []})
        digests = document.get("skeleton"), document.get("schema")
        return cls(split, document["layout"], document["stem"], *digests)

    def with_parts(self, parts: list[Part]) -> SplitPlan:
        """Return the plan with some of its parts."""
        return replace(self, split=replace(self.split, parts=tuple(parts)))


def choose_layout(split: JobSplit, *, shares_repository: bool = False) -> Layout:
    """Choose how the parts become results: each has files of its own where the format has one per area.

    ``shares_repository``: all of them can commit to one repository where the results are stored.
    """
    template = split.template
    options = template.options
    if split.kind == "geometries" and template.format == "Parquet" and not options.get("merge"):
        return "tables"
    if template.kind != "raster" or split.kind not in ("space", "time"):
        return "values"
    format_ = template.format or "GTiff"
    if any(options.get(name) for name in PIECES) or options.get("merge"):
        return "values"
    if format_ == "Zarr":
        return "regions" if options.get("overviews", "NONE") == "NONE" else "values"
    if format_ == "Icechunk":
        return "commits" if shares_repository else "values"
    # All dates in one file, of which parts over time have only some.
    is_joined = split.kind == "time" and options.get("layout") == "bands"
    return "files" if format_ in FILE_FORMATS and not is_joined else "values"


def list_offsets(template: OutputTemplate, part: Part) -> dict[str, tuple[int, int]]:
    """Return the first index of a part and the one after its last, along the dimensions that are split."""
    spans: dict[str, tuple[int, int]] = {}
    if part.window is not None and template.spatial_dims is not None:
        rows, columns = template.spatial_dims
        spans |= {rows: part.window.rows, columns: part.window.columns}
    if part.times is not None and template.time_dimension is not None:
        spans[template.time_dimension] = part.times
    return spans


def make_zarr_template(store: Storage, key: str, data: xr.DataArray, split: JobSplit) -> None:
    """Store a Zarr store of the whole result without its values."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "template.zarr"
        zarr_regions.create_template(path, data, split.template.options, list_starts(split))
        store.put(path, key)


def list_starts(split: JobSplit) -> dict[str, list[int]]:
    """Return where the parts begin along the dimensions that are split."""
    starts: dict[str, list[int]] = {}
    for part in split.parts:
        for name, (start, _) in list_offsets(split.template, part).items():
            starts.setdefault(name, []).append(start)
    return starts


def compute_digest(content: bytes) -> str:
    """Return the SHA-256 by which a file of the storage is known to be what was written."""
    return hashlib.sha256(content).hexdigest()


def describe_missing(template: OutputTemplate, part: Part, reason: str) -> dict[str, Any]:
    """Describe a part that was left out, for the metadata of the results."""
    labels: dict[str, Any] = {}
    if part.times is not None and template.time_dimension is not None:
        times = template.labels.get(template.time_dimension, ())[slice(*part.times)]
        labels["times"] = list(times)
    window = None if part.window is None else part.window.to_dict()
    ranges = {"window": window, "geometries": part.geometries and list(part.geometries), **labels}
    return {
        "part": part.number + 1,
        "reason": reason,
        **{name: value for name, value in ranges.items() if value is not None},
    }
