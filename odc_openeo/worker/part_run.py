"""Parts of one job in their own process, one after the other: evaluate, compute, write, report."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import xarray as xr

import odc_openeo.processes  # noqa: F401  importing registers the processes
from odc_openeo import db
from odc_openeo.config import Config
from odc_openeo.db.locks import lock_for_transaction
from odc_openeo.errors import StorageFailure
from odc_openeo.formats import Asset, write_outputs
from odc_openeo.formats.assets import make_cube_asset
from odc_openeo.formats.icechunk import MEDIA_TYPE
from odc_openeo.formats.icechunk_parts import PartSession, is_part_there
from odc_openeo.formats.parquet_parts import write_parquet_part
from odc_openeo.formats.repositories import CommitConflict
from odc_openeo.formats.write_errors import as_storage_failure
from odc_openeo.formats.zarr import MEDIA_TYPE as ZARR_TYPE
from odc_openeo.formats.zarr_regions import METADATA, write_region
from odc_openeo.graph import GraphLimits
from odc_openeo.graph.estimate import count_read_bytes
from odc_openeo.jobs import Job
from odc_openeo.jobs.claims import PartClaim, get_result_folder
from odc_openeo.jobs.options import parse_archives
from odc_openeo.parts import Part, evaluate_part
from odc_openeo.storage import get_storage
from odc_openeo.storage.repository_places import open_repository_place
from odc_openeo.udf.pool import pool
from odc_openeo.user_data.run_environment import make_environment
from odc_openeo.worker.messages import PartTask, RunDone
from odc_openeo.worker.part_layouts import SplitPlan, list_offsets
from odc_openeo.worker.part_results import PartResults
from odc_openeo.worker.part_values import read_schema, read_skeleton, write_value
from odc_openeo.worker.provenance import count_bytes, describe_asset, describe_stored_asset
from odc_openeo.worker.run import Channel, Run, make_run_logger, prepare_process, send_outcome


def run_parts(config: Config, job: Job, pipe: Connection) -> None:
    """Run the parts of a job that the supervisor asks for, until it ends."""
    prepare_process(config, job)
    channel = Channel(pipe)
    logger = make_run_logger(channel, job)
    if job.draft.log_level == "info":
        # Each part would say the same of its loads.
        logger.setLevel(logging.WARNING)
    try:
        while run_part(config, pipe.recv(), channel, logger):
            pass
    except EOFError:
        pass
    finally:
        pool.stop()
        os._exit(0)


def run_part(config: Config, task: PartTask, channel: Channel, logger: logging.Logger) -> bool:
    """Run one part and send its outcome; False if it has failed."""
    part_run = PartRun(
        config, task.claim.job, task.claim.folder, task.folder, channel, logger, claim=task.claim
    )
    return send_outcome(part_run, part_run.produce_part)


@dataclass
class PartRun(Run):
    """The state of one attempt at a part."""

    claim: PartClaim = field(kw_only=True)

    @property
    def run_folder(self) -> str:
        """The folder of the storage with all files of this run of the job."""
        return get_result_folder(self.claim.job.id, self.claim.run)

    def produce_part(self) -> RunDone:
        """Compute the part and write its files or, for the last part, complete the results."""
        plan = SplitPlan.from_claim(self.claim)
        with as_storage_failure():
            self.folder.mkdir(parents=True, exist_ok=True)
        if self.claim.is_last:
            self.began = True
            results = PartResults(self.config, self.claim, plan, self.folder)
            return RunDone(*results.complete(self.locate_assets))
        return RunDone(self._compute_part(plan, Part.from_dict(json.loads(self.claim.part))), {})

    def _compute_part(self, plan: SplitPlan, part: Part) -> list[dict[str, Any]]:
        env = make_environment(
            self.config, self.job.user, log=self.log, archives=parse_archives(self.job.draft.extras)
        )
        limits = GraphLimits.from_config(self.config)
        value, outputs = evaluate_part(self.job.draft.process, env, plan.split, part, limits)
        data = outputs[0].data if outputs else value
        self.read = count_read_bytes([data])
        if plan.layout == "values":
            path = write_value(data, self.folder, self.compute)
            asset = Asset(path, "application/octet-stream", path.stem)
            return [{**described, "internal": True} for described in self.locate_assets([asset])]
        if plan.layout == "regions":
            return [self._write_region(plan, part, data)]
        if plan.layout == "commits":
            return [self._commit_region(plan, part, data)]
        stem = f"{plan.stem}_part-{part.number + 1:05d}"
        if plan.layout == "tables":
            return self.locate_assets([self._write_table(plan, part, data, stem)])
        return self.locate_assets(write_outputs(value, outputs, self.folder, self.compute, [stem]))

    def _write_table(self, plan: SplitPlan, part: Part, data: xr.DataArray, stem: str) -> Asset:
        """Write the rows of the geometries of a part."""
        schema = read_schema(get_storage(self.config, patient=True), self.run_folder, plan)
        first = 0 if part.geometries is None else part.geometries[0]
        path, options = self.folder / f"{stem}.parquet", plan.split.template.options
        with as_storage_failure():
            return write_parquet_part(data, path, schema, first, options, self.compute)

    def locate_assets(self, assets: list[Asset]) -> list[dict[str, Any]]:
        """Store and describe files of this part, and say where they are below the folder of the run."""
        self._store_assets(assets)
        place = self.key.removeprefix(f"{self.run_folder}/")
        return [{**describe_asset(asset), "path": f"{place}/{asset.path.name}"} for asset in assets]

    def _write_region(self, plan: SplitPlan, part: Part, data: xr.DataArray) -> dict[str, Any]:
        """Write the chunks of the part of a store that all parts share."""
        store, name = get_storage(self.config, patient=True), f"{plan.stem}.zarr"
        path = self.folder / name
        top = f"{self.run_folder}/{name}"
        keys = json.loads(store.open(f"{top}/{METADATA}").read())["consolidated_metadata"]["metadata"]
        for member in keys:
            copy_metadata(store.open(f"{top}/{member}/{METADATA}").read(), path / member)
        offsets = {name: span[0] for name, span in list_offsets(plan.split.template, part).items()}
        write_region(data, path, plan.split.template.options, offsets, self.compute)
        size = count_bytes(path)
        for file in sorted(path.rglob("*")):
            if file.is_file() and file.name != METADATA:
                store.put(file, f"{top}/{file.relative_to(path)}")
        skeleton = read_skeleton(store, self.run_folder, plan)
        asset = make_cube_asset(path, ZARR_TYPE, skeleton)
        return describe_stored_asset(asset, size, is_folder=True)

    def _commit_region(self, plan: SplitPlan, part: Part, data: xr.DataArray) -> dict[str, Any]:
        """Commit the pixels of the part to the repository that all parts share, unless they are there."""
        store, name = get_storage(self.config, patient=True), f"{plan.stem}.icechunk"
        place, size = open_repository_place(store, f"{self.run_folder}/{name}"), 0
        if not is_part_there(place, part.number):
            offsets = {name: span[0] for name, span in list_offsets(plan.split.template, part).items()}
            session = PartSession(place, part.number)
            session.write_pixels(data, plan.split.template.options, offsets, self.compute)
            size = session.written_bytes
            with db.session(self.config) as lock:
                lock_for_transaction(lock, f"repository {self.run_folder}")
                # Another attempt, whose worker was taken for lost, may have committed it in the meantime.
                with contextlib.suppress(CommitConflict):
                    session.commit()
            if not is_part_there(place, part.number):
                raise StorageFailure
        asset = Asset(self.folder / name, MEDIA_TYPE, plan.stem)
        # Clients that copy a repository while it grows would get only half of a commit.
        return {**describe_stored_asset(asset, size, is_folder=True), "internal": True}


def copy_metadata(content: bytes, folder: Path) -> None:
    """Write the metadata of an array of a store into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / METADATA).write_bytes(content)
