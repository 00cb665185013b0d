"""Pages for people: server-rendered HTML, no script, nothing from other servers."""

from __future__ import annotations

from flask import Blueprint

from odc_openeo.api.pages import collections, editor, files, jobs, processes, sign_in, start
from odc_openeo.api.pages.html import markdown
from odc_openeo.config import Config

__all__ = ["blueprints", "markdown"]


def blueprints(config: Config) -> list[Blueprint]:
    """All pages that the configuration has; ValueError when it is faulty."""
    own = [module.blueprint for module in (start, collections, processes, sign_in, jobs, files)]
    return [*own, *([editor.blueprint] if editor.there_is_one(config) else [])]
