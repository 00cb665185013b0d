"""Secondary web services and their logs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "services"
down_revision = "workspaces"
branch_labels = None
depends_on = None

SCHEMA = "openeo"


def upgrade() -> None:
    create_services()
    create_logs()


def create_services() -> None:
    op.create_table(
        "services",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("title", sa.Text()),
        sa.Column("description", sa.Text()),
        sa.Column("process", sa.Text(), nullable=False),
        sa.Column("configuration", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("plan", sa.Text()),
        sa.Column("budget", sa.Float()),
        sa.Column("log_level", sa.Text(), nullable=False),
        sa.Column("extras", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("look", sa.Text()),
        sa.Column("tiles", sa.BigInteger(), nullable=False),
        sa.Column("nbytes", sa.BigInteger(), nullable=False),
        sa.Column("cpu_s", sa.Float(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], [f"{SCHEMA}.users.id"], name=op.f("fk_services_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_services")),
        schema=SCHEMA,
    )
    op.create_index("ix_services_listing", "services", ["user_id", "created", "id"], schema=SCHEMA)


def create_logs() -> None:
    op.create_table(
        "service_logs",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("service_id", sa.Uuid(), nullable=False),
        sa.Column("level", sa.SmallInteger(), nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("entry", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["service_id"],
            [f"{SCHEMA}.services.id"],
            name=op.f("fk_service_logs_service_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_service_logs")),
        schema=SCHEMA,
    )
    op.create_index("ix_service_logs_service_id_id", "service_logs", ["service_id", "id"], schema=SCHEMA)


def downgrade() -> None:
    op.drop_table("service_logs", schema=SCHEMA)
    op.drop_table("services", schema=SCHEMA)
