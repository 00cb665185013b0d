"""Archives of dependencies of user code: unpacked to its working folder, and nothing in them leads out."""

from __future__ import annotations

import stat
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from odc_openeo.config import Config
from odc_openeo.errors import OpenEOError, RequestInvalid, UdfUnavailable, UrlForbidden
from odc_openeo.graph import evaluate
from odc_openeo.jobs.options import parse_archives
from odc_openeo.registry.environment import Environment
from odc_openeo.udf.archives import unpack_archive
from tests.conftest import Site
from tests.udf.conftest import udf_arguments

CODE = """
import sys
from openeo.udf import StructuredData, UdfData

sys.path.insert(0, "deps")
import tripling

def apply_udf_data(data: UdfData):
    (given,) = data.get_structured_data_list()
    with open("deps/models/factor.txt") as file:
        factor = int(file.read())
    data.set_structured_data_list([StructuredData(tripling.triple(given.data) * factor)])
"""


def write_zip(path: Path, members: dict[str, str], modes: dict[str, int] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (modes or {}).get(name, stat.S_IFREG | 0o644) << 16
            archive.writestr(info, text)
    return path


def run(environment: Environment, code: str, data: Any) -> Any:
    node = {"process_id": "run_udf", "arguments": udf_arguments(code, data), "result": True}
    return evaluate({"process_graph": {"it": node}}, environment)


def test_code_uses_its_archive(environment: Environment, config: Config, site: Site) -> None:
    write_zip(
        site.folder / "lib.zip",
        {"tripling.py": "def triple(x):\n    return 3 * x\n", "models/factor.txt": "10"},
    )
    open_config = config.model_copy(update={"outgoing_allow": "127.0.0.1"})
    archives = (f"{site.root}/lib.zip#deps",)
    allowed = replace(environment, catalog=SimpleNamespace(config=open_config), archives=archives)
    assert run(allowed, CODE, 2) == 60
    with pytest.raises(UrlForbidden):
        run(replace(environment, archives=(f"{site.root}/other.zip#deps",)), CODE, 2)


@pytest.mark.parametrize(
    ("members", "modes"),
    [
        ({"../evil.py": "x"}, {}),
        ({"a/../../evil.py": "x"}, {}),
        ({"/evil.py": "x"}, {}),
        ({"..\\evil.py": "x"}, {}),
        ({"link": "/etc/passwd"}, {"link": stat.S_IFLNK | 0o777}),
        ({"device": ""}, {"device": stat.S_IFCHR | 0o666}),
        ({"a": "x", "a/b": "y"}, {}),
    ],
)
def test_archives_that_lead_out_are_refused(
    members: dict[str, str], modes: dict[str, int], tmp_path: Path
) -> None:
    packed = write_zip(tmp_path / "bad.zip", members, modes)
    with pytest.raises(UdfUnavailable, match="cannot be unpacked"):
        unpack_archive(packed, tmp_path / "target", "bad.zip")
    outside = [p.name for p in tmp_path.rglob("*") if not p.is_relative_to(tmp_path / "target")]
    assert outside == ["bad.zip"]


def test_a_zip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("odc_openeo.udf.archives.MOST_BYTES", 10_000)
    packed = write_zip(tmp_path / "bomb.zip", {"zeros": "0" * 10**6})
    with pytest.raises(OpenEOError, match="too large"):
        unpack_archive(packed, tmp_path / "target", "bomb.zip")


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.zip"
    path.write_text("no archive")
    with pytest.raises(UdfUnavailable, match=r"text\.zip"):
        unpack_archive(path, tmp_path / "target", "text.zip")


@pytest.mark.parametrize(
    "archives", ["https://example.org/a.zip#a", ["ftp://x/a.zip"], ["https://x/a.zip#../b"], [7], ["a"] * 99]
)
def test_options_are_checked(archives: Any) -> None:
    with pytest.raises(RequestInvalid):
        parse_archives({"job_options": {"udf-dependency-archives": archives}})


def test_options_of_archives() -> None:
    urls = ["https://example.org/a.zip#models", "https://example.org/b.zip"]
    assert parse_archives({"job_options": {"udf-dependency-archives": urls}}) == tuple(urls)
    assert parse_archives({}) == ()
