"""Carry out the exports of a run once its files are written."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from odc_openeo import db
from odc_openeo.config import Config
from odc_openeo.jobs import Job
from odc_openeo.jobs.result_stac import Results
from odc_openeo.user_data import collections, workspaces
from odc_openeo.user_data.stac_export import Export, WorkspaceExport, make_package

Assets = Sequence[Mapping[str, Any]]


def carry_out_exports(
    config: Config,
    job: Job,
    key: str,
    exports: Sequence[Export],
    outputs: Sequence[Assets],
    details: Mapping[str, Any],
    log: logging.Logger,
) -> None:
    """Export files of a run, which are below ``key`` in the storage; ``outputs`` has them per `save_result`.

    Repeating an export replaces leftovers of a run whose worker was lost.

    Raises:
        OpenEOError: one of the exports failed; the exports before it are kept.
    """
    finished = replace(job, status="finished", updated=db.now())
    for export in exports:
        number = export.stac.output
        run = str(job.id) if len(outputs) == 1 else f"{job.id}-{number + 1}"
        attempt = job.attempt or UUID(int=0)
        results = Results(finished, attempt, True, outputs[number], details, db.now(), None)
        content = make_package(results, export.stac, run, key)
        if isinstance(export, WorkspaceExport):
            path = workspaces.publish_package(config, job.user, export.workspace, content, export.merge)
            log.info("Exported to '%s' in workspace '%s'", path, export.workspace)
        else:
            collections.export_package(config, job.user, export.collection, content)
            log.info("Exported to collection '%s'", export.collection)
