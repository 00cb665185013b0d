"""Code that requires libraries runs if its runtime has them."""

from __future__ import annotations

import numpy as np
import pytest

from odc_openeo.errors import ProcessParameterInvalid, UdfUnavailable
from tests.udf.conftest import Run, udf_arguments

CODE = """
from openeo.udf import StructuredData, UdfData

def apply_udf_data(data: UdfData):
    data.set_structured_data_list([StructuredData(1)])
"""


def declare(*requirements: str) -> str:
    lines = "".join(f'#   "{requirement}",\n' for requirement in requirements)
    return f"# /// script\n# dependencies = [\n{lines}# ]\n# ///\n{CODE}"


def test_libraries_of_the_runtime_can_be_required(run: Run) -> None:
    code = declare("NumPy", f"numpy=={np.__version__}", "xarray>=0.1", "nothing; python_version < '3'")
    assert run(None, "run_udf", **udf_arguments(code, 0)) == 1


@pytest.mark.parametrize(
    ("requirement", "reason"),
    [
        ("no-such-library", "does not have it"),
        ("numpy<1", f"has version {np.__version__}"),
        ("thing @ https://example.org/thing.zip", "not possible"),
        ("thing @ file:///etc", "not possible"),
    ],
)
def test_other_libraries_are_refused(run: Run, requirement: str, reason: str) -> None:
    with pytest.raises(UdfUnavailable, match=reason):
        run(None, "run_udf", **udf_arguments(declare(requirement), 0))


@pytest.mark.parametrize("code", [declare("a b c"), declare("numpy") * 2, declare('x"')])
def test_blocks_that_are_not_valid(run: Run, code: str) -> None:
    with pytest.raises(ProcessParameterInvalid, match="script metadata"):
        run(None, "run_udf", **udf_arguments(code, 0))
