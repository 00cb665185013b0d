"""The index of the tests of the catalogue, and the tiny scenes of those of the graph."""

from tests.catalog.conftest import catalog, index
from tests.graph.test_equivalence import tiny

__all__ = ["catalog", "index", "tiny"]
