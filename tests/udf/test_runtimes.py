"""Runtimes side by side are listed as they are, and code runs in the one that it names."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from odc_openeo.api.processes import offered
from odc_openeo.config import Config
from odc_openeo.errors import InvalidRuntime
from odc_openeo.graph import evaluate
from odc_openeo.registry.environment import Environment
from odc_openeo.udf import layers
from odc_openeo.udf.calls import read_udf_settings
from odc_openeo.udf.runtimes import describe_runtimes
from tests.support.sandbox import needs_sandbox
from tests.udf.conftest import udf_arguments

PREFIX = """
import sys
from openeo.udf import StructuredData, UdfData

def apply_udf_data(data: UdfData):
    data.set_structured_data_list([StructuredData(sys.prefix)])
"""

pytestmark = needs_sandbox


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """The interpreter of another environment, which is the same one by another name."""
    (tmp_path / "second").symlink_to(sys.prefix)
    return tmp_path / "second" / "bin" / "python"


def test_code_runs_in_the_runtime_that_it_names(
    environment: Environment, config: Config, second: Path
) -> None:
    both = config.model_copy(update={"udf_pythons": f"{sys.executable}, {second}"})
    runtimes = describe_runtimes(read_udf_settings(both))
    assert list(runtimes) == ["Python", "Python-second"]
    for runtime in runtimes.values():
        libraries = runtime["versions"][runtime["default"]]["libraries"]
        assert libraries["numpy"] == {"version": np.__version__}

    def run(runtime: str) -> Any:
        env = replace(environment, catalog=SimpleNamespace(config=both))
        arguments = {**udf_arguments(PREFIX, 0), "runtime": runtime}
        node = {"process_id": "run_udf", "arguments": arguments, "result": True}
        return evaluate({"process_graph": {"it": node}}, env)

    assert run("python") == sys.prefix
    assert run("python-SECOND") == str(second.parents[1])
    with pytest.raises(InvalidRuntime, match="Python-second"):
        run("third")


def test_descriptions_say_what_the_operator_allows(config: Config) -> None:
    def describe(**changes: Any) -> str:
        settings = read_udf_settings(config.model_copy(update=changes))
        (runtime,) = describe_runtimes(settings).values()
        return str(runtime["description"])

    assert "are not installed. The network is closed." in describe()
    text = describe(udf_install=True, udf_hosts="a.example.org,.b.example.org:8443")
    assert "are installed as wheels. The network is open to a.example.org, .b.example.org:8443." in text


def test_runtimes_that_were_not_there_are_looked_for_again(
    config: Config, second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = second.parents[2] / "later"
    changed = config.model_copy(update={"udf_pythons": str(later / "bin" / "python")})

    def run_here(function: Callable[..., Any], user: None) -> Any:
        return function(changed)

    # The layers are tested in this process instead of a runner, and at once.
    monkeypatch.setattr(offered, "run_for_view", run_here)
    monkeypatch.setattr(offered, "backend", lambda: SimpleNamespace(config=changed))
    monkeypatch.setattr(layers, "RETRY_S", 0.0)
    assert offered.get_runtimes() == {}
    later.symlink_to(sys.prefix)
    assert offered.get_runtimes() == {}
    until, _ = offered._answers[changed]
    monkeypatch.setitem(offered._answers, changed, (until - offered.RETRY_S - 1, {}))
    assert list(offered.get_runtimes()) == ["Python"]
    later.unlink()
    assert list(offered.get_runtimes()) == ["Python"]
