"""Carries out the exports of a run, when its files are written."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from odc_openeo import db, own_collections, workspaces
from odc_openeo.config import Config
from odc_openeo.exports import Export, ToWorkspace, package
from odc_openeo.jobs import Job
from odc_openeo.results import Results

Assets = Sequence[Mapping[str, Any]]


def carry_out(
    config: Config,
    job: Job,
    key: str,
    exports: Sequence[Export],
    outputs: Sequence[Assets],
    details: Mapping[str, Any],
    log: logging.Logger,
) -> None:
    """Export files of a run, which are below ``key`` in the storage; ``outputs`` are those by `save_result`.

    The same again replaces what the run of a lost worker has left behind.

    Raises:
        OpenEOError: what can't be exported, and why; exports before it stay.
    """
    finished = replace(job, status="finished", updated=db.now())
    for export in exports:
        number = export.stac.output
        run = str(job.id) if len(outputs) == 1 else f"{job.id}-{number + 1}"
        attempt = job.attempt or UUID(int=0)
        found = Results(finished, attempt, True, outputs[number], details, db.now(), None)
        content = package(found, export.stac, run, key)
        if isinstance(export, ToWorkspace):
            path = workspaces.publish(config, job.user, export.workspace, content, export.merge)
            log.info("Exported to '%s' in workspace '%s'", path, export.workspace)
        else:
            own_collections.export(config, job.user, export.collection, content)
            log.info("Exported to collection '%s'", export.collection)
