"""The catalogue as a run sees it: one state of the index, which is read once, and is the latest one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from odc_openeo.catalog import OPERATOR, Catalog, Query
from odc_openeo.errors import CollectionNotFound
from tests.catalog.scenes import Index, product, scene


@contextmanager
def record_statements(catalog: Catalog) -> Iterator[list[str]]:
    """Collect what is sent to the index."""
    statements: list[str] = []

    def record(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    engine = catalog._index.engine
    event.listen(engine, "before_cursor_execute", record)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", record)


def test_a_run_reads_the_state_once(catalog: Catalog, index: Index, tmp_path: Path) -> None:
    index.add(scene(tmp_path / "a", 1, "2022-06-01T10:00:00Z"))
    catalog.get_product("tiny_s2")
    view = catalog.for_run(OPERATOR)
    with record_statements(catalog) as statements:
        for _ in range(3):
            assert view.get_product("tiny_s2").name == "tiny_s2"
            assert len(view.search_scenes("tiny_s2", Query())) == 1
    markers = [statement for statement in statements if statement.startswith("EXECUTE")]
    assert (len(markers), len(statements)) == (1, 4)


def test_the_next_run_sees_a_change_at_once(catalog: Catalog, index: Index, tmp_path: Path) -> None:
    view = catalog.for_run(OPERATOR)
    view.get_product("tiny_s2")
    index.add_product(product("other"))
    with pytest.raises(CollectionNotFound):
        view.get_product("other")
    assert catalog.for_run(OPERATOR).get_product("other").name == "other"
    assert catalog.for_run(OPERATOR).search_scenes("other", Query()) == []
    index.add(scene(tmp_path / "a", 1, "2022-06-01T10:00:00Z"))
    assert len(catalog.for_run(OPERATOR).search_scenes("tiny_s2", Query())) == 1
