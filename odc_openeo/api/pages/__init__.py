"""HTML pages: rendered on the server, without resources from other servers; one script copies code."""

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
    services,
    sign_in,
    start,
    stored_processes,
    workspaces,
)
from odc_openeo.api.pages.html import render_markdown
from odc_openeo.config import Config

__all__ = ["list_blueprints", "render_markdown"]


def list_blueprints(config: Config) -> list[Blueprint]:
    """List the blueprints of all configured pages; ValueError if the configuration is invalid."""
    public = (start, health, collections, processes, sign_in, first_account)
    private = (jobs, explanations, services, stored_processes, files, workspaces)
    blueprints = [module.blueprint for module in (*public, *private)]
    return [*blueprints, *([editor.blueprint] if editor.has_editor(config) else [])]
