"""The notebooks of the documentation run, in this process; `make notebooks` runs them in kernels."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest
from PIL import Image

from tests.notebooks.cells import FOLDER, NOTEBOOKS, PICTURES, ROOT, list_missing_packages, read_cells


def _name(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("path", NOTEBOOKS, ids=_name)
@pytest.mark.filterwarnings("ignore")
def test_notebook_runs(path: Path, stack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = list_missing_packages(path)
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (`make notebooks` installs it)")
    matplotlib.use("Agg")
    monkeypatch.setenv("OPENEO_URL", stack)
    names: dict[str, object] = {"__name__": "__main__"}
    for cell in read_cells(path):
        if cell["cell_type"] == "code":
            exec(compile(cell["source"], f"{path.name}, {cell['id']}", "exec"), names)
    plt.close("all")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=_name)
def test_notebooks_are_kept_without_outputs(path: Path) -> None:
    for cell in read_cells(path):
        assert not cell.get("outputs"), cell["id"]
        assert cell.get("execution_count") is None, cell["id"]


def test_pictures_are_those_of_the_notebooks() -> None:
    """`make notebooks` writes the pictures; none is left over, and each is shown on the page of the tools."""
    marked = {cell["metadata"].get("picture") for path in NOTEBOOKS for cell in read_cells(path)} - {None}
    assert {path.stem for path in NOTEBOOKS} == marked
    page = (ROOT / "docs/field-tools.md").read_text(encoding="utf-8")
    for name in marked:
        picture = PICTURES / f"{name}.png"
        with Image.open(picture) as image:
            assert len(image.convert("RGB").getcolors(2**24) or ()) > 20, name
        assert picture.stat().st_size < 200_000
        assert f"](pictures/{picture.name})" in page, name


def test_every_notebook_is_listed() -> None:
    page = (ROOT / "docs/field-tools.md").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        assert f"]({path.relative_to(FOLDER.parent)})" in page
