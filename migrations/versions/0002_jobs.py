"""Batch jobs, their logs and results."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "jobs"
down_revision = "0001"
branch_labels = None
depends_on = None

SCHEMA = "openeo"
TIME = sa.DateTime(timezone=True)
NOW = sa.text("now()")
STATES = "status IN ('created', 'queued', 'running', 'canceled', 'finished', 'error')"


def upgrade() -> None:
    _create_jobs()
    _create_job_logs()
    _create_job_results()


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("process", sa.Text(), nullable=False),
        sa.Column("plan", sa.Text(), nullable=True),
        sa.Column("budget", sa.Double(), nullable=True),
        sa.Column("log_level", sa.Text(), nullable=False),
        sa.Column("extras", sa.Text(), nullable=False),
        sa.Column("created", TIME, server_default=NOW, nullable=False),
        sa.Column("updated", TIME, server_default=NOW, nullable=False),
        sa.Column("queued", TIME, nullable=True),
        sa.Column("started", TIME, nullable=True),
        sa.Column("progress", sa.Double(), nullable=False),
        sa.Column("usage", postgresql.JSONB(), nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("not_before", TIME, nullable=True),
        sa.Column("attempt", sa.Uuid(), nullable=True),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("heartbeat", TIME, nullable=True),
        sa.CheckConstraint(STATES, name=op.f("ck_jobs_status")),
        sa.ForeignKeyConstraint(
            ["user_id"], [f"{SCHEMA}.users.id"], name=op.f("fk_jobs_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        schema=SCHEMA,
    )
    listed = ["status", "title", "progress", "updated"]
    key = ["user_id", "created", "id"]
    op.create_index("ix_jobs_listing", "jobs", key, schema=SCHEMA, postgresql_include=listed)
    queued, running = sa.text("status = 'queued'"), sa.text("status = 'running'")
    op.create_index("ix_jobs_queued", "jobs", ["user_id", "queued"], schema=SCHEMA, postgresql_where=queued)
    op.create_index("ix_jobs_running", "jobs", ["user_id"], schema=SCHEMA, postgresql_where=running)
    op.create_index("ix_jobs_user_id_started", "jobs", ["user_id", "started"], schema=SCHEMA)


def _create_job_logs() -> None:
    op.create_table(
        "job_logs",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("level", sa.SmallInteger(), nullable=False),
        sa.Column("time", TIME, nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("entry", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], [f"{SCHEMA}.jobs.id"], name=op.f("fk_job_logs_job_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_logs")),
        schema=SCHEMA,
    )
    op.create_index("ix_job_logs_job_id_id", "job_logs", ["job_id", "id"], schema=SCHEMA)


def _create_job_results() -> None:
    op.create_table(
        "job_results",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Uuid(), nullable=False),
        sa.Column("complete", sa.Boolean(), nullable=False),
        sa.Column("assets", sa.Text(), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("nbytes", sa.BigInteger(), nullable=False),
        sa.Column("created", TIME, server_default=NOW, nullable=False),
        sa.Column("expires", TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["job_id"], [f"{SCHEMA}.jobs.id"], name=op.f("fk_job_results_job_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_job_results")),
        sa.UniqueConstraint("attempt", name=op.f("uq_job_results_attempt")),
        schema=SCHEMA,
    )
    op.create_index(op.f("ix_job_results_expires"), "job_results", ["expires"], schema=SCHEMA)


def downgrade() -> None:
    for table in ("job_results", "job_logs", "jobs"):
        op.drop_table(table, schema=SCHEMA)
