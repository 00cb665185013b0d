"""Users of identity providers; counts of sign-in attempts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "accounts"
down_revision = "jobs"
branch_labels = None
depends_on = None

SCHEMA = "openeo"


def upgrade() -> None:
    for column in ("issuer", "subject"):
        op.add_column("users", sa.Column(column, sa.Text(), nullable=True), schema=SCHEMA)
    op.drop_constraint(op.f("uq_users_name"), "users", schema=SCHEMA, type_="unique")
    op.create_index(
        "ix_users_name",
        "users",
        ["name"],
        unique=True,
        schema=SCHEMA,
        postgresql_where=sa.text("issuer IS NULL"),
    )
    op.create_unique_constraint(
        op.f("uq_users_issuer_subject"), "users", ["issuer", "subject"], schema=SCHEMA
    )
    op.create_table(
        "attempts",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_attempts")),
        schema=SCHEMA,
    )
    op.create_index(op.f("ix_attempts_since"), "attempts", ["since"], unique=False, schema=SCHEMA)


def downgrade() -> None:
    op.drop_table("attempts", schema=SCHEMA)
    # Without their provider they would be users of Basic login without a password.
    op.execute(sa.text(f"DELETE FROM {SCHEMA}.users WHERE issuer IS NOT NULL"))
    op.drop_constraint(op.f("uq_users_issuer_subject"), "users", schema=SCHEMA, type_="unique")
    op.drop_index("ix_users_name", "users", schema=SCHEMA)
    op.create_unique_constraint(op.f("uq_users_name"), "users", ["name"], schema=SCHEMA)
    for column in ("subject", "issuer"):
        op.drop_column("users", column, schema=SCHEMA)
