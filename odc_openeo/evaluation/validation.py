"""Find the errors of process graphs without running them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from odc_openeo.config import Config
from odc_openeo.errors import OpenEOError
from odc_openeo.evaluation.estimates import SKETCH_ABOVE
from odc_openeo.formats.write import Output, choose_format
from odc_openeo.graph import GraphLimits, prepare, validate
from odc_openeo.registry.environment import RunLimits
from odc_openeo.user_data.run_environment import make_environment
from odc_openeo.user_data.user_defined_processes import Library

SILENT: Final = logging.getLogger("odc_openeo.silent")
"""The log of graphs that are only checked: nobody reads what they say about a run."""
SILENT.addHandler(logging.NullHandler())
SILENT.propagate = False


def find_problems(
    config: Config, process: Any, user: UUID | None, parameters: Mapping[str, Any] | None = None
) -> list[OpenEOError]:
    """Return the errors that a process of a user shows by itself, without a look at any data.

    Its outer ``parameters`` are given by name.
    """
    limits = GraphLimits.from_config(config)
    return [error.detach() for error in validate(process, parameters, limits, Library(config, user))]


def find_all_problems(config: Config, process: Any, user: UUID | None) -> list[OpenEOError]:
    """Return all errors of a process that can be found with the metadata of the data it loads.

    Its loads become lazy cubes with the dimensions, labels and types of the data. No pixel is read, nothing
    is saved, exported or fetched from other hosts; what depends on these is not judged.
    """
    env = make_environment(config, user, RunLimits.for_planning(SKETCH_ABOVE), log=SILENT, exports=[])
    env.checks_only = True
    # Anonymous users may call processes by their address, too.
    env.lookup = Library(config, user)
    try:
        prepared = prepare(process, env.lookup, GraphLimits.from_config(config))
        errors, value = prepared.check_run(env)
        if not errors and value is not None and not env.outputs:
            Output.from_data(value, choose_format(value))
    except OpenEOError as error:
        errors = [error]
    return [error.detach() for error in errors]
