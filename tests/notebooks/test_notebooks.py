"""The notebooks of the documentation run, in this process; `make notebooks` runs them in kernels."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest
from PIL import Image

from tests.notebooks.cells import (
    DOCS,
    NOTEBOOKS,
    PICTURES,
    TOOLS,
    TUTORIALS,
    list_missing_packages,
    read_cells,
)
from tests.notebooks.values import CHECKS
from tests.support.sandbox import SANDBOX


def _name(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("path", NOTEBOOKS, ids=_name)
@pytest.mark.filterwarnings("ignore")
def test_notebook_runs(path: Path, stack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = list_missing_packages(path)
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (`make notebooks` installs it)")
    if uses_functions(path) and not SANDBOX.is_usable:
        pytest.skip(f"no user code runs here: {SANDBOX.reason}")
    matplotlib.use("Agg")
    monkeypatch.setenv("OPENEO_URL", stack)
    # Notebooks write their files beside themselves.
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for cell in read_cells(path):
        if cell["cell_type"] == "code":
            exec(compile(cell["source"], f"{path.name}, {cell['id']}", "exec"), names)
    plt.close("all")
    if path in TUTORIALS:
        CHECKS[path.stem](names)


def uses_functions(path: Path) -> bool:
    """Whether a notebook sends user-defined functions."""
    return any("openeo.UDF" in cell["source"] for cell in read_cells(path))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=_name)
def test_notebooks_are_kept_without_outputs(path: Path) -> None:
    for cell in read_cells(path):
        assert not cell.get("outputs"), cell["id"]
        assert cell.get("execution_count") is None, cell["id"]


def test_pictures_are_those_of_the_notebooks() -> None:
    """`make notebooks` writes the pictures; none is left over, and each is shown on a page."""
    marked = [cell["metadata"].get("picture") for path in NOTEBOOKS for cell in read_cells(path)]
    assert sorted(name for name in marked if name) == sorted(path.stem for path in NOTEBOOKS)
    assert {path.stem for path in PICTURES.glob("*.png")} == {path.stem for path in NOTEBOOKS}
    for path in NOTEBOOKS:
        picture = PICTURES / f"{path.stem}.png"
        with Image.open(picture) as image:
            assert len(image.convert("RGB").getcolors(2**24) or ()) > 20, picture.name
        assert picture.stat().st_size < 200_000
        assert f"pictures/{picture.name})" in find_list(path), picture.name


def test_every_notebook_is_listed() -> None:
    for path in NOTEBOOKS:
        page = find_list(path)
        assert f"]({path.relative_to(DOCS)})" in page or f"]({path.name})" in page


def find_list(path: Path) -> str:
    """The page that lists the notebooks of a folder, as text."""
    page = DOCS / "field-tools.md" if path in TOOLS else DOCS / "tutorials" / "index.md"
    return page.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", TUTORIALS, ids=_name)
def test_tutorials_are_short_and_told(path: Path) -> None:
    cells = read_cells(path)
    assert 8 <= len(cells) <= 14
    assert cells[0]["cell_type"] == "markdown"
    prose = [cell for cell in cells if cell["cell_type"] == "markdown"]
    assert len(prose) * 3 > len(cells)
    assert all(len(line) <= 140 for cell in cells for line in cell["source"].splitlines())
