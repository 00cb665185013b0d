"""Check the process graphs of requests in runners."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from odc_openeo.api.backend import backend
from odc_openeo.api.runner_calls import run_for_view
from odc_openeo.errors import InfrastructureBusy, OpenEOError, RequestTimeout, TooManyRequests
from odc_openeo.evaluation.validation import find_all_problems, find_problems

CHECK_SECONDS: Final = 20
"""Seconds that evaluating a graph with metadata may take; what is found later only a run will tell."""

log = logging.getLogger(__name__)


def find_graph_errors(process: Any, user: UUID | None) -> list[OpenEOError]:
    """Return the errors of a process; only those of the graph itself if evaluating it takes too long."""
    name = str(user) if user else None
    seconds = min(CHECK_SECONDS, backend().config.tile_timeout_s)
    try:
        return run_for_view(find_all_problems, process, user, user=name, seconds=seconds)
    except RequestTimeout:
        return run_for_view(find_problems, process, user, user=name)


def find_errors_if_free(process: Mapping[str, Any], user: UUID) -> list[OpenEOError]:
    """Return the errors of a process that can be found now: none if all runners are busy.

    For requests that should not fail because others keep the service busy.
    """
    try:
        return find_graph_errors(process, user)
    except (InfrastructureBusy, RequestTimeout, TooManyRequests) as error:
        log.info("a process graph was not checked: %s", error)
        return []
