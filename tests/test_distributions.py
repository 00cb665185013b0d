"""Wheel and sdist have all that an installed service needs, from the folders at the root as well."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from odc_openeo.config import Config
from odc_openeo.db.migrate import alembic_config
from odc_openeo.indexing.index import product_definitions

ROOT = Path(__file__).resolve().parents[1]
AT_THE_ROOT = ("migrations", "indexing")
"""Folders that a wheel has inside of the package."""


def build(kind: str, source: Path, folder: Path) -> Path:
    command = [
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        f"--{kind}",
        "--outdir",
        str(folder),
        str(source),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=240)
    (path,) = folder.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return path


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    path = build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))
    return {name for name in zipfile.ZipFile(path).namelist() if ".dist-info/" not in name}


def list_package_files() -> set[str]:
    """What a wheel must have: all of the package, with the folders at the root inside of it."""
    files = {path for path in (ROOT / "odc_openeo").rglob("*") if path.is_file()}
    inside = {path.relative_to(ROOT) for path in files if "indexing" not in path.relative_to(ROOT).parts[:2]}
    moved = {
        Path("odc_openeo") / path.relative_to(ROOT)
        for folder in AT_THE_ROOT
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
    }
    return {str(path) for path in inside | moved if "__pycache__" not in path.parts}


def test_wheel_has_the_package_with_migrations_and_indexing(wheel: set[str]) -> None:
    assert wheel == list_package_files()
    assert "odc_openeo/migrations/env.py" in wheel
    assert "odc_openeo/py.typed" in wheel
    assert any(name.startswith("odc_openeo/indexing/products/") for name in wheel)


def test_wheel_from_sdist_is_the_same(sdist: Path, wheel: set[str], tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    rebuilt = build("wheel", source, tmp_path / "dist")
    names = {name for name in zipfile.ZipFile(rebuilt).namelist() if ".dist-info/" not in name}
    assert names == wheel


@pytest.mark.parametrize("name", ["README.md", "LICENSE", "migrations/env.py", "indexing/stac.py", "tests/"])
def test_sdist_has(sdist: Path, name: str) -> None:
    with tarfile.open(sdist) as archive:
        names = ["/".join(member.split("/")[1:]) for member in archive.getnames()]
    assert any(member == name or (name.endswith("/") and member.startswith(name)) for member in names)


def test_editable_install_finds_migrations_and_products() -> None:
    scripts = ScriptDirectory.from_config(alembic_config(Config()))
    assert len(scripts.get_heads()) == 1
    assert product_definitions()


def test_installed_wheel_finds_migrations_and_products(tmp_path: Path) -> None:
    """Unpacked beside the dependencies of this environment, away from the checkout."""
    path = build("wheel", ROOT, tmp_path / "dist")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "import odc_openeo; from alembic.script import ScriptDirectory;"
        "from odc_openeo.config import Config; from odc_openeo.db.migrate import alembic_config;"
        "from odc_openeo.indexing.index import product_definitions;"
        "print(odc_openeo.__file__, ScriptDirectory.from_config(alembic_config(Config())).get_heads(),"
        " len(list(product_definitions())))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    file, *rest = done.stdout.split()
    assert Path(file).is_relative_to(tmp_path / "site")
    assert int(rest[-1]) > 0
