"""Code that requires libraries runs if its runtime has them; only packages can be required."""

from __future__ import annotations

import platform
from dataclasses import replace

import numpy as np
import pytest

from odc_openeo.errors import ProcessParameterInvalid, UdfUnavailable
from odc_openeo.udf.requirements import find_missing_requirements
from odc_openeo.udf.runtimes import Interpreter, ask_interpreter
from odc_openeo.udf.settings import UdfSettings
from tests.support.wheels import declare
from tests.udf.conftest import Run, udf_arguments

CODE = """
from openeo.udf import StructuredData, UdfData

def apply_udf_data(data: UdfData):
    data.set_structured_data_list([StructuredData(1)])
"""


@pytest.fixture(scope="module")
def interpreter() -> Interpreter:
    return ask_interpreter(UdfSettings().pythons[0])


def test_libraries_of_the_runtime_can_be_required(run: Run) -> None:
    needed = ("NumPy", f"numpy=={np.__version__}", "xarray>=0.1", "nothing; python_version < '3'")
    code = declare(*needed, code=CODE, more="# requires-python = '>=3.8'\n")
    assert run(None, "run_udf", **udf_arguments(code, 0)) == 1


@pytest.mark.parametrize(
    ("requirement", "reason"),
    [("no-such-library", "does not have it"), ("numpy<1", f"has version {np.__version__}")],
)
def test_other_libraries_are_refused(run: Run, requirement: str, reason: str) -> None:
    with pytest.raises(UdfUnavailable, match=reason):
        run(None, "run_udf", **udf_arguments(declare(requirement, code=CODE), 0))


@pytest.mark.parametrize(
    "requirement",
    [
        "thing @ https://example.org/thing.zip",
        "thing @ file:///etc",
        "thing @ git+https://example.org/thing",
        "git+https://example.org/thing.git#egg=thing",
        "git+ssh://git@example.org/thing.git",
        "https://example.org/thing-1.0-py3-none-any.whl",
        "./thing",
        "../thing",
        "/tmp/thing",
        "~/thing",
        "thing-1.0-py3-none-any.whl",
        "thing.tar.gz",
        "thing.zip[extra]>=1",
        "-e .",
        "--editable=/tmp/thing",
        "-r requirements.txt",
        "--index-url https://example.org/simple",
        "--extra-index-url=https://example.org/simple",
        "--no-binary :all:",
    ],
)
def test_only_packages_of_the_index_can_be_required(requirement: str, interpreter: Interpreter) -> None:
    with pytest.raises(
        ProcessParameterInvalid, match="URLs, paths, repositories and options of pip are refused"
    ):
        find_missing_requirements(declare(requirement, code=CODE), interpreter)


@pytest.mark.parametrize(
    "requirement",
    [
        "a b c",
        "numpy --hash=sha256:00",
        "numpy\\n--index-url https://x",
        "",
        " ",
        "thing==",
        "thing; os == 'x'",
        "é",
    ],
)
def test_requirements_that_are_not_valid(requirement: str, interpreter: Interpreter) -> None:
    code = declare("x", code=CODE).replace("'x'", f'"{requirement}"')
    with pytest.raises(ProcessParameterInvalid, match="script metadata"):
        find_missing_requirements(code, interpreter)


@pytest.mark.parametrize(
    "code",
    [
        declare("numpy", code=CODE) * 2,
        declare("numpy", code=CODE).replace("'numpy'", "'numpy"),
        declare("numpy", code=CODE).replace("'numpy'", "7"),
        declare("numpy", code=CODE).replace("'numpy'", "[" * 5000),
        declare(*["numpy"] * 51, code=CODE),
        declare("numpy" * 100, code=CODE),
        declare("numpy", code=CODE, more="# requires-python = 'three'\n"),
        declare("numpy", code=CODE, more="# requires-python = 3\n"),
        declare("numpy", code=CODE, more="# tool.uv.sources.numpy.git = 'https://example.org'\n"),
        declare("numpy", code=CODE, more="# tool.uv.index-url = 'https://example.org'\n"),
    ],
)
def test_blocks_that_are_not_valid(code: str, interpreter: Interpreter) -> None:
    with pytest.raises(ProcessParameterInvalid, match="script metadata"):
        find_missing_requirements(code, interpreter)


@pytest.mark.parametrize("specifier", ["<3", ">=4", f"!={platform.python_version()}"])
def test_other_versions_of_python(specifier: str, interpreter: Interpreter) -> None:
    code = declare("numpy", code=CODE, more=f"# requires-python = '{specifier}'\n")
    with pytest.raises(UdfUnavailable, match=rf"requires Python .*has {platform.python_version()}"):
        find_missing_requirements(code, interpreter)


def test_conditions_are_those_of_the_runtime(interpreter: Interpreter) -> None:
    """Not of the interpreter of the service, which may be another one."""
    markers = {**interpreter.markers, "python_version": "3.9", "sys_platform": "plan9"}
    other = replace(interpreter, markers=markers)
    code = declare(
        "a; python_version < '3.10'", "b; python_version >= '3.10'", "c; sys_platform == 'plan9'", code=CODE
    )
    assert [str(requirement) for requirement in find_missing_requirements(code, other)] == ["a", "c"]
    assert [str(requirement) for requirement in find_missing_requirements(code, interpreter)] == ["b"]


def test_all_requirements_count_if_one_is_missing(interpreter: Interpreter) -> None:
    """The versions of all must fit together."""
    missing = find_missing_requirements(declare("numpy>=1", "absent[extra]>=2", code=CODE), interpreter)
    assert [str(requirement) for requirement in missing] == ["numpy>=1", "absent[extra]>=2"]
    assert find_missing_requirements(CODE, interpreter) == []
