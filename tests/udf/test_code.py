"""Code comes inline, from the user's files, or from the web through the guard of outgoing requests."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from odc_openeo.config import Config
from odc_openeo.errors import (
    FeatureUnsupported,
    FileNotFound,
    InvalidRuntime,
    InvalidVersion,
    ProcessParameterInvalid,
    UdfFailed,
    UdfUnavailable,
    UrlForbidden,
)
from odc_openeo.graph import evaluate, prepare
from odc_openeo.registry.environment import Environment
from odc_openeo.storage import get_storage
from tests.conftest import Site
from tests.udf.conftest import USER, Run, udf_arguments

CODE = """
from openeo.udf import StructuredData, UdfData

def apply_udf_data(data: UdfData):
    data.set_structured_data_list([StructuredData([data.user_context, "done"])])
"""


def run_in(environment: Environment, **arguments: Any) -> Any:
    node = {"process_id": "run_udf", "arguments": arguments, "result": True}
    return evaluate({"process_graph": {"it": node}}, environment)


def with_config(environment: Environment, config: Config, **changes: Any) -> Environment:
    changed = SimpleNamespace(config=config.model_copy(update=changes))
    return replace(environment, catalog=changed)


def test_code_from_files(run: Run, config: Config) -> None:
    folder = get_storage(config).find_local_path(f"files/{USER}/code")
    assert folder is not None
    folder.mkdir(parents=True)
    (folder / "udf.py").write_text(CODE)
    for path in ("code/udf.py", "/code/udf.py", "./code/udf.py"):
        assert run(None, "run_udf", **udf_arguments(path, 1, context={"a": 1})) == [{"a": 1}, "done"]
    for path in ("code/none.py", "../../secret.py", "code"):
        with pytest.raises((FileNotFound, ProcessParameterInvalid)):
            run(None, "run_udf", **udf_arguments(path, 1))


def test_code_from_the_web(environment: Environment, config: Config, site: Site) -> None:
    (site.folder / "udf.py").write_text(CODE)
    arguments = udf_arguments(f"{site.root}/udf.py", 1, context=None)
    with pytest.raises(UrlForbidden):
        run_in(environment, **arguments)
    allowed = with_config(environment, config, outgoing_allow="127.0.0.1")
    assert run_in(allowed, **arguments) == [{}, "done"]
    # The address may have other content tomorrow.
    node = {"process_id": "run_udf", "arguments": arguments, "result": True}
    assert prepare({"process_graph": {"it": node}}).compute_fingerprint() is None


@pytest.mark.parametrize("version", [None, "latest", "3.11", "LATEST", ""])
def test_runtimes_and_versions(run: Run, version: str | None) -> None:
    arguments = {**udf_arguments(CODE, 1), "runtime": "pYTHON"}
    if version == "3.11":
        version = ".".join(map(str, sys.version_info[:2]))
    assert run(None, "run_udf", **arguments, version=version) == [{}, "done"]


def test_unknown_runtimes_and_versions(run: Run) -> None:
    with pytest.raises(InvalidRuntime, match="Python"):
        run(None, "run_udf", **{**udf_arguments(CODE, 1), "runtime": "R"})
    with pytest.raises(InvalidVersion, match="latest"):
        run(None, "run_udf", **udf_arguments(CODE, 1, version="2.7"))


def test_without_a_user_or_with_functions_turned_off(environment: Environment, config: Config) -> None:
    with pytest.raises(FeatureUnsupported, match="without a user"):
        run_in(replace(environment, user=None), **udf_arguments(CODE, 1))
    with pytest.raises(UdfUnavailable, match="ODC_OPENEO_UDF=off") as caught:
        run_in(with_config(environment, config, udf="off"), **udf_arguments(CODE, 1))
    assert caught.value.node == "it"


def test_code_without_a_function(run: Run) -> None:
    with pytest.raises(UdfFailed, match="No UDF found"):
        run(None, "run_udf", **udf_arguments("x = 1\n", 1))
    with pytest.raises(UdfFailed, match="SyntaxError"):
        run(None, "run_udf", **udf_arguments("def f(:\n", 1))
