"""A process that has imported its libraries waits for the next code of anybody."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import psutil
import pytest

from odc_openeo.errors import UdfUnavailable
from odc_openeo.udf import children, layers
from odc_openeo.udf.calls import UdfCode, call_udf
from odc_openeo.udf.children import START_TRIES, Child, ChildLost
from odc_openeo.udf.commands import ChildPlan
from odc_openeo.udf.layers import find_sandbox
from odc_openeo.udf.pool import pool
from odc_openeo.udf.settings import LAYERS
from tests.support.processes import have_ended
from tests.support.sandbox import SETTINGS, needs_sandbox
from tests.support.waiting import wait_for

CODE = UdfCode(
    "import os, sys\n"
    "before = 'xarray' in sys.modules and 'openeo.udf' in sys.modules\n"
    "from openeo.udf import StructuredData, UdfData\n"
    "def apply_udf_data(data: UdfData):\n"
    "    answer = {'pid': os.getpid(), 'before': before, 'names': sorted(os.listdir('.'))}\n"
    "    data.set_structured_data_list([StructuredData(answer)])\n"
)
HEADER = {"call": "run", "inputs": [{"kind": "json", "value": 1}]}

pytestmark = needs_sandbox


@pytest.fixture(autouse=True)
def _no_processes_before_and_afterwards() -> Iterator[None]:
    pool.stop()
    pool.__post_init__()
    yield
    pool.stop()


def call(number: int, owner: str = "alice") -> int:
    """Call a code; return the process id of the answer."""
    code = replace(CODE, source=CODE.source + f"number = {number}\n")
    reply = call_udf(SETTINGS, owner, code, HEADER, [])
    answer = json.loads(reply.arrays[0].tobytes())
    assert answer["before"]
    assert answer["names"] == []
    return int(answer["pid"])


def wait_for_spare() -> int:
    wait_for(lambda: pool.spare is not None)
    assert pool.spare is not None
    return pool.spare[2].pid


def test_no_spare_for_a_single_code() -> None:
    assert call(1) == call(1)
    assert pool.spare is None
    assert pool._starter is None


def test_the_next_code_gets_the_spare_whoever_sends_it() -> None:
    pids = {call(1), call(2)}
    for number, owner in enumerate(["alice", "bob", "carol"]):
        spare = wait_for_spare()
        assert spare not in pids
        assert call(3 + number, owner) == spare
        pids.add(spare)


def test_a_spare_of_other_limits_is_not_taken() -> None:
    call(1)
    call(2)
    spare = wait_for_spare()
    limits = replace(SETTINGS.limits, seconds=17)
    reply = call_udf(SETTINGS, "alice", CODE, HEADER, [], limits)
    assert str(spare).encode() not in np.asarray(reply.arrays[0]).tobytes()


def test_a_killed_spare_is_replaced() -> None:
    call(1)
    call(2)
    spare = wait_for_spare()
    process = psutil.Process(spare)
    os.kill(spare, signal.SIGKILL)
    assert have_ended([process])
    assert call(3) != spare
    assert wait_for_spare() != spare


def test_processes_that_are_killed_while_they_start_are_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun = []

    def lose_some(plan: ChildPlan) -> Child:
        begun.append(plan)
        if len(begun) < START_TRIES:
            raise ChildLost
        return Child.start(plan)

    monkeypatch.setattr(children, "PAUSE_S", 0)
    monkeypatch.setattr(children, "LOSSES_S", 0)
    monkeypatch.setattr(pool, "start", lose_some)
    assert call(1) > 0
    assert len(begun) == START_TRIES
    begun.clear()
    monkeypatch.setattr(pool, "start", lambda plan: lose_some(begun.clear() or plan))
    with pytest.raises(UdfUnavailable, match="killed 10 times when it started"):
        call(2)


def test_tests_of_the_sandbox_that_are_killed_are_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    lost: set[ChildPlan] = set()
    start = Child.start

    def lose_first(plan: ChildPlan) -> Child:
        child = start(plan)
        if plan not in lost:
            lost.add(plan)
            os.kill(child.pid, signal.SIGKILL)
        return child

    monkeypatch.setattr(children, "PAUSE_S", 0)
    monkeypatch.setattr(Child, "start", lose_first)
    monkeypatch.setattr(layers, "_tested", {})
    sandbox = find_sandbox(SETTINGS, SETTINGS.pythons[0])
    assert sandbox.is_usable, sandbox.reason
    assert len(lost) >= len(LAYERS)


def test_a_sandbox_whose_tests_are_always_killed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(_: ChildPlan) -> Child:
        raise ChildLost

    monkeypatch.setattr(children, "PAUSE_S", 0)
    monkeypatch.setattr(Child, "start", lose)
    monkeypatch.setattr(layers, "_tested", {})
    sandbox = find_sandbox(SETTINGS, SETTINGS.pythons[0])
    assert not sandbox.is_usable
    assert f"its process was killed {layers.PROBE_TRIES} times" in sandbox.reason


def test_spares_end_when_nobody_needs_them() -> None:
    call(1)
    call(2)
    spare = psutil.Process(wait_for_spare())
    pool.end_idle(3600)
    assert spare.is_running()
    pool.end_idle(0)
    assert have_ended([spare])
    assert pool.spare is None
    assert not pool._children


def test_spares_end_with_the_pool() -> None:
    call(1)
    call(2)
    pool.stop()
    assert pool.spare is None
    assert not [p for p in psutil.Process().children() if "odc_openeo_udf" in " ".join(p.cmdline())]
