"""The small collections that random graphs load, and the application with them."""

from tests.api.conftest import app, bearer, client, token
from tests.catalog.conftest import catalog, index
from tests.graph.test_equivalence import tiny

__all__ = ["app", "bearer", "catalog", "client", "index", "tiny", "token"]
