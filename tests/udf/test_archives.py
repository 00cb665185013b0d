"""Archives of dependencies of user code: unpacked to its working folder, and nothing in them leads out."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from odc_openeo.config import Config
from odc_openeo.errors import FileNotFound, RequestInvalid, UdfUnavailable, UrlForbidden
from odc_openeo.graph import evaluate
from odc_openeo.jobs.options import parse_archives
from odc_openeo.registry.environment import Environment, NotDetermined
from odc_openeo.udf import archives as archives_module
from odc_openeo.udf.archives import Archive, parse_archive
from odc_openeo.udf.child.unpacker import INVALID, TooLarge, unpack
from odc_openeo.user_data import files
from tests.conftest import Site
from tests.udf.conftest import udf_arguments

CODE = """
import sys
from openeo.udf import StructuredData, UdfData

sys.path.insert(0, "deps")
import tripling

def apply_udf_data(data: UdfData):
    (given,) = data.get_structured_data_list()
    for path in ("deps/models/factor.txt", "deps/new.py"):
        try:
            open(path, "a")
        except PermissionError:
            continue
        raise AssertionError(path)
    with open("deps/models/factor.txt") as file:
        factor = int(file.read())
    data.set_structured_data_list([StructuredData(tripling.triple(given.data) * factor)])
"""
LIBRARY = {"tripling.py": "def triple(x):\n    return 3 * x\n", "models/factor.txt": "10"}
MIB = 2**20


def write_zip(path: Path, members: dict[str, str], modes: dict[str, int] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (modes or {}).get(name, stat.S_IFREG | 0o644) << 16
            archive.writestr(info, text)
    return path


def write_tar(path: Path, members: dict[str, str], mode: str = "w", **more: Any) -> Path:
    """Write files; ``more`` are attributes of the last entry, such as its type."""
    with tarfile.open(path, mode) as archive:
        for name, text in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            for attribute, value in more.items() if name == list(members)[-1] else ():
                setattr(info, attribute, value)
            archive.addfile(info, io.BytesIO(text.encode()))
    return path


def run(environment: Environment, code: str, data: Any) -> Any:
    node = {"process_id": "run_udf", "arguments": udf_arguments(code, data), "result": True}
    return evaluate({"process_graph": {"it": node}}, environment)


@pytest.fixture
def allowed(environment: Environment, config: Config) -> Environment:
    """The environment of a run that may fetch from this machine."""
    open_config = config.model_copy(update={"outgoing_allow": "127.0.0.1"})
    return replace(environment, catalog=SimpleNamespace(config=open_config))


def test_code_uses_archives_of_other_hosts(
    allowed: Environment, environment: Environment, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_zip(site.folder / "lib.zip", LIBRARY)
    write_zip(site.folder / "copy.zip", LIBRARY)
    once = count_calls(monkeypatch, archives_module, "_unpack")
    for name in ("lib.zip", "copy.zip"):
        env = replace(allowed, archives=(f"{site.root}/{name}#deps",))
        assert run(env, CODE, 2) == 60
    # Not fetched again for a while.
    (site.folder / "lib.zip").unlink()
    assert run(replace(allowed, archives=(f"{site.root}/lib.zip#deps",)), CODE, 3) == 90
    assert len(once) == 1
    with pytest.raises(UrlForbidden):
        run(replace(environment, archives=(f"{site.root}/other.zip#deps",)), CODE, 2)
    with pytest.raises(NotDetermined):
        run(replace(allowed, archives=(f"{site.root}/lib.zip#deps",), checks_only=True), CODE, 3)


def count_calls(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[Any]:
    calls, function = [], getattr(module, name)

    def count(*arguments: Any) -> Any:
        calls.append(arguments)
        return function(*arguments)

    monkeypatch.setattr(module, name, count)
    return calls


def test_code_uses_archives_of_the_files_of_its_user(environment: Environment, tmp_path: Path) -> None:
    config: Config = environment.catalog.config
    content = write_tar(tmp_path / "lib.tar.xz", LIBRARY, "w:xz").read_bytes()
    files.receive_file(config, str(environment.user), "udf/lib.tar.xz", io.BytesIO(content), None)
    assert run(replace(environment, archives=("udf/lib.tar.xz#deps",)), CODE, 2) == 60
    someone = "0b7a4d43-4b0f-4d35-9b0e-0b4d8a8a9f11"
    for user, name in (
        (someone, "udf/lib.tar.xz"),
        (environment.user, "../lib.tar.xz"),
        (environment.user, "udf"),
    ):
        with pytest.raises(FileNotFound):
            run(replace(environment, user=user, archives=(f"{name}#deps",)), CODE, 2)


def test_hostile_archives_are_the_error_of_their_user(allowed: Environment, site: Site) -> None:
    write_zip(site.folder / "link.zip", {"link": "/etc/passwd"}, {"link": stat.S_IFLNK | 0o777})
    # A header of 300 MiB, more than the process may allocate at once.
    small = allowed.catalog.config.model_copy(update={"udf_memory": 128 * MIB})
    allowed = replace(allowed, catalog=SimpleNamespace(config=small))
    write_pax_bomb(site.folder / "bomb.tar.gz", 300 * MIB)
    for name in ("link.zip", "bomb.tar.gz"):
        with pytest.raises(UdfUnavailable, match=rf"{name}.*(cannot be unpacked|takes more than)") as caught:
            run(replace(allowed, archives=(f"{site.root}/{name}#deps",)), CODE, 2)
        assert "/tmp" not in str(caught.value)


def write_pax_bomb(path: Path, size: int) -> None:
    import gzip

    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, size
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(info.tobuf(tarfile.USTAR_FORMAT))
        for _ in range(size // MIB):
            file.write(b"0" * MIB)


# --- The unpacker, which runs in the sandbox -------------------------------------------------------


@pytest.mark.parametrize("mode", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
def test_archives_are_unpacked_whatever_their_names_are(mode: str, tmp_path: Path) -> None:
    members = {"a.txt": "A", "./b/c.txt": "C", "b/d/e.txt": ""}
    write: Callable[..., Path] = write_zip if mode == "zip" else write_tar
    packed = write(tmp_path / "packed", members, *([] if mode == "zip" else [mode]))
    target = tmp_path / "target"
    unpack(packed, target, MIB)
    texts = {str(p.relative_to(target)): p.read_text() for p in target.rglob("*") if p.is_file()}
    assert texts == {"a.txt": "A", "b/c.txt": "C", "b/d/e.txt": ""}


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
def test_zip_archives_that_lead_out_are_refused(
    members: dict[str, str], modes: dict[str, int], tmp_path: Path
) -> None:
    packed = write_zip(tmp_path / "bad.zip", members, modes)
    with pytest.raises(INVALID):
        unpack(packed, tmp_path / "target", MIB)
    check_nothing_outside(tmp_path, "bad.zip")


@pytest.mark.parametrize(
    ("members", "more"),
    [
        ({"../evil.py": "x"}, {}),
        ({"/evil.py": "x"}, {}),
        ({"a/../../evil.py": "x"}, {}),
        ({"link": ""}, {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
        ({"a": "x", "link": ""}, {"type": tarfile.LNKTYPE, "linkname": "a"}),
        ({"device": ""}, {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}),
        ({"block": ""}, {"type": tarfile.BLKTYPE}),
        ({"pipe": ""}, {"type": tarfile.FIFOTYPE}),
        ({"twice": "1", "./twice": "2"}, {}),
    ],
)
def test_tar_archives_that_lead_out_are_refused(
    members: dict[str, str], more: dict[str, Any], tmp_path: Path
) -> None:
    packed = write_tar(tmp_path / "bad.tar", members, **more)
    with pytest.raises(INVALID):
        unpack(packed, tmp_path / "target", MIB)
    check_nothing_outside(tmp_path, "bad.tar")


def check_nothing_outside(folder: Path, packed: str) -> None:
    assert [p.name for p in folder.rglob("*") if not p.is_relative_to(folder / "target")] == [packed]


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zeros = {"zeros": "0" * MIB}
    for i, packed in enumerate((write_zip(tmp_path / "a", zeros), write_tar(tmp_path / "b", zeros, "w:bz2"))):
        with pytest.raises(TooLarge):
            unpack(packed, tmp_path / f"target{i}", 10_000)
    monkeypatch.setattr("odc_openeo.udf.child.unpacker.MOST_MEMBERS", 100)
    many = write_zip(tmp_path / "many", {f"{i}": "" for i in range(101)})
    with pytest.raises(ValueError, match="more than 100 files"):
        unpack(many, tmp_path / "many-target", MIB)


@pytest.mark.parametrize("cut", [None, 40, 150])
def test_what_is_no_archive_is_refused(tmp_path: Path, cut: int | None) -> None:
    path = tmp_path / "text.zip"
    path.write_text("no archive")
    if cut is not None:
        write_tar(path, {"random": "".join(chr(32 + i * i % 90) for i in range(5000))}, "w:gz")
        path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(INVALID):
        unpack(path, tmp_path / "target", MIB)


# --- Options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "archives",
    [
        "https://example.org/a.zip#a",
        ["ftp://x/a.zip"],
        ["file:///etc/a.zip"],
        ["https://x/a.zip#../b"],
        ["a.zip#.."],
        ["#deps"],
        ["https://x/a.zip#a", "b.zip#a"],
        [7],
        ["a"] * 99,
    ],
)
def test_options_are_checked(archives: Any) -> None:
    with pytest.raises(RequestInvalid):
        parse_archives({"job_options": {"udf-dependency-archives": archives}})


def test_options_of_archives() -> None:
    urls = ["https://example.org/a.zip#models", "HTTPS://example.org/b.zip", "my files/c.tar.gz"]
    assert parse_archives({"job_options": {"udf-dependency-archives": urls}}) == tuple(urls)
    assert [parse_archive(url).folder for url in (urls[0], "x/b.ZIP", "c.tar.gz", "d.tgz")] == [
        *("models", "b", "c", "d")
    ]
    assert parse_archive("x/b.zip#y") == Archive("x/b.zip", "y")
    assert parse_archives({}) == ()
