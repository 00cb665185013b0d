"""Jobs in parts: how a job is split, and the state of each of its parts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "job_parts"
down_revision = "usage"
branch_labels = None
depends_on = None

SCHEMA = "openeo"
TIME = sa.DateTime(timezone=True)
NOW = sa.text("now()")
STATES = "status IN ('waiting', 'running', 'done', 'failed')"


def upgrade() -> None:
    _create_job_splits()
    _create_job_parts()


def _create_job_splits() -> None:
    op.create_table(
        "job_splits",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Uuid(), nullable=False),
        sa.Column("split", sa.Text(), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("parts", sa.Integer(), nullable=False),
        sa.Column("soft_errors", sa.Double(), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("last_started", TIME, nullable=True),
        sa.Column("created", TIME, server_default=NOW, nullable=False),
        sa.Column("cpu_s", sa.Double(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("mb_seconds", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], [f"{SCHEMA}.jobs.id"], name=op.f("fk_job_splits_job_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_job_splits")),
        schema=SCHEMA,
    )


def _create_job_parts() -> None:
    op.create_table(
        "job_parts",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("is_last", sa.Boolean(), nullable=False),
        sa.Column("part", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("not_before", TIME, nullable=True),
        sa.Column("attempt", sa.Uuid(), nullable=True),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("heartbeat", TIME, nullable=True),
        sa.Column("started", TIME, nullable=True),
        sa.Column("ended", TIME, nullable=True),
        sa.Column("cpu_s", sa.Double(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("mb_seconds", sa.Double(), nullable=False),
        sa.Column("assets", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.CheckConstraint(STATES, name=op.f("ck_job_parts_status")),
        sa.ForeignKeyConstraint(
            ["job_id"], [f"{SCHEMA}.job_splits.job_id"], name=op.f("fk_job_parts_job_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "number", name=op.f("pk_job_parts")),
        schema=SCHEMA,
    )
    for status in ("waiting", "running"):
        where = sa.text(f"status = '{status}'")
        keys = ["job_id", "number"]
        op.create_index(f"ix_job_parts_{status}", "job_parts", keys, schema=SCHEMA, postgresql_where=where)
    done = sa.text("status = 'done'")
    op.create_index("ix_job_parts_ended", "job_parts", ["ended"], schema=SCHEMA, postgresql_where=done)


def downgrade() -> None:
    for table in ("job_parts", "job_splits"):
        op.drop_table(table, schema=SCHEMA)
