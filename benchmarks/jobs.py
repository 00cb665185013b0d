"""`GET /jobs` with 100,000 jobs of 1,000 users: time of a page, and PostgreSQL's query plan.

Uses a separate database, on a server started for it.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from sqlalchemy import select, text

from odc_openeo import db, jobs
from odc_openeo.app import create_app
from odc_openeo.config import Config
from odc_openeo.db import migrate
from odc_openeo.jobs.store import make_page_query
from odc_openeo.stack import postgres
from odc_openeo.users import accounts

USERS, JOBS = 1_000, 100_000
ROUNDS = 50

FILL_USERS = text(
    "INSERT INTO openeo.users (id, name, roles, created, disabled) "
    "SELECT gen_random_uuid(), 'user' || i, '{}', now(), false FROM generate_series(1, :users) i"
)
FILL_JOBS = text(
    "INSERT INTO openeo.jobs "
    "(id, user_id, status, title, process, log_level, extras, progress, tries, created) "
    "SELECT gen_random_uuid(), u.id, 'finished', 'job ' || i, repeat('x', 2000), 'info', '{}', 100, 1, "
    "now() - i * interval '1 minute' FROM generate_series(1, :jobs_per_user) i, openeo.users u"
)


def main() -> None:
    """Fill a database, measure, print."""
    with tempfile.TemporaryDirectory(prefix="odc-openeo-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        server = postgres.start_server(folder / "server" / "pg", folder / "log")
        try:
            url = server.create_database("bench")
            measure_jobs(Config(database_url=url, data_dir=folder / "data", log_level="warning"))
        finally:
            server.stop(5)


def measure_jobs(config: Config) -> None:
    """Print the time of a page over HTTP and in SQL, and the plan."""
    migrate.upgrade(config)
    user = accounts.create_user(config, "ada", "correct horse")
    with db.session(config) as session:
        session.execute(FILL_USERS, {"users": USERS - 1})
        session.execute(FILL_JOBS, {"jobs_per_user": JOBS // USERS})
    with db.get_engine(config).connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE openeo.jobs"))
        count = connection.execute(select(db.JobRow.id)).rowcount
    client = create_app(config).test_client()
    headers = {"Authorization": f"Bearer basic//{accounts.issue_token(config, user)}"}

    def over_http() -> None:
        assert len(client.get("/openeo/1.3/jobs?limit=50", headers=headers).get_json()["jobs"]) == 50

    print(f"{count:,} jobs of {USERS:,} users; a page of 50, median of {ROUNDS}")
    print(f"GET /jobs?limit=50   {time_median(over_http):6.2f} ms")
    print(f"the statement alone  {time_median(lambda: jobs.list_jobs(config, user.id, 50)):6.2f} ms")
    with db.session(config) as session:
        compiled = make_page_query(user.id, 50, None).compile(
            db.get_engine(config), compile_kwargs={"literal_binds": True}
        )
        for (line,) in session.execute(text(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {compiled}")):
            print(f"  {line}")
    db.dispose_engine(config)


def time_median(action: object) -> float:
    """Measure the median milliseconds of an action."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        action()  # type: ignore[operator]
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


if __name__ == "__main__":
    main()
