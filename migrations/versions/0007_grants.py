"""What identity providers grant to users, kept for jobs that run later."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "grants"
down_revision = "services"
branch_labels = None
depends_on = None

SCHEMA = "openeo"


def upgrade() -> None:
    op.add_column(
        "users",
        sa.Column("grants", sa.ARRAY(sa.Text()), server_default="{}", nullable=False),
        schema=SCHEMA,
    )


def downgrade() -> None:
    op.drop_column("users", "grants", schema=SCHEMA)
