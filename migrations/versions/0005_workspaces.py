"""Workspaces of users, and the collections that they have exported."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "workspaces"
down_revision = "stored_processes"
branch_labels = None
depends_on = None

SCHEMA = "openeo"


def _make_time_columns() -> list[sa.Column]:
    return [
        sa.Column(name, sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False)
        for name in ("created", "updated")
    ]


def _make_user_key(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["user_id"], [f"{SCHEMA}.users.id"], name=op.f(f"fk_{table}_user_id"), ondelete="CASCADE"
    )


def upgrade() -> None:
    op.create_table(
        "workspaces",
        sa.Column("key", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("title", sa.Text()),
        sa.Column("description", sa.Text()),
        sa.Column("quota", sa.BigInteger()),
        *_make_time_columns(),
        _make_user_key("workspaces"),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_workspaces")),
        sa.UniqueConstraint("user_id", "id", name=op.f("uq_workspaces_user_id_id")),
        schema=SCHEMA,
    )
    op.create_table(
        "user_collections",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("stac", sa.Text(), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        *_make_time_columns(),
        _make_user_key("user_collections"),
        sa.PrimaryKeyConstraint("user_id", "id", name=op.f("pk_user_collections")),
        schema=SCHEMA,
    )
    op.create_table(
        "user_items",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("collection", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("item", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id", "collection"],
            [f"{SCHEMA}.user_collections.user_id", f"{SCHEMA}.user_collections.id"],
            name=op.f("fk_user_items_user_id_collection"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("user_id", "collection", "id", name=op.f("pk_user_items")),
        schema=SCHEMA,
    )


def downgrade() -> None:
    for table in ("user_items", "user_collections", "workspaces"):
        op.drop_table(table, schema=SCHEMA)
