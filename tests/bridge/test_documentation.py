"""The documentation of the bridge is what the tests run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import openeo
import pytest
import xarray as xr

from tests.bridge.idioms import IDIOMS
from tests.bridge.table import PAGE, insert_table

README = Path(__file__).resolve().parents[2] / "openeo_xarray" / "README.md"


def test_table_of_operations() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert insert_table(text) == text, "run python -m tests.bridge.table"


def list_examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_examples_of_the_readme(
    stack: str, connection: openeo.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(openeo, "connect", lambda _url: connection)
    names: dict[str, Any] = {}
    for example in list_examples():
        exec(compile(example, str(README), "exec"), names)  # noqa: S102
    assert isinstance(names["monthly"], xr.DataArray)
    assert names["monthly"].chunks is None
    assert (tmp_path / "monthly.tif").exists()


def test_there_are_enough_analyses() -> None:
    assert len(IDIOMS) >= 12
