"""Processes of user code: what they keep, how they end, and that nothing of them is left."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from odc_openeo.config import child_environment
from odc_openeo.errors import UdfFailed, UdfLimitExceeded, UdfUnavailable
from odc_openeo.udf import calls, layers
from odc_openeo.udf.calls import UdfCode, UdfLimits, UdfSettings, call_udf
from odc_openeo.udf.layers import LAYERS, find_sandbox
from odc_openeo.udf.pool import MOST_IDLE, pool
from tests.support.processes import have_ended
from tests.support.sandbox import SANDBOX, SETTINGS, needs_sandbox
from tests.support.waiting import wait_for

LIMITS = UdfLimits(memory_bytes=2**28, seconds=60, output_bytes=2**24, file_bytes=2**24)
pytestmark = needs_sandbox


@pytest.fixture(autouse=True)
def _no_processes_afterwards():
    yield
    pool.stop()


def make_code(body: str) -> UdfCode:
    return UdfCode(f"import os, time\nimport numpy as np\n{body}", style="plain")


COUNT = make_code(
    "n = 0\ndef call(header, arrays):\n    global n\n    n += 1\n"
    "    return {'n': n, 'pid': os.getpid()}, []\n"
)
DOUBLE = make_code("def call(header, arrays):\n    return header, [2 * array for array in arrays]\n")
SLOW_DOUBLE = make_code(
    "def call(header, arrays):\n    time.sleep(0.05)\n    return header, [2 * array for array in arrays]\n"
)
SLEEP = make_code("def call(header, arrays):\n    time.sleep(1000)\n")


def call(code: UdfCode, *arrays: np.ndarray, owner: str = "alice", limits: UdfLimits = LIMITS):
    return call_udf(SETTINGS, owner, code, {}, arrays, limits)


def find_idle_process() -> psutil.Process:
    """The only process without a call; namespaces give user code other ids of processes."""
    ((_, _, child),) = pool.idle
    return psutil.Process(child.pid)


# --- What survives from one call to the next -----------------------------------------------------


def test_globals_survive_for_the_same_owner_and_code():
    assert [call(COUNT).header["n"] for _ in range(3)] == [1, 2, 3]
    assert call(COUNT, owner="bob").header["n"] == 1
    assert call(make_code(COUNT.source + "\n# other code")).header["n"] == 1
    assert call(COUNT).header["n"] == 4


def test_processes_outlive_the_thread_that_called_first():
    with ThreadPoolExecutor(1) as executor:
        first = executor.submit(call, COUNT).result().header
    assert call(COUNT).header == {"n": 2, "pid": first["pid"]}


def test_threads_call_at_the_same_time():
    code = make_code(
        "name = os.urandom(8).hex()\n"
        "def call(header, arrays):\n    time.sleep(0.3)\n    return {'name': name}, []\n"
    )
    with ThreadPoolExecutor(3) as executor:
        futures = [executor.submit(call, code) for _ in range(3)]
        assert len({future.result().header["name"] for future in futures}) == 3


def test_the_number_of_idle_processes_is_bounded():
    for number in range(MOST_IDLE + 3):
        call(COUNT, owner=f"user {number}")
    assert len(pool.idle) == MOST_IDLE


def test_idle_processes_are_ended():
    call(COUNT)
    process = find_idle_process()
    pool.end_idle(3600)
    assert process.is_running()
    pool.end_idle(0)
    assert have_ended([process])


def test_threads_of_user_code_do_not_run_between_calls():
    code = make_code(
        "import threading\nn = 0\ndef run():\n    global n\n"
        "    while True:\n        n += 1\n        time.sleep(0.01)\n"
        "threading.Thread(target=run, daemon=True).start()\n"
        "def call(header, arrays):\n    return {'n': n}, []\n"
    )
    call(code)
    process = find_idle_process()
    wait_for(lambda: process.status() == psutil.STATUS_STOPPED)
    call(code)
    assert find_idle_process() == process
    assert process.status() != psutil.STATUS_STOPPED
    wait_for(lambda: process.status() == psutil.STATUS_STOPPED)
    pool.end_idle(0)
    assert have_ended([process])


def test_the_arena_is_reused_and_grows():
    call(DOUBLE, np.zeros(10))
    ((_, _, child),) = pool.idle
    first = child.arena
    call(DOUBLE, np.zeros(1000))
    assert child.arena is first
    large = np.arange(2**22, dtype=np.float64)
    add = replace(DOUBLE, source=DOUBLE.source.replace("2 * array", "array.sum()"))
    call(add, np.zeros(10))
    child = pool.idle[-1][2]
    first = child.arena
    (total,) = call(add, large).arrays
    assert pool.idle[-1][2] is child
    assert child.arena is not first
    assert total == large.sum()


@pytest.mark.parametrize(
    "values",
    [
        np.arange(24.0).reshape(2, 3, 4).T,
        np.arange(10)[::-2],
        np.array(7, np.uint8),
        np.zeros((0, 3), np.float32),
        np.array([1, 2], ">i4"),
        np.array([1 + 2j]),
        np.broadcast_to(np.int16(3), (4, 5)),
        np.array([np.nan, np.inf, -0.0]),
    ],
    ids=lambda values: f"{values.dtype}-{values.shape}",
)
def test_arrays_of_any_order_and_type(values):
    (result,) = call(DOUBLE, values).arrays
    np.testing.assert_array_equal(result, 2 * values)
    assert result.dtype == (2 * values).dtype.newbyteorder("=")


# --- Errors --------------------------------------------------------------------------------------


def test_an_error_has_the_lines_of_the_user_only():
    code = UdfCode(
        "def helper(x):\n    return x / 0\ndef call(header, arrays):\n    helper(1)\n", style="plain"
    )
    with pytest.raises(
        UdfFailed, match=r"ZeroDivisionError: division by zero \(line 2 of the code\)"
    ) as caught:
        call(code)
    (entry,) = caught.value.logs
    assert entry["level"] == "error"
    assert "return x / 0" in entry["message"]
    assert "helper(1)" in entry["message"]
    assert "main.py" not in entry["message"]
    assert "plain.py" not in entry["message"]


def test_a_process_serves_on_after_an_error():
    code = make_code(
        "n = 0\ndef call(header, arrays):\n    global n\n    n += 1\n"
        "    if n == 1:\n        raise ValueError('no')\n"
        "    return {'n': n}, []\n"
    )
    with pytest.raises(UdfFailed, match="ValueError: no"):
        call(code)
    assert call(code).header == {"n": 2}


def test_code_that_is_no_python():
    with pytest.raises(UdfFailed, match=r"SyntaxError.*line 2 of the code"):
        call(UdfCode("x = 1\ndef call(:\n", style="plain"))


def test_a_call_that_takes_too_long():
    with pytest.raises(UdfLimitExceeded, match="longer than 1 s"):
        call(SLEEP, limits=replace(LIMITS, seconds=1))
    assert pool.idle == []


def test_too_much_input():
    with pytest.raises(UdfLimitExceeded, match="smaller chunks"):
        call(DOUBLE, np.broadcast_to(np.float64(1), (2**26,)))


def test_an_unknown_interpreter():
    with pytest.raises(UdfUnavailable, match="runtime"):
        call(UdfCode("", runtime="/bin/sh"))


# --- Whether user code runs at all ---------------------------------------------------------------


def test_user_code_is_turned_off():
    settings = UdfSettings(mode="off")
    with pytest.raises(UdfUnavailable, match="ODC_OPENEO_UDF=off"):
        call_udf(settings, "alice", DOUBLE, {}, [])


def test_namespaces_are_asked_for_but_missing(monkeypatch):
    monkeypatch.setattr(layers, "find_bubblewrap", lambda: None)
    layers._tested.clear()
    with pytest.raises(UdfUnavailable, match="bubblewrap is not installed"):
        call_udf(UdfSettings(mode="namespaces"), "alice", DOUBLE, {}, [])
    layers._tested.clear()


@pytest.mark.parametrize("layer", LAYERS)
def test_no_user_code_runs_without_a_layer(monkeypatch, layer):
    find_failure = layers._find_failure

    def fail(plan, settings):
        return "it does not hold" if plan.layers == (layer,) else find_failure(plan, settings)

    monkeypatch.setattr(layers, "_find_failure", fail)
    layers._tested.clear()
    with pytest.raises(UdfUnavailable, match="it does not hold"):
        call_udf(SETTINGS, "alice", DOUBLE, {}, [])
    layers._tested.clear()


def test_a_process_does_not_start_without_its_layers(monkeypatch):
    """Tests at start are not trusted: each process closes its sandbox or ends."""
    call(DOUBLE)
    pool.stop()
    limits = replace(LIMITS, file_bytes=-5)
    with pytest.raises((UdfUnavailable, UdfLimitExceeded)):
        call(DOUBLE, limits=limits)


def test_an_interpreter_around_secrets_is_refused():
    inside = str(Path(sys.prefix, "lib"))
    sandbox = find_sandbox(UdfSettings(hidden=(inside,)), sys.executable)
    assert not sandbox.is_usable
    assert inside in sandbox.reason


def test_the_layers_are_tested_one_by_one():
    assert {name for name, failure in SANDBOX.layers if failure is None} >= set(LAYERS)


# --- The end -------------------------------------------------------------------------------------

PROGRAM = """
import sys, threading, time
import psutil
from tests.udf.test_processes import SLEEP, COUNT, call
call(COUNT)
threading.Thread(target=call, args=(SLEEP,), daemon=True).start()
while len(psutil.Process().children()) < 2:
    time.sleep(0.02)
time.sleep(0.3)
print(*(process.pid for process in psutil.Process().children()), flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_processes_end_with_their_parent(number):
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=child_environment()) as parent:
        assert parent.stdout is not None
        children = [psutil.Process(int(word)) for word in parent.stdout.readline().split()]
        parent.send_signal(number)
    assert len(children) == 2
    assert have_ended(children)
    # The next process removes what they left.
    pool.stop()
    pool._cleaned = 0.0
    call(DOUBLE)
    assert not [folder for folder in find_folders() if f"-{parent.pid}-" in folder.name]


def find_folders() -> list[Path]:
    return list((Path(tempfile.gettempdir()) / f"odc-openeo-udf-{os.geteuid()}").iterdir())


def test_hundreds_of_calls_leave_nothing():
    process = psutil.Process()
    call(DOUBLE, np.zeros(10))
    pool.stop()
    descriptors = process.num_fds()
    children = {child.pid for child in process.children(recursive=True)}
    for number in range(320):
        owner = f"user {number // 40}"
        assert call(DOUBLE, np.full(100, number), owner=owner).arrays[0][0] == 2 * number
    pool.stop()
    assert process.num_fds() == descriptors
    assert {child.pid for child in process.children(recursive=True)} <= children
    assert "odc-openeo-udf" not in Path("/proc/self/maps").read_text()
    assert not [folder for folder in find_folders() if f"-{os.getpid()}-" in folder.name]


def test_no_call_is_lost_or_wrong_while_processes_are_killed():
    stop = threading.Event()
    killed = []

    def kill_some() -> None:
        generator = random.Random(1)
        while not stop.wait(0.4):
            pids = [child.pid for child in list(pool._children.values())]
            if pids:
                killed.append(generator.choice(pids))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(killed[-1], signal.SIGKILL)

    def work(number: int) -> bool:
        values = np.arange(number, number + 1000)
        results = [call(SLOW_DOUBLE, values, owner=f"user {number % 4}").arrays[0] for _ in range(10)]
        return all(np.array_equal(result, 2 * values) for result in results)

    killer = threading.Thread(target=kill_some)
    killer.start()
    try:
        with ThreadPoolExecutor(4) as executor:
            assert list(executor.map(work, range(20))) == [True] * 20
    finally:
        stop.set()
        killer.join()
    assert killed


def test_a_process_that_is_always_killed_is_given_up(monkeypatch):
    monkeypatch.setattr(calls, "PATIENCE_S", 0)
    stop = threading.Event()

    def kill_all() -> None:
        while not stop.wait(0.05):
            for child in list(pool._children.values()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_all)
    start = time.monotonic()
    killer.start()
    try:
        with pytest.raises(UdfLimitExceeded, match="killed 3 times"):
            call(SLEEP)
    finally:
        stop.set()
        killer.join()
    assert time.monotonic() - start < 60
