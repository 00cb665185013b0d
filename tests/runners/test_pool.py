"""Runners: what they give back, and what ends them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from odc_openeo.config import Config
from odc_openeo.errors import (
    FileContentInvalid,
    InfrastructureBusy,
    Internal,
    NoDataAvailable,
    OpenEOError,
    ProcessGraphComplexity,
    RequestTimeout,
    TooManyRequests,
)
from odc_openeo.runners import Lane, RunAbandoned, RunnerPool
from tests.runners import tasks
from tests.support.processes import has_ended
from tests.support.waiting import wait_for

LANE = Lane("test", runners=2, per_user=1, waiting=4, waiting_per_user=2)
MEMORY = 256 * 2**20


@pytest.fixture
def make_pool(tmp_path: Path) -> Iterator[Callable[..., RunnerPool]]:
    pools = []

    def make(lane: Lane = LANE, **settings: Any) -> RunnerPool:
        config = Config(data_dir=tmp_path, **{"runner_memory": MEMORY, "run_wait_s": 0.3, **settings})
        pools.append(RunnerPool(config, lane))
        return pools[-1]

    yield make
    for pool in pools:
        pool.stop()


@pytest.fixture
def pool(make_pool: Callable[..., RunnerPool]) -> RunnerPool:
    return make_pool()


def run(pool: RunnerPool, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    return pool.run(function, *arguments, **{"user": "ada", "seconds": 30.0, **options})


def read_process(path: Path) -> int:
    """Wait for the process id that a task writes."""
    return int(wait_for(lambda: path.exists() and path.read_text()))


def test_values_come_back_from_another_process(pool: RunnerPool) -> None:
    assert run(pool, tasks.give_back, {"a": [1, None, "é"]}) == {"a": [1, None, "é"]}
    first = run(pool, tasks.tell_process)
    assert first != os.getpid()
    # Warm: the same one again.
    assert run(pool, tasks.tell_process) == first


def test_json_nested_deeper_than_pickle_can_follow(pool: RunnerPool) -> None:
    value: Any = 1
    for _ in range(900):
        value = [value]
    assert run(pool, tasks.measure_depth, value) == 900


def test_runners_have_the_environment_of_now(pool: RunnerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODC_SOMETHING", "now")
    assert run(pool, tasks.read_variable, "ODC_SOMETHING") == "now"


def test_runners_inherit_no_listening_socket(pool: RunnerPool) -> None:
    assert run(pool, tasks.list_sockets) == []


@pytest.mark.parametrize("niceness", [0, 5])
def test_niceness_of_a_lane(make_pool: Callable[..., RunnerPool], niceness: int) -> None:
    lane = Lane("nice", 1, 1, 1, 1, niceness=niceness)
    assert run(make_pool(lane), tasks.tell_niceness) == niceness + os.nice(0)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (NoDataAvailable(reason="none."), NoDataAvailable),
        (NoDataAvailable(reason="none.", node="load"), NoDataAvailable),
        (ValueError("/etc/secret"), Internal),
        (KeyError("x"), Internal),
        (RecursionError(), ProcessGraphComplexity),
    ],
)
def test_errors_come_back_without_internals(
    pool: RunnerPool, error: Exception, expected: type[OpenEOError]
) -> None:
    with pytest.raises(expected) as caught:
        run(pool, tasks.raise_error, error)
    assert caught.value.__cause__ is None
    assert "/etc" not in str(caught.value)
    assert caught.value.node == getattr(error, "node", None)


@pytest.mark.parametrize(
    "task",
    [
        (tasks.allocate_array, 2 * MEMORY),
        (tasks.allocate_array, 2**45),
        (tasks.allocate_strings,),
        (tasks.allocate_slowly, 2**14),
        (tasks.allocate_slowly, 2**24),
        (tasks.allocate_in_thread,),
        (tasks.hide_memory_error,),
        (tasks.crash, signal.SIGKILL),
    ],
    ids=lambda task: task[0].__name__,
)
def test_too_much_memory(pool: RunnerPool, task: tuple[Any, ...]) -> None:
    before = run(pool, tasks.tell_process)
    with pytest.raises(ProcessGraphComplexity, match="256 MiB"):
        run(pool, *task)
    after = run(pool, tasks.tell_process)
    assert after != before
    assert has_ended(before)


def test_as_much_memory_as_is_allowed(pool: RunnerPool) -> None:
    assert run(pool, tasks.allocate_array, MEMORY // 2) == MEMORY // 16
    assert run(pool, tasks.allocate_array, MEMORY // 2) == MEMORY // 16


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM])
def test_crashes_are_nobodys_else(pool: RunnerPool, number: int) -> None:
    with pytest.raises(Internal):
        run(pool, tasks.crash, number)
    assert run(pool, tasks.give_back, 1) == 1


def test_a_file_that_crashes_its_reader(pool: RunnerPool) -> None:
    with pytest.raises(FileContentInvalid, match=r"odd\.nc"):
        run(pool, tasks.crash_in_file, "odd.nc")
    # What one run has read is no matter of the next.
    with pytest.raises(Internal):
        run(pool, tasks.crash, signal.SIGSEGV)


def test_a_file_that_cannot_be_opened_in_time(pool: RunnerPool) -> None:
    with pytest.raises(FileContentInvalid, match=r"odd\.nc"):
        run(pool, tasks.hang_in_file, "odd.nc", 0.5, True)
    # What comes after opening has the time of the whole run.
    run(pool, tasks.hang_in_file, "sound.nc", 0.5, False)


def test_exited_runner_is_replaced(pool: RunnerPool) -> None:
    with pytest.raises(Internal):
        run(pool, tasks.leave)
    assert run(pool, tasks.give_back, 1) == 1


def test_a_runner_that_was_killed_while_idle(pool: RunnerPool) -> None:
    os.kill(run(pool, tasks.tell_process), signal.SIGKILL)
    time.sleep(0.1)
    assert run(pool, tasks.give_back, 1) == 1


def test_unpicklable_values_are_reported(pool: RunnerPool) -> None:
    with pytest.raises(Internal):
        run(pool, tasks.give_function)
    assert run(pool, tasks.give_back, 1) == 1


def test_answers_have_a_limit(make_pool: Callable[..., RunnerPool]) -> None:
    pool = make_pool(runner_memory=2**30)
    with pytest.raises(ProcessGraphComplexity, match="64 MiB"):
        run(pool, tasks.give_much, 2**26)
    assert len(run(pool, tasks.give_much, 2**20)) == 2**20


def test_a_runner_that_does_not_get_ready(make_pool: Callable[..., RunnerPool]) -> None:
    """Not even a task that is larger than the pipe waits longer than it may."""
    pool = make_pool(Lane("test", 1, 1, 1, 1, prepare=tasks.sleep_for_ever))
    start = time.monotonic()
    with pytest.raises(RequestTimeout):
        run(pool, tasks.give_back, "x" * 2**21, seconds=0.5)
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("task", [tasks.block_interpreter, tasks.ignore_signals])
def test_the_deadline_ends_whatever_runs(pool: RunnerPool, task: Callable[..., Any]) -> None:
    pid = run(pool, tasks.tell_process)
    with pytest.raises(RequestTimeout):
        run(pool, task, seconds=0.5)
    assert has_ended(pid)
    assert run(pool, tasks.give_back, 1) == 1


def test_a_client_that_leaves_ends_its_run(pool: RunnerPool, tmp_path: Path) -> None:
    mark, is_there = tmp_path / "mark", threading.Event()
    is_there.set()
    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(run, pool, tasks.sleep_and_mark, mark, 600, is_wanted=is_there.is_set)
        pid = read_process(mark)
        is_there.clear()
        left = time.monotonic()
        with pytest.raises(RunAbandoned):
            future.result(timeout=120)
        assert time.monotonic() - left < 20
    assert has_ended(pid)


def test_a_user_has_only_so_many_runs_at_once(pool: RunnerPool, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(run, pool, tasks.sleep_and_mark, mark, 2.0)
        read_process(mark)
        with pytest.raises(TooManyRequests) as caught:
            run(pool, tasks.give_back, 1)
        assert caught.value.seconds >= 1
        # Another user is not kept waiting.
        assert run(pool, tasks.give_back, 2, user="bob") == 2
        first.result()
    assert run(pool, tasks.give_back, 3) == 3


def test_runs_are_counted_over_all_processes(make_pool: Callable[..., RunnerPool], tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    here, there = make_pool(), make_pool()
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(run, here, tasks.sleep_and_mark, mark, 2.0)
        read_process(mark)
        with pytest.raises(TooManyRequests):
            run(there, tasks.give_back, 1)
        first.result()
    assert run(there, tasks.give_back, 1) == 1


def test_waiting_requests_are_bounded(make_pool: Callable[..., RunnerPool], tmp_path: Path) -> None:
    pool, mark = make_pool(run_wait_s=30), tmp_path / "mark"
    with ThreadPoolExecutor(8) as threads:
        running = threads.submit(run, pool, tasks.sleep_and_mark, mark, 1.5)
        read_process(mark)
        waiting = threads.submit(run, pool, tasks.give_back, 1)
        time.sleep(0.2)
        # Two of this user are all that may be here.
        with pytest.raises(TooManyRequests):
            run(pool, tasks.give_back, 2)
        running.result()
        assert waiting.result() == 1


def test_busy_runners_of_others(make_pool: Callable[..., RunnerPool], tmp_path: Path) -> None:
    pool = make_pool(Lane("test", 1, 1, 4, 2))
    mark = tmp_path / "mark"
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(run, pool, tasks.sleep_and_mark, mark, 2.0)
        read_process(mark)
        with pytest.raises(InfrastructureBusy):
            run(pool, tasks.give_back, 1, user="bob")
        first.result()
    assert run(pool, tasks.give_back, 1, user="bob") == 1


def test_many_runs_leave_nothing_behind(make_pool: Callable[..., RunnerPool]) -> None:
    pool = make_pool(Lane("test", 2, 2, 64, 64), run_wait_s=60)
    run(pool, tasks.give_back, 0)
    descriptors = len(os.listdir("/proc/self/fd"))
    with ThreadPoolExecutor(16) as threads:
        futures = [
            threads.submit(run, pool, *task, seconds=20.0)
            for task in [(tasks.give_back, 1), (tasks.crash, signal.SIGSEGV)] * 20
        ]
    outcomes = [future.exception() for future in futures]
    assert [type(outcome) for outcome in outcomes] == [type(None), Internal] * 20
    pool.stop()
    assert len(os.listdir("/proc/self/fd")) <= descriptors


def test_idle_runners_end_but_for_the_warm_ones(make_pool: Callable[..., RunnerPool], tmp_path: Path) -> None:
    pool = make_pool(Lane("test", 2, 2, 8, 8, warm=1))
    marks = [tmp_path / "a", tmp_path / "b"]
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda mark: run(pool, tasks.sleep_and_mark, mark, 0.5), marks))
    pids = [read_process(mark) for mark in marks]
    assert not any(has_ended(pid, 0) for pid in pids)
    pool.end_idle_runners()
    wait_for(lambda: sum(has_ended(pid, 0) for pid in pids) == 1)
    assert run(pool, tasks.tell_process) in pids


def test_runners_end_with_the_pool(make_pool: Callable[..., RunnerPool]) -> None:
    pool = make_pool()
    pool.start()
    pid = run(pool, tasks.tell_process)
    pool.stop()
    assert has_ended(pid)
