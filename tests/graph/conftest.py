"""The same index as in the tests of the catalogue."""

from tests.catalog.conftest import catalog, index

__all__ = ["catalog", "index"]
