"""Benchmarks can be started: they take long, so that the suite does not run them."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

import benchmarks
from benchmarks import made_scenes, parts, small

NAMES = sorted(path.stem for path in Path(benchmarks.__file__).parent.glob("[a-z]*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_modules_can_be_imported(name: str) -> None:
    import_module(f"benchmarks.{name}")


@pytest.mark.parametrize("stage", small.STAGES)
def test_measured_stages_exist(stage: str) -> None:
    owner, attribute = small.STAGES[stage]
    assert callable(getattr(owner, attribute))


def test_parts_of_made_pixels(capsys: pytest.CaptureFixture[str]) -> None:
    with made_scenes.make_pixels():
        parts.measure_planning((2, 1), 2)
        parts.measure_overhead(1024, 2, 1)
    printed = capsys.readouterr().out
    assert "2 tiles, 2 dates: " in printed
    assert "4 parts, equal to the whole" in printed
