"""The book of parts on a real PostgreSQL: claims, obsolete attempts, failures, fair shares, ownership."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, update

from odc_openeo import db, jobs
from odc_openeo.config import Config
from odc_openeo.errors import JobNotFound
from odc_openeo.jobs import Entry, JobDraft, parts, queue, results
from odc_openeo.jobs.claims import Claim, PartClaim, claim_part, claim_work
from odc_openeo.jobs.part_progress import find_parts_progress, list_part_assets, pause_any_job
from odc_openeo.jobs.parts import PartUsage, PlannedParts
from odc_openeo.users import accounts

GRAPH = {"process_graph": {"one": {"process_id": "add", "arguments": {"x": 1, "y": 1}, "result": True}}}
USAGE = PartUsage(1.0, 2.0, 3.0)
DETAILS = {"processed": "2026-01-01T00:00:00Z", "facility": "here", "software": {}, "inputs": []}


@pytest.fixture
def ada(config: Config) -> UUID:
    return accounts.create_user(config, "ada", "correct horse").id


@pytest.fixture
def bob(config: Config) -> UUID:
    return accounts.create_user(config, "bob", "correct horse").id


def queue_job(config: Config, user: UUID) -> str:
    id_ = str(jobs.create_job(config, user, JobDraft(GRAPH)))
    jobs.start_job(config, user, id_)
    return id_


def split_job(config: Config, user: UUID, count: int, soft_errors: float = 0.0) -> Claim:
    """A job that was split into some parts."""
    queue_job(config, user)
    claim = queue.claim_job(config, "planner")
    assert claim is not None
    plan = PlannedParts({"kind": "space"}, [{"number": n} for n in range(count)], DETAILS, soft_errors)
    assert parts.record_split(config, claim, plan, USAGE)
    return claim


def take_part(config: Config) -> PartClaim:
    claim = claim_work(config, "worker")
    assert isinstance(claim, PartClaim)
    return claim


def finish(config: Config, claim: PartClaim) -> bool:
    asset = {"name": f"{claim.number}.tif", "file:size": 10, "path": f".parts/{claim.attempt}/x"}
    return parts.finish_part(config, claim, [asset], USAGE)


def status(config: Config, claim: Claim) -> str:
    return jobs.get_job(config, claim.job.user, str(claim.job.id)).status


def fail(config: Config, claim: PartClaim) -> bool:
    return parts.fail_part(config, claim, USAGE, [], Entry("error", "It broke.", db.now(), {"code": "X"}))


def test_a_job_ends_with_its_last_part(config: Config, ada: UUID) -> None:
    job = split_job(config, ada, 3)
    claims = [take_part(config) for _ in range(3)]
    assert [claim.number for claim in claims] == [0, 1, 2]
    assert not any(claim.is_last for claim in claims)
    assert claim_work(config, "worker") is None
    for done, claim in enumerate(claims, 1):
        assert finish(config, claim)
        assert not finish(config, claim)
        progress = jobs.get_job(config, ada, str(job.job.id)).progress
        assert progress == pytest.approx(min(100 * done / 3, 99))
    last = take_part(config)
    assert (last.is_last, last.number, last.run) == (True, 3, job.attempt)
    assert parts.finish_last_part(config, last, [{"name": "a", "file:size": 7}], DETAILS, USAGE)
    ended = jobs.get_job(config, ada, str(job.job.id))
    assert (ended.status, ended.progress) == ("finished", 100)
    assert ended.usage["cpu"]["value"] == 5 * USAGE.cpu_s
    assert claim_work(config, "worker") is None
    published = results.find_results(config, ended)
    assert published is not None
    assert (published.complete, published.attempt) == (True, job.attempt)


def test_parts_are_claimed_once_by_many_workers(config: Config, ada: UUID) -> None:
    split_job(config, ada, 40)

    def work(_: int) -> list[int]:
        numbers = []
        while isinstance(claim := claim_work(config, "worker"), PartClaim):
            numbers.append(claim.number)
            if claim.is_last:
                parts.finish_last_part(config, claim, [], DETAILS, USAGE)
            else:
                finish(config, claim)
        return numbers

    with ThreadPoolExecutor(6) as pool:
        numbers = [number for chunk in pool.map(work, range(6)) for number in chunk]
    # A worker may find nothing while others end their parts: the last part is left for a later look.
    numbers += work(0)
    assert sorted(numbers) == list(range(41))


@pytest.mark.parametrize("end", [jobs.cancel_job, jobs.delete_job])
def test_nothing_is_written_for_a_job_that_was_ended(
    config: Config, ada: UUID, end: Callable[..., object]
) -> None:
    job = split_job(config, ada, 2)
    claim = take_part(config)
    assert parts.send_part_heartbeat(config, claim, 0)
    end(config, ada, str(job.job.id))
    assert not parts.send_part_heartbeat(config, claim, 0)
    assert not finish(config, claim)
    assert not parts.retry_part(config, claim, USAGE, [], wait_s=0)
    assert not fail(config, claim)
    assert claim_work(config, "worker") is None
    assert not parts.is_part_attempt_kept(config, claim)


def test_files_of_a_canceled_job_stay_those_of_parts_that_were_done(config: Config, ada: UUID) -> None:
    job = split_job(config, ada, 3)
    finish(config, take_part(config))
    take_part(config)
    jobs.cancel_job(config, ada, str(job.job.id))
    assert status(config, job) == "canceled"
    published = results.find_results(config, jobs.get_job(config, ada, str(job.job.id)))
    assert published is not None
    assert [asset["name"] for asset in published.assets] == ["0.tif"]
    assert queue.find_live_attempts(config, [job.attempt]) == {job.attempt}


def test_a_job_that_is_started_again_forgets_its_parts(config: Config, ada: UUID) -> None:
    job = split_job(config, ada, 2)
    finish(config, claim := take_part(config))
    jobs.cancel_job(config, ada, str(job.job.id))
    jobs.start_job(config, ada, str(job.job.id))
    assert find_parts_progress(config, job.job.id) is None
    assert list_part_assets(config, job.job.id) == []
    again = queue.claim_job(config, "planner")
    assert again is not None
    assert again.attempt != job.attempt
    assert not finish(config, claim)


def test_a_failed_part_ends_the_job(config: Config, ada: UUID) -> None:
    job = split_job(config, ada, 3)
    finish(config, take_part(config))
    second, third = take_part(config), take_part(config)
    assert fail(config, second)
    assert status(config, job) == "error"
    entry = jobs.get_last_error(config, jobs.get_job(config, ada, str(job.job.id)))
    assert (entry.message, entry.more["code"]) == ("Part 2 of 3: It broke.", "X")
    assert not finish(config, third)


@pytest.mark.parametrize(("share", "failures", "ends"), [(0.5, 2, False), (0.5, 3, True), (1.0, 4, True)])
def test_soft_errors_leave_parts_out(
    config: Config, ada: UUID, share: float, failures: int, ends: bool
) -> None:
    job = split_job(config, ada, 4, share)
    claims = [take_part(config) for _ in range(4)]
    for claim in claims[:failures]:
        fail(config, claim)
    for claim in claims[failures:]:
        assert finish(config, claim) is not ends
    assert status(config, job) == ("error" if ends else "running")
    if not ends:
        assert take_part(config).is_last
        progress = find_parts_progress(config, job.job.id)
        assert progress is not None
        assert (progress.done, progress.left_out) == (2, 2)


def test_the_last_part_waits_for_those_that_are_tried_again(config: Config, ada: UUID) -> None:
    split_job(config, ada, 2)
    first, second = take_part(config), take_part(config)
    parts.retry_part(config, first, USAGE, [], wait_s=3600)
    finish(config, second)
    assert claim_work(config, "worker") is None
    with db.session(config) as session:
        session.execute(update(db.JobPartRow).values(not_before=None))
    again = take_part(config)
    assert (again.number, again.tries) == (0, 2)


def test_lost_parts_are_queued_again_and_given_up_in_the_end(config: Config, ada: UUID) -> None:
    job = split_job(config, ada, 1)
    for tries in range(1, config.job_tries + 1):
        assert take_part(config).tries == tries
        assert parts.recover_lost_parts(config) == (0, 0)
        with db.session(config) as session:
            silent = db.now() - timedelta(hours=1)
            session.execute(update(db.JobPartRow).values(heartbeat=silent))
            # The run that has planned the job ended long ago: nobody takes the job itself for lost.
            session.execute(update(db.JobRow).values(heartbeat=silent))
        assert queue.recover_lost_jobs(config) == (0, 0)
        is_last = tries == config.job_tries
        assert parts.recover_lost_parts(config) == (not is_last, is_last)
    assert status(config, job) == "error"


def test_paused_jobs_wait_and_do_not_count(config: Config, ada: UUID) -> None:
    only_one = config.model_copy(update={"jobs_per_user": 1})
    job = split_job(only_one, ada, 2)
    running = take_part(only_one)
    other = queue_job(only_one, ada)
    finish(only_one, running)
    assert pause_any_job(only_one, str(job.job.id), paused=True)
    claim = claim_work(only_one, "worker")
    assert claim is not None
    assert str(claim.job.id) == other
    assert claim_work(only_one, "worker") is None
    assert pause_any_job(only_one, str(job.job.id), paused=False)
    assert take_part(only_one).number == 1
    for id_ in (str(uuid4()), "x"):
        with pytest.raises(JobNotFound):
            pause_any_job(only_one, id_, paused=True)
    assert not pause_any_job(only_one, other, paused=True)


def test_users_and_jobs_take_turns(config: Config, ada: UUID, bob: UUID) -> None:
    large, larger = split_job(config, ada, 20), split_job(config, ada, 20)
    taken = [take_part(config) for _ in range(4)]
    assert {claim.job.id for claim in taken} == {large.job.id, larger.job.id}
    small = queue_job(config, bob)
    claim = claim_work(config, "worker")
    assert claim is not None
    assert (str(claim.job.id), isinstance(claim, PartClaim)) == (small, False)
    # A new job of a user with many parts begins before the next of its parts.
    mine = queue_job(config, ada)
    claim = claim_work(config, "worker")
    assert claim is not None
    assert str(claim.job.id) == mine


def test_a_part_is_claimed_by_its_number(config: Config, ada: UUID) -> None:
    job = split_job(config, ada, 2)
    assert claim_part(config, job.job.id, 2, "flow") is None
    second = claim_part(config, job.job.id, 1, "flow")
    assert second is not None
    assert claim_part(config, job.job.id, 1, "flow") is None
    assert claim_part(config, job.job.id, 9, "flow") is None
    pause_any_job(config, str(job.job.id), paused=True)
    assert claim_part(config, job.job.id, 0, "flow") is None
    pause_any_job(config, str(job.job.id), paused=False)
    finish(config, second)
    first = claim_part(config, job.job.id, 0, "flow")
    assert first is not None
    finish(config, first)
    last = claim_part(config, job.job.id, 2, "flow")
    assert last is not None
    assert last.is_last


def test_usage_counts_all_attempts(config: Config, ada: UUID) -> None:
    split_job(config, ada, 1)
    parts.retry_part(config, take_part(config), USAGE, [], wait_s=0)
    finish(config, take_part(config))
    with db.session(config) as session:
        row = session.scalars(select(db.JobPartRow).where(db.JobPartRow.number == 0)).one()
    assert (row.cpu_s, row.seconds, row.mb_seconds, row.tries) == (2.0, 4.0, 6.0, 2)
