"""The queue on a real PostgreSQL: changes of state, claims by many threads, ownership."""

from __future__ import annotations

import itertools
import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select, update

from odc_openeo import db, jobs
from odc_openeo.config import Config
from odc_openeo.errors import JobLocked, JobNotFound, RequestInvalid, ResultLinkExpired
from odc_openeo.jobs import Entry, JobDraft, queue, results
from odc_openeo.storage.signed_links import compute_expiry
from odc_openeo.users import accounts
from odc_openeo.worker.heartbeats import Heartbeats
from odc_openeo.worker.messages import RunUpdate
from odc_openeo.worker.supervisor import Supervision
from tests.support.waiting import wait_for

PROCESS = {"process_graph": {"one": {"process_id": "add", "arguments": {"x": 1, "y": 1}, "result": True}}}
ASSET = {"name": "result.json", "type": "application/json", "file:size": 3}


@pytest.fixture
def ada(config: Config) -> UUID:
    return accounts.create_user(config, "ada", "correct horse").id


@pytest.fixture
def bob(config: Config) -> UUID:
    return accounts.create_user(config, "bob", "correct horse").id


def make(config: Config, user: UUID, *, queued: bool = True) -> str:
    id_ = str(jobs.create_job(config, user, JobDraft(PROCESS)))
    if queued:
        jobs.start_job(config, user, id_)
    return id_


def status(config: Config, user: UUID, id_: str) -> str:
    return jobs.get_job(config, user, id_).status


def claim(config: Config) -> queue.Claim:
    job = queue.claim_job(config, "here")
    assert job is not None
    return job


def entry(level: str = "info", message: str = "hello") -> Entry:
    return Entry(level, message, db.now(), {"data": [1]})


def silence(config: Config, id_: str) -> None:
    """Let the job's worker have been silent for an hour."""
    with db.session(config) as session:
        long_ago = db.now() - timedelta(hours=1)
        session.execute(update(db.JobRow).where(db.JobRow.id == UUID(id_)).values(heartbeat=long_ago))


def test_life_of_a_job(config, ada):
    id_ = make(config, ada, queued=False)
    assert status(config, ada, id_) == "created"
    assert queue.claim_job(config, "here") is None
    assert jobs.start_job(config, ada, id_) is None
    assert status(config, ada, id_) == "queued"
    run = claim(config)
    assert (str(run.job.id), run.job.tries, run.job.status) == (id_, 1, "running")
    assert queue.send_heartbeat(config, run, 40, [entry()])
    assert queue.send_heartbeat(config, run, 30)
    assert jobs.get_job(config, ada, id_).progress == 40
    assert queue.finish_run(config, run, [ASSET], {}, {"cpu": {"value": 1, "unit": "cpu-seconds"}}, [entry()])
    job = jobs.get_job(config, ada, id_)
    assert (job.status, job.progress, job.attempt) == ("finished", 100, None)
    assert job.usage == {"cpu": {"value": 1, "unit": "cpu-seconds"}}
    assert job.created <= job.queued <= job.started <= job.updated < job.unpublished
    results_found = results.find_results(config, job)
    assert results_found.complete
    assert results_found.assets == [ASSET]
    assert len(jobs.list_logs(config, job).items) == 2
    # Started again: results and logs of the earlier run are discarded.
    assert jobs.start_job(config, ada, id_) == run.attempt
    job = jobs.get_job(config, ada, id_)
    assert results.find_results(config, job) is None
    assert jobs.list_logs(config, job).items == []
    assert job.started is None


def test_starting_twice_runs_once(config, ada):
    id_ = make(config, ada)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: jobs.start_job(config, ada, id_), range(8)))
    run = claim(config)
    jobs.start_job(config, ada, id_)
    assert status(config, ada, id_) == "running"
    assert queue.claim_job(config, "here") is None
    assert queue.send_heartbeat(config, run, 1)


def test_claims_of_many_threads(config, ada, bob):
    created = {make(config, user) for _ in range(30) for user in (ada, bob)}
    limited = config.model_copy(update={"jobs_per_user": 2})
    running, worst, seen = {ada: 0, bob: 0}, {ada: 0, bob: 0}, []
    lock = threading.Lock()

    def worker(_: int) -> None:
        while len(seen) < len(created):
            run = queue.claim_job(limited, "here")
            if run is None:
                time.sleep(0.005)
                continue
            user = run.job.user
            with lock:
                seen.append(str(run.job.id))
                running[user] += 1
                worst[user] = max(worst[user], running[user])
            time.sleep(0.005)
            with lock:
                running[user] -= 1
            assert queue.finish_run(limited, run, [], {}, {})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(worker, range(8)))
    assert sorted(seen) == sorted(created)
    assert all(most <= 2 for most in worst.values())


def test_jobs_are_claimed_in_fair_order(config, ada, bob):
    first = [make(config, ada) for _ in range(3)]
    second = [make(config, bob) for _ in range(2)]
    taken = []
    for _ in range(5):
        run = claim(config)
        taken.append(str(run.job.id))
        queue.finish_run(config, run, [], {}, {})
    assert taken == [first[0], second[0], first[1], second[1], first[2]]


def test_canceled_job_stops(config, ada):
    queued, running, partial = (make(config, ada) for _ in range(3))
    runs = {str(run.job.id): run for run in itertools.islice(iter(lambda: claim(config), None), 3)}
    jobs.cancel_job(config, ada, queued)
    jobs.start_job(config, ada, queued)
    jobs.cancel_job(config, ada, queued)
    assert status(config, ada, queued) == "created"
    jobs.cancel_job(config, ada, running)
    assert status(config, ada, running) == "created"
    assert not queue.send_heartbeat(config, runs[running], 50, [entry()])
    assert not queue.finish_run(config, runs[running], [ASSET], {}, {})
    assert not queue.fail_run(config, runs[running], {}, [entry("error")])
    assert not queue.give_back(config, runs[running], [], wait_s=0, counts=True)
    assert queue.publish_partial_results(config, runs[partial], [ASSET])
    jobs.cancel_job(config, ada, partial)
    assert status(config, ada, partial) == "canceled"
    assert results.find_results(config, jobs.get_job(config, ada, partial)).assets == [ASSET]
    jobs.cancel_job(config, ada, partial)
    assert status(config, ada, partial) == "canceled"


def test_cancelled_and_started_again_is_another_attempt(config, ada):
    id_ = make(config, ada)
    old = claim(config)
    jobs.cancel_job(config, ada, id_)
    jobs.start_job(config, ada, id_)
    new = claim(config)
    assert not queue.finish_run(config, old, [ASSET], {}, {})
    assert status(config, ada, id_) == "running"
    assert queue.find_live_attempts(config, [old.attempt, new.attempt]) == {new.attempt}


def test_editing_is_for_jobs_at_rest(config, ada):
    id_ = make(config, ada, queued=False)
    jobs.update_job(config, ada, id_, {"title": "a", "extras": {"x": 1}})
    jobs.update_job(config, ada, id_, {"extras": {"y": 2}})
    draft = jobs.get_job(config, ada, id_).draft
    assert (draft.title, draft.extras) == ("a", {"x": 1, "y": 2})
    jobs.start_job(config, ada, id_)
    with pytest.raises(JobLocked):
        jobs.update_job(config, ada, id_, {"title": "b"})
    run = claim(config)
    with pytest.raises(JobLocked):
        jobs.update_job(config, ada, id_, {"title": "b"})
    queue.fail_run(config, run, {}, [entry("error", "broken")])
    jobs.update_job(config, ada, id_, {"title": "b"})
    job = jobs.get_job(config, ada, id_)
    assert (job.status, job.draft.title) == ("error", "b")
    assert jobs.get_last_error(config, job).message == "broken"


def test_jobs_of_lost_workers_are_recovered(config, ada):
    id_ = make(config, ada)
    for attempt in range(1, config.job_tries + 1):
        run = claim(config)
        assert run.job.tries == attempt
        assert queue.recover_lost_jobs(config) == (0, 0)
        silence(config, id_)
        assert queue.recover_lost_jobs(config) == ((1, 0) if attempt < config.job_tries else (0, 1))
        assert not queue.send_heartbeat(config, run, 1)
    job = jobs.get_job(config, ada, id_)
    assert job.status == "error"
    assert [e.level for e in jobs.list_logs(config, job).items] == ["warning", "warning", "error"]


def set_heartbeat(config, id_, seconds: float) -> None:
    """Let the last heartbeat of a job be so long ago."""
    past = func.clock_timestamp() - timedelta(seconds=seconds)
    with db.session(config) as session:
        session.execute(update(db.JobRow).where(db.JobRow.id == UUID(id_)).values(heartbeat=past))


def test_a_slow_worker_is_not_taken_for_a_dead_one(config, ada):
    config = config.model_copy(update={"job_lost_after_s": 3.0})
    id_ = make(config, ada)
    lock = queue.RunLock(config, claim(config))
    lock.hold()
    set_heartbeat(config, id_, 2.9)
    assert queue.recover_lost_jobs(config) == (0, 0)
    lock.hold()
    lock.release()
    assert queue.recover_lost_jobs(config) == (1, 0)


def test_a_worker_that_is_silent_for_too_long_is_given_up_though_it_holds_its_lock(config, ada):
    config = config.model_copy(update={"job_lost_after_s": 3.0})
    id_ = make(config, ada)
    lock = queue.RunLock(config, claim(config))
    lock.hold()
    set_heartbeat(config, id_, 3.1)
    assert queue.recover_lost_jobs(config) == (1, 0)
    lock.release()


def test_heartbeats_need_nothing_of_the_thread_that_runs_the_job(config, ada):
    id_ = make(config, ada)
    run = claim(config)
    with Heartbeats(config, run) as heartbeats:
        for number in range(3):
            heartbeats.add_entry(entry("info", f"entry {number}"))
        set_heartbeat(config, id_, 1000)
        wait_for(lambda: len(jobs.list_logs(config, jobs.get_job(config, ada, id_)).items) == 3)
        set_heartbeat(config, id_, 1000)
        wait_for(lambda: read_silence(config, id_) < 100)
        assert heartbeats.is_wanted
        jobs.cancel_job(config, ada, id_)
        wait_for(lambda: not heartbeats.is_wanted)
        assert heartbeats.take_entries() == []
    assert queue.recover_lost_jobs(config) == (0, 0)


def read_silence(config, id_) -> float:
    seconds = func.extract("epoch", func.clock_timestamp() - db.JobRow.heartbeat)
    with db.session(config) as session:
        return float(session.scalar(select(seconds).where(db.JobRow.id == UUID(id_))))


class EndlessPipe:
    """The pipe of a job that always has another message."""

    def poll(self, _: float) -> bool:
        return True

    def recv(self) -> RunUpdate:
        return RunUpdate(progress=50.0)


def test_a_job_that_never_stops_talking_does_not_keep_its_worker_from_anything_else(config, ada):
    make(config, ada)
    run = claim(config)
    supervision = Supervision(config, run, multiprocessing.get_context("forkserver"), Heartbeats(config, run))
    begun = time.monotonic()
    assert supervision._receive_messages(EndlessPipe())
    assert time.monotonic() - begun < 30
    assert supervision.heartbeats.progress == 50


def test_returned_job_is_claimed_again(config, ada):
    id_ = make(config, ada)
    run = claim(config)
    assert queue.give_back(config, run, [], wait_s=0, counts=False)
    run = claim(config)
    assert run.job.tries == 1
    assert queue.give_back(config, run, [], wait_s=3600, counts=True)
    assert status(config, ada, id_) == "queued"
    assert queue.claim_job(config, "here") is None


def test_others_jobs_do_not_exist(config, ada, bob):
    id_ = make(config, ada, queued=False)
    for other in (id_, str(uuid4()), "no-uuid", "' OR 1=1"):
        for action in (jobs.get_job, jobs.start_job, jobs.cancel_job, jobs.delete_job):
            with pytest.raises(JobNotFound):
                action(config, bob, other)
        with pytest.raises(JobNotFound):
            jobs.update_job(config, bob, other, {"title": "mine"})
    assert jobs.list_jobs(config, bob).items == []
    assert status(config, ada, id_) == "created"


def test_deleted_while_running(config, ada):
    id_ = make(config, ada)
    run = claim(config)
    jobs.delete_job(config, ada, id_)
    assert not queue.send_heartbeat(config, run, 1, [entry()])
    assert not queue.publish_partial_results(config, run, [ASSET])
    assert not queue.finish_run(config, run, [ASSET], {}, {}, [entry()])
    assert queue.find_live_attempts(config, [run.attempt]) == set()


def test_pages_of_jobs(config, ada):
    created = [make(config, ada, queued=False) for _ in range(7)]
    items, after = [], None
    while True:
        page = jobs.list_jobs(config, ada, 3, after)
        items += [str(job.id) for job in page.items]
        if page.next is None:
            break
        after = page.next
    assert items == created[::-1] == [str(job.id) for job in jobs.list_jobs(config, ada).items]
    with pytest.raises(RequestInvalid):
        jobs.list_jobs(config, ada, 3, "nonsense")


def test_pages_of_logs(config, ada):
    id_ = make(config, ada)
    levels = ["debug", "info", "warning", "error"]
    queue.send_heartbeat(
        config, claim(config), 0, [entry(level, str(i)) for i in range(3) for level in levels]
    )
    job = jobs.get_job(config, ada, id_)
    every = jobs.list_logs(config, job).items
    assert [e.level for e in every] == levels * 3
    assert [e.level for e in jobs.list_logs(config, job, "warning").items] == ["warning", "error"] * 3
    page = jobs.list_logs(config, job, limit=5)
    assert page.items == every[:5]
    assert jobs.list_logs(config, job, after=page.next).items == every[5:]
    with pytest.raises(RequestInvalid):
        jobs.list_logs(config, job, after="-1")


def test_expired_results_are_forgotten(config, ada):
    id_ = make(config, ada)
    short = config.model_copy(update={"result_lifetime_days": 1e-9})
    run = claim(config)
    queue.finish_run(short, run, [ASSET], {}, {})
    assert queue.delete_expired_results(config) == [UUID(id_)]
    assert results.find_results(config, jobs.get_job(config, ada, id_)) is None


def test_results_open_by_signed_link(config, ada):
    make(config, ada)
    run = claim(config)
    queue.finish_run(config, run, [ASSET], {}, {})
    expires = compute_expiry(config)
    good = results.sign_results(config, run.job.id, run.attempt, expires)
    assert results.open_link(config, run.job.id, expires, good).assets == [ASSET]
    past = int(time.time()) - 1
    wrong = [
        (run.job.id, expires, good[:-1] + ("0" if good[-1] != "0" else "1")),
        (run.job.id, expires + 3600, good),
        (uuid4(), expires, good),
        (run.job.id, past, results.sign_results(config, run.job.id, run.attempt, past)),
    ]
    for job, until, signature in wrong:
        with pytest.raises(ResultLinkExpired):
            results.open_link(config, job, until, signature)
