"""User-defined processes (UDPs)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "stored_processes"
down_revision = "accounts"
branch_labels = None
depends_on = None

SCHEMA = "openeo"


def upgrade() -> None:
    op.create_table(
        "stored_processes",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("process", sa.Text(), nullable=False),
        sa.Column("public", sa.Boolean(), nullable=False),
        sa.Column("share", sa.Uuid(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"],
            [f"{SCHEMA}.users.id"],
            name=op.f("fk_stored_processes_user_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("user_id", "id", name=op.f("pk_stored_processes")),
        sa.UniqueConstraint("share", name=op.f("uq_stored_processes_share")),
        schema=SCHEMA,
    )


def downgrade() -> None:
    op.drop_table("stored_processes", schema=SCHEMA)
