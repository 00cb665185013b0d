"""Explain a process: its plan, and a program that gives the same values; nothing is read or computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from odc_openeo.config import Config
from odc_openeo.explain import explain_process as explain


def explain_process(config: Config, process: Mapping[str, Any], user: str) -> dict[str, Any]:
    """Return the explanation as the API has it; raises what evaluating the graph raises."""
    return explain(config, process, user)
