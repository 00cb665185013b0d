"""The `openeo` client, signed in to the running stack."""

from __future__ import annotations

import openeo
import pytest


@pytest.fixture(scope="session")
def connection(stack: str) -> openeo.Connection:
    """A connection of the demo user."""
    return openeo.connect(stack).authenticate_basic("demo", "demo")
