"""A short run of schemathesis against the running stack; a long one: `python -m tests.conformance.api`."""

from __future__ import annotations

import pytest

from odc_openeo import db
from odc_openeo.config import Config
from odc_openeo.users import accounts
from tests.conformance.api import DESCRIPTION, report, run
from tests.conformance.owned import sign_in

CASES = 160
LOGIN = ("tester", "correct horse")


@pytest.mark.skipif(not DESCRIPTION.is_file(), reason=f"the openEO API description is not at {DESCRIPTION}")
def test_answers_are_as_described(
    stack: str, stack_environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    config = Config(database_url=stack_environment["ODC_DEFAULT_DB_URL"])
    accounts.create_user(config, *LOGIN)
    db.dispose_engine(config)
    faults = report(run(sign_in(stack, LOGIN), DESCRIPTION, CASES))
    assert faults == 0, capsys.readouterr().out
