"""Packages that user code requires are installed, if the operator allows it: wheels of the index only."""

from __future__ import annotations

import logging
import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from odc_openeo.config import Config
from odc_openeo.errors import UdfUnavailable
from odc_openeo.graph import evaluate
from odc_openeo.registry.environment import Environment
from odc_openeo.udf import packages
from odc_openeo.udf.calls import read_udf_settings
from odc_openeo.udf.packages import find_package_index, open_packages
from odc_openeo.udf.requirements import find_missing_requirements
from odc_openeo.udf.runtimes import ask_interpreter
from tests.conftest import Site
from tests.support.wheels import declare, write_index, write_wheel
from tests.udf.conftest import make_shared_folder, udf_arguments

CODE = """
from openeo.udf import StructuredData, UdfData

def apply_udf_data(data: UdfData):
    import colorsys, importlib
    names = data.get_structured_data_list()[0].data
    data.set_structured_data_list([StructuredData([importlib.import_module(name).VERSION for name in names])])
"""
OTHER = "7c9e6679-7425-40de-944b-e07fc1f90ae7"

Evaluate = Callable[..., Any]


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that every user may enter."""
    with make_shared_folder() as folder:
        yield folder


@pytest.fixture
def wheels(shared_folder: Path) -> Path:
    """A folder of wheels: ``alpha`` needs ``beta`` from version 2 on, and numpy."""
    folder = shared_folder / "wheels"
    # A folder on the module path with such a file is not like one that `site` reads.
    spy = {"spy.pth": f"import os; os.mkdir({str(shared_folder / 'seen')!r})\n"}
    # No package takes the place of a module of the standard library.
    spy["json.py"] = spy["colorsys.py"] = "raise ImportError('not that of Python')\n"
    write_wheel(folder, "alpha", requires=["beta>=2", "numpy"], files=spy)
    write_wheel(folder, "beta", "1.0")
    write_wheel(folder, "beta", "2.0")
    folder.chmod(0o755)
    return folder


@pytest.fixture
def open_config(config: Config, wheels: Path, shared_folder: Path) -> Config:
    """The configuration of an operator who allows installations."""
    changes = {"udf_install": True, "udf_cache_dir": shared_folder / "cache"}
    return config.model_copy(update={**changes, "udf_package_index": secret(str(wheels))})


def secret(text: str) -> Any:
    return Config(udf_package_index=text).udf_package_index


@pytest.fixture
def run_code(environment: Environment, open_config: Config) -> Evaluate:
    """Evaluate `run_udf` with code on JSON, of any user and configuration."""

    def run(code: str, data: Any, user: str | None = None, config: Config = open_config) -> Any:
        env = replace(
            environment, catalog=SimpleNamespace(config=config), user=user or environment.user, outputs=[]
        )
        node = {"process_id": "run_udf", "arguments": udf_arguments(code, data), "result": True}
        return evaluate({"process_graph": {"it": node}}, env)

    return run


def install(config: Config, *requirements: str) -> Path:
    settings = read_udf_settings(config)
    interpreter = ask_interpreter(settings.pythons[0])
    missing = find_missing_requirements(declare(*requirements, code=""), interpreter)
    log = logging.getLogger("odc_openeo.run.installations")
    return open_packages(config, settings, interpreter, OTHER, missing, log).folder


def test_packages_are_installed_once_for_all_users(
    run_code: Evaluate, records: list[logging.LogRecord], shared_folder: Path
) -> None:
    code = declare("alpha", "numpy", "nothing; python_version < '3'", code=CODE)
    assert run_code(code, ["alpha", "beta"]) == ["1.0", "2.0"]
    assert run_code(declare("numpy", "Alpha", code=CODE), ["alpha"], user=OTHER) == ["1.0"]
    (entry,) = [r.getMessage() for r in records if "Installed for the code" in r.getMessage()]
    assert "alpha 1.0, beta 2.0 (" in entry
    packages = list((shared_folder / "cache" / "packages").glob("*/alpha.py"))
    assert len(packages) == 1
    assert list(packages[0].parent.glob("__pycache__/alpha.*.pyc"))
    # pip neither installs what the runtime has, nor runs anything.
    assert not (packages[0].parent / "numpy").exists()
    assert not (shared_folder / "seen").exists()


def test_nothing_is_installed_by_default(
    run_code: Evaluate, open_config: Config, shared_folder: Path
) -> None:
    closed = open_config.model_copy(update={"udf_install": Config.model_fields["udf_install"].default})
    with pytest.raises(UdfUnavailable, match=r"'alpha'.*not installed here"):
        run_code(declare("alpha", code=CODE), ["alpha"], config=closed)
    assert not (shared_folder / "cache" / "packages").exists()


def test_another_user_cannot_be_poisoned(run_code: Evaluate, shared_folder: Path) -> None:
    attack = """
import alpha, os, shutil, sys
from openeo.udf import StructuredData, UdfData

def apply_udf_data(data: UdfData):
    folder, cache = os.path.dirname(alpha.__file__), os.path.dirname(os.path.dirname(alpha.__file__))
    attempts = {
        "write": lambda: open(alpha.__file__, "w"),
        "append": lambda: open(alpha.__file__, "a"),
        "compiled": lambda: open(alpha.__cached__, "wb"),
        "new": lambda: open(folder + "/numpy.py", "w"),
        "remove": lambda: os.remove(alpha.__file__),
        "rename": lambda: os.rename(folder, folder + "-mine"),
        "replace": lambda: os.symlink(os.getcwd(), cache + "/evil"),
        "link": lambda: os.link(alpha.__file__, "mine.py"),
        "truncate": lambda: os.truncate(alpha.__file__, 0),
        "lock": lambda: open(folder + ".lock", "a"),
        "list": lambda: os.listdir(cache),
        "incoming": lambda: os.mkdir(cache + "/incoming-evil"),
    }
    succeeded = []
    for name, attempt in attempts.items():
        try:
            attempt()
            succeeded.append(name)
        except OSError:
            pass
    os.chmod(alpha.__file__, 0o666)
    data.set_structured_data_list([StructuredData([folder, succeeded])])
"""
    folder, succeeded = run_code(declare("alpha", code=attack), 0)
    assert succeeded == []
    place = Path(folder)
    assert (place / "alpha.py").read_text() == "VERSION = '1.0'\n"
    assert place.parent == shared_folder / "cache" / "packages"
    for path in (place.parent, place, *place.rglob("*")):
        assert path.lstat().st_uid == os.geteuid()
        assert path.lstat().st_mode & 0o022 == 0
    assert run_code(declare("alpha", code=CODE), ["alpha"], user=OTHER) == ["1.0"]


@pytest.mark.parametrize(
    ("requirements", "reason"),
    [
        (["beta>=3"], r"no wheel of 'beta>=3'.*it has the versions 1\.0, 2\.0 \(source packages"),
        (
            ["alpha", "beta<2"],
            r"exclude each other: The user requested beta<2; alpha 1\.0 depends on beta>=2",
        ),
        (["source"], "no wheel of 'source' for this version of Python and this platform"),
    ],
)
def test_failures_name_the_requirement(
    open_config: Config,
    wheels: Path,
    tmp_path: Path,
    requirements: list[str],
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "setup.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')")
    with tarfile.open(wheels / "source-1.0.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "setup.py", "source-1.0/setup.py")
    for _ in range(2):
        with (
            caplog.at_level(logging.INFO, "odc_openeo.udf.packages"),
            pytest.raises(UdfUnavailable, match=reason) as caught,
        ):
            install(open_config, *requirements)
    assert str(wheels) not in str(caught.value)
    assert not (tmp_path / "run").exists()
    # Tiles of a service would ask again and again.
    assert len([r for r in caplog.records if "could not install" in r.getMessage()]) == 1
    assert not list((open_config.udf_cache_dir or tmp_path).glob("packages/*/"))


def test_sizes_are_limited(open_config: Config, wheels: Path) -> None:
    write_wheel(wheels, "large", files={"large.bin": "0" * 3_000_000})
    small = open_config.model_copy(update={"udf_install_bytes": 2**20})
    with pytest.raises(UdfUnavailable, match=r"installing large .*(too large|of files|failed)"):
        install(small, "large")
    assert install(open_config, "large").is_dir()


def test_two_installations_at_once_are_one(open_config: Config, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "odc_openeo.run.installations"), ThreadPoolExecutor(3) as executor:
        folders = set(executor.map(lambda _: install(open_config, "beta"), range(3)))
    assert len(folders) == 1
    assert len([r for r in caplog.records if "Installed for the code" in r.getMessage()]) == 1


# --- Indexes on the network ------------------------------------------------------------------------


@pytest.fixture
def bystander() -> Iterator[tuple[int, list[str]]]:
    """A service in the operator's network, and the requests that it gets."""
    requests: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, requests
        server.shutdown()


def test_an_index_of_the_operator(
    open_config: Config, site: Site, tmp_path: Path, bystander: tuple[int, list[str]]
) -> None:
    port, requests = bystander
    foreign = f"http://127.0.0.1:{port}/evil-1.0-py3-none-any.whl"
    wheels = [
        write_wheel(tmp_path / "w", "delta", requires=["epsilon"]),
        write_wheel(tmp_path / "w", "epsilon"),
        write_wheel(tmp_path / "w", "zeta", requires=[f"evil @ {foreign}"]),
    ]
    write_index(site.folder, wheels)
    # The index is in the operator's network, and its password is no concern of users.
    address = site.root.replace("http://", "http://reader:swordfish@")
    config = open_config.model_copy(update={"udf_package_index": secret(f"{address}/simple")})
    folder = install(config, "delta")
    assert {"delta.py", "epsilon.py"} <= {path.name for path in folder.iterdir()}
    other = secret(f"{address.replace('swordfish', 'herring')}/simple")
    # User code sees the name of the folder, and could guess a password from it.
    assert install(config.model_copy(update={"udf_package_index": other}), "delta") == folder
    for requirement in ("zeta", "missing"):
        with pytest.raises(UdfUnavailable, match=requirement) as caught:
            install(config, requirement)
        assert "swordfish" not in str(caught.value)
        assert site.root not in str(caught.value)
    assert requests == []


def test_an_index_that_does_not_answer(open_config: Config) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        # Connections are accepted, but nobody answers.
        index = secret(f"http://127.0.0.1:{server.server_port}/simple")
        config = open_config.model_copy(update={"udf_package_index": index, "udf_install_timeout_s": 4})
        with pytest.raises(UdfUnavailable, match="installing beta takes more than 4 s"):
            install(config, "beta")


def test_the_index_of_pip_is_the_default(
    open_config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = open_config.model_copy(update={"udf_package_index": None})
    python = read_udf_settings(config).pythons[0]
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    for name in ("XDG_CONFIG_DIRS", "HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://index.example.org:8443/simple\nfind-links = /not/here\n"
        "[download]\nfind-links = /nor/here\n[install]\nfind-links =\n    /srv/a\n    file:///srv/b/simple\n"
    )
    try:
        packages._ask_pip.cache_clear()
        # Whatever it is: it is that of pip, and reached by TLS.
        default = find_package_index(config, python)
        assert default.hosts
        assert all(host.endswith(":443") for host in default.hosts)
        assert "--index-url" not in default.options
        monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
        packages._ask_pip.cache_clear()
        index = find_package_index(config, python)
    finally:
        packages._ask_pip.cache_clear()
    assert index.hosts == ("index.example.org:8443",)
    assert {"/srv/a", "/srv/b"} <= set(index.files)
    assert not {"/not/here", "/nor/here"} & set(index.files)
    assert index.options[4:6] == ("--index-url", "https://index.example.org:8443/simple")


def test_settings_that_are_no_index(open_config: Config) -> None:
    config = open_config.model_copy(update={"udf_package_index": secret("/no/such/folder")})
    with pytest.raises(UdfUnavailable, match="UDF_PACKAGE_INDEX"):
        install(config, "beta")
