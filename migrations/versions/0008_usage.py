"""Usage of users by day, which stays when jobs, services and users are deleted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "usage"
down_revision = "grants"
branch_labels = None
depends_on = None

SCHEMA = "openeo"


def upgrade() -> None:
    op.create_table(
        "usage",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("collections", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("runs", sa.BigInteger(), nullable=False),
        sa.Column("cpu_s", sa.Float(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("nbytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("day", "user_id", "kind", "collections", name="pk_usage"),
        schema=SCHEMA,
    )
    op.create_index("ix_usage_user_id_day", "usage", ["user_id", "day"], schema=SCHEMA)


def downgrade() -> None:
    op.drop_table("usage", schema=SCHEMA)
