"""Complete the results of a job once all its parts are done."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import xarray as xr

from odc_openeo import db
from odc_openeo.config import Config
from odc_openeo.cube import GEOMETRY
from odc_openeo.db.locks import lock_for_transaction
from odc_openeo.formats import Asset, Output, icechunk, write_outputs, zarr
from odc_openeo.formats.assets import make_cube_asset
from odc_openeo.formats.icechunk_parts import complete_repository
from odc_openeo.formats.mosaics import write_mosaics
from odc_openeo.formats.skeletons import fill_values
from odc_openeo.formats.vector import find_geometry_crs
from odc_openeo.jobs.claims import PartClaim, get_result_folder
from odc_openeo.jobs.part_progress import find_origin, list_left_out, list_part_assets, list_parts
from odc_openeo.parts import Part, combine_parts
from odc_openeo.spatial.vector_cubes import index_geometries
from odc_openeo.storage import get_storage
from odc_openeo.storage.repository_places import open_repository_place
from odc_openeo.worker.part_layouts import SplitPlan, describe_missing, list_offsets
from odc_openeo.worker.part_values import fetch_value, read_skeleton
from odc_openeo.worker.provenance import describe_stored_asset

LARGEST_SIDE: Final = 1_000_000
LocateAssets = Callable[[list[Asset]], list[dict[str, Any]]]
"""Stores files of the last part and describes them."""


@dataclass
class PartResults:
    """The results of all parts; files that are made of them are written into ``folder`` first."""

    config: Config
    claim: PartClaim
    plan: SplitPlan
    folder: Path

    @cached_property
    def key(self) -> str:
        """The folder of the storage with all files of this run of the job."""
        return get_result_folder(self.claim.job.id, self.claim.run)

    def complete(self, locate_assets: LocateAssets) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Make what is still missing; return all assets, and where the results come from."""
        make_assets = {
            "files": self._add_mosaics,
            "regions": self._describe_store,
            "commits": self._complete_repository,
            "tables": self._add_mosaics,
            "values": self._join_values,
        }[self.plan.layout]
        assets = make_assets(locate_assets)
        details = find_origin(self.config, self.claim.job.id)
        template = self.plan.split.template
        missing = [
            describe_missing(template, Part.from_dict(json.loads(text)), reason)
            for _, text, reason in list_left_out(self.config, self.claim.job.id)
        ]
        return assets, {**details, **({"missing_parts": missing} if missing else {})}

    def _add_mosaics(self, locate_assets: LocateAssets) -> list[dict[str, Any]]:
        """Add a virtual mosaic of the GeoTIFFs of each layer to the files of all parts."""
        files = list_part_assets(self.config, self.claim.job.id)
        if self.plan.split.kind != "space" or (self.plan.split.template.format or "GTiff") != "GTiff":
            return files
        mosaics = write_mosaics(self._read_skeleton(), files, self.folder, self.plan.stem)
        return [*locate_assets(mosaics), *files]

    def _describe_store(self, _locate_assets: LocateAssets) -> list[dict[str, Any]]:
        """Describe the store that all parts have written to."""
        return [self._describe_folder(f"{self.plan.stem}.zarr", zarr.MEDIA_TYPE)]

    def _complete_repository(self, _locate_assets: LocateAssets) -> list[dict[str, Any]]:
        """Commit that the repository of all parts is complete, and describe it."""
        name = f"{self.plan.stem}.icechunk"
        place = open_repository_place(get_storage(self.config, patient=True), f"{self.key}/{name}")
        with db.session(self.config) as lock:
            lock_for_transaction(lock, f"repository {self.key}")
            complete_repository(place)
        return [self._describe_folder(name, icechunk.MEDIA_TYPE)]

    def _describe_folder(self, name: str, media_type: str) -> dict[str, Any]:
        sizes = get_storage(self.config, patient=True).sizes(f"{self.key}/{name}")
        asset = make_cube_asset(self.folder / name, media_type, self._read_skeleton())
        return describe_stored_asset(asset, sum(sizes.values()), is_folder=True)

    def _join_values(self, locate_assets: LocateAssets) -> list[dict[str, Any]]:
        """Write what the values of all parts are together as a whole job would."""
        template = self.plan.split.template
        data = self._join_pixels() if self.plan.skeleton else self._combine_values()
        if template.format is None:
            return locate_assets(write_outputs(data, [], self.folder))
        # One file is asked for, however large.
        whole = {"split_size": LARGEST_SIDE} if template.options.get("merge") else {}
        accepted = {n: v for n, v in {**template.options, **whole}.items() if n in template.options}
        output = Output.from_data(data, template.format, accepted)
        return locate_assets(write_outputs(None, [output], self.folder, names=[self.plan.stem]))

    def _fetch_values(self) -> dict[int, Any]:
        store = get_storage(self.config, patient=True)
        assets = list_part_assets(self.config, self.claim.job.id, internal=True)
        return {asset["part"]: fetch_value(store, self.key, asset, self.folder) for asset in assets}

    def _list_parts(self) -> dict[int, Part]:
        texts = list_parts(self.config, self.claim.job.id)
        return {number: Part.from_dict(json.loads(text)) for number, text in texts.items()}

    def _combine_values(self) -> Any:
        values, parts = self._fetch_values(), self._list_parts()
        plan = self.plan.with_parts([parts[number] for number in values])
        joined = combine_parts(plan.split, list(values.values()))
        return restore_geometry_index(joined, next(iter(values.values())))

    def _join_pixels(self) -> xr.DataArray:
        """Return the whole raster cube, whose pixels are read where and when they are needed."""
        skeleton, parts = self._read_skeleton(), self._list_parts()
        whole = {str(name): (0, size) for name, size in skeleton.sizes.items()}
        blocks = {}
        for number, pixels in self._fetch_values().items():
            spans = {**whole, **list_offsets(self.plan.split.template, parts[number])}
            blocks[tuple(spans[str(name)] for name in skeleton.dims)] = pixels
        return fill_values(skeleton, blocks)

    def _read_skeleton(self) -> xr.DataArray:
        return read_skeleton(get_storage(self.config, patient=True), self.key, self.plan)


def restore_geometry_index(joined: Any, part: Any) -> Any:
    """Return a vector cube with the reference system of its parts, which joining labels may lose."""
    if not isinstance(joined, xr.DataArray | xr.Dataset) or GEOMETRY not in joined.dims:
        return joined
    crs = find_geometry_crs(part)
    if crs is None or find_geometry_crs(joined) is not None:
        return joined
    return index_geometries(joined, crs)
