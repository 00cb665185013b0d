"""HTML pages: rendered on the server, without scripts or resources from other servers."""

from __future__ import annotations

from flask import Blueprint

from odc_openeo.api.pages import (
    collections,
    editor,
    explanations,
    files,
    first_account,
    health,
    jobs,
    processes,
    sign_in,
    start,
)
from odc_openeo.api.pages.html import render_markdown
from odc_openeo.config import Config

__all__ = ["list_blueprints", "render_markdown"]


def list_blueprints(config: Config) -> list[Blueprint]:
    """List the blueprints of all configured pages; ValueError if the configuration is invalid."""
    modules = (start, health, collections, processes, sign_in, first_account, jobs, explanations, files)
    blueprints = [module.blueprint for module in modules]
    return [*blueprints, *([editor.blueprint] if editor.has_editor(config) else [])]
