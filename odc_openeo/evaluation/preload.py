"""Imported once by the server that runners are forked from, so that they start with everything at hand."""

from __future__ import annotations

import gc

# What is imported stays: looking for garbage in it takes a fifth of the time of the imports.
gc.disable()

from odc_openeo.evaluation import (  # noqa: E402, F401
    estimates,
    explanations,
    lanes,
    previews,
    stored_processes,
    synchronous,
    validation,
)
from odc_openeo.registry.process import PROCESSES  # noqa: E402
from odc_openeo.services import tile_maker  # noqa: E402, F401

# Descriptions and validators are made at their first use, which takes longer than evaluating a small graph.
for _process in PROCESSES.values():
    for _parameter in _process.parameters.values():
        _ = _parameter.match, _parameter.validator

# Runners share the memory of all this with the server as long as garbage collections do not walk over it.
gc.collect()
gc.freeze()
gc.enable()
