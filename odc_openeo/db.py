"""Our own tables in PostgreSQL: models, engine and sessions. Open Data Cube's tables are its own."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Engine,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    MetaData,
    SmallInteger,
    Text,
    UniqueConstraint,
    create_engine,
    func,
    make_url,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError, ProgrammingError, TimeoutError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from odc_openeo.config import PREFIX, Config
from odc_openeo.errors import InfrastructureBusy

SCHEMA = "openeo"


def now() -> datetime:
    """The present time in UTC."""
    return datetime.now(UTC)


class Base(DeclarativeBase):
    """All our tables: in the schema ``openeo``, times with zone, constraints with predictable names."""

    metadata = MetaData(
        schema=SCHEMA,
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        },
    )
    type_annotation_map = {datetime: DateTime(timezone=True), str: Text}  # noqa: RUF012


class User(Base):
    """Somebody who may sign in: by name and password, or as ``subject`` of the provider ``issuer``.

    Names are unique among those with a password; those of providers are only for display.
    """

    __tablename__ = "users"
    __table_args__ = (
        Index("ix_users_name", "name", unique=True, postgresql_where=text("issuer IS NULL")),
        UniqueConstraint("issuer", "subject"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str]
    issuer: Mapped[str | None]
    subject: Mapped[str | None]
    password_hash: Mapped[str | None]
    roles: Mapped[list[str]] = mapped_column(ARRAY(Text), default=list)
    created: Mapped[datetime] = mapped_column(default=now)
    disabled: Mapped[bool] = mapped_column(default=False)
    tokens: Mapped[list[Token]] = relationship(back_populates="user", cascade="all, delete-orphan")


class Token(Base):
    """A login that is still good. Only the SHA-256 of what the client holds is kept."""

    __tablename__ = "tokens"

    hash: Mapped[bytes] = mapped_column(BYTEA, primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), index=True)
    created: Mapped[datetime] = mapped_column(default=now)
    expires: Mapped[datetime] = mapped_column(index=True)
    user: Mapped[User] = relationship(back_populates="tokens", lazy="joined")


class Attempt(Base):
    """How often something was tried since the start of a period; ``key`` says what, and by whom."""

    __tablename__ = "attempts"

    key: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int]
    since: Mapped[datetime] = mapped_column(index=True)


class CollectionSummary(Base):
    """Extent and count of an ODC product, so that listing collections scans no datasets.

    ``west`` … ``north`` are degrees in EPSG:4326 (west > east crosses the antimeridian); all extents are
    null when the product has no datasets. ``last_change`` is what the index said when this was computed.
    ``details`` holds what else the catalogue shows: reference systems, native extents, grids, platforms.
    """

    __tablename__ = "collection_summaries"

    product: Mapped[str] = mapped_column(primary_key=True)
    west: Mapped[float | None]
    south: Mapped[float | None]
    east: Mapped[float | None]
    north: Mapped[float | None]
    start: Mapped[datetime | None]
    end: Mapped[datetime | None]
    count: Mapped[int] = mapped_column(BigInteger, default=0)
    last_change: Mapped[str | None]
    details: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    updated: Mapped[datetime] = mapped_column(default=now, onupdate=now)


class Job(Base):
    """A batch job: what to run, where it stands, who runs it.

    ``attempt`` names the run in progress; every change a worker makes is conditional on it. ``heartbeat`` is
    the last sign of life of that run, ``tries`` counts runs since it was queued, ``not_before`` is when the
    next one may begin. ``process`` and ``extras`` (properties unknown to the API) are JSON kept as text,
    exactly as sent.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(
            "status IN ('created', 'queued', 'running', 'canceled', 'finished', 'error')", name="status"
        ),
        # All that a listing shows is in the index: it is answered without reading jobs.
        Index(
            "ix_jobs_listing",
            "user_id",
            "created",
            "id",
            postgresql_include=["status", "title", "progress", "updated"],
        ),
        Index("ix_jobs_queued", "user_id", "queued", postgresql_where=text("status = 'queued'")),
        Index("ix_jobs_running", "user_id", postgresql_where=text("status = 'running'")),
        Index("ix_jobs_user_id_started", "user_id", "started"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    user_id: Mapped[UUID] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    status: Mapped[str] = mapped_column(default="created")
    title: Mapped[str | None]
    description: Mapped[str | None]
    process: Mapped[str]
    plan: Mapped[str | None]
    budget: Mapped[float | None]
    log_level: Mapped[str] = mapped_column(default="info")
    extras: Mapped[str] = mapped_column(default="{}")
    created: Mapped[datetime] = mapped_column(server_default=func.now())
    updated: Mapped[datetime] = mapped_column(server_default=func.now())
    queued: Mapped[datetime | None]
    started: Mapped[datetime | None]
    progress: Mapped[float] = mapped_column(default=0.0)
    usage: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    tries: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[datetime | None]
    attempt: Mapped[UUID | None]
    worker: Mapped[str | None]
    heartbeat: Mapped[datetime | None]


class JobLog(Base):
    """A message to the owner of a job. ``entry`` is JSON as text: what the API shows beside the columns."""

    __tablename__ = "job_logs"
    __table_args__ = (Index("ix_job_logs_job_id_id", "job_id", "id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    job_id: Mapped[UUID] = mapped_column(ForeignKey(Job.id, ondelete="CASCADE"))
    level: Mapped[int] = mapped_column(SmallInteger)
    time: Mapped[datetime]
    message: Mapped[str]
    entry: Mapped[str]


class JobResult(Base):
    """What a job has given: the files of one attempt. While it is not ``complete``, those written so far.

    ``assets`` and ``details`` are JSON as text; ``expires`` is when the files are deleted.
    """

    __tablename__ = "job_results"

    job_id: Mapped[UUID] = mapped_column(ForeignKey(Job.id, ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[UUID] = mapped_column(unique=True)
    complete: Mapped[bool]
    assets: Mapped[str]
    details: Mapped[str]
    nbytes: Mapped[int] = mapped_column(BigInteger)
    created: Mapped[datetime] = mapped_column(server_default=func.now())
    expires: Mapped[datetime | None] = mapped_column(index=True)


class StoredProcess(Base):
    """A user-defined process, as JSON text. Anybody who knows ``share`` can use it while it is ``public``."""

    __tablename__ = "stored_processes"

    user_id: Mapped[UUID] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    process: Mapped[str]
    public: Mapped[bool] = mapped_column(default=False)
    share: Mapped[UUID] = mapped_column(unique=True, default=uuid4)
    created: Mapped[datetime] = mapped_column(server_default=func.now())
    updated: Mapped[datetime] = mapped_column(server_default=func.now())


class Workspace(Base):
    """A workspace of a user. Its files are in a folder named by ``key`` at the provider."""

    __tablename__ = "workspaces"
    __table_args__ = (UniqueConstraint("user_id", "id"),)

    key: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    user_id: Mapped[UUID] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    id: Mapped[str]
    provider: Mapped[str]
    title: Mapped[str | None]
    description: Mapped[str | None]
    quota: Mapped[int | None] = mapped_column(BigInteger)
    created: Mapped[datetime] = mapped_column(server_default=func.now())
    updated: Mapped[datetime] = mapped_column(server_default=func.now())


class UserCollection(Base):
    """A collection that a user has exported to. ``stac`` and ``details`` are JSON as text.

    ``stac`` is what the first export said of it, ``details`` what follows from all Items.
    """

    __tablename__ = "user_collections"

    user_id: Mapped[UUID] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    stac: Mapped[str]
    details: Mapped[str]
    created: Mapped[datetime] = mapped_column(server_default=func.now())
    updated: Mapped[datetime] = mapped_column(server_default=func.now())


class UserItem(Base):
    """A STAC Item of a user's collection, as JSON text; ``run`` is the export that it came with."""

    __tablename__ = "user_items"
    __table_args__ = (
        ForeignKeyConstraint(
            ["user_id", "collection"], [UserCollection.user_id, UserCollection.id], ondelete="CASCADE"
        ),
    )

    user_id: Mapped[UUID] = mapped_column(primary_key=True)
    collection: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    run: Mapped[str]
    item: Mapped[str]


class Service(Base):
    """A secondary web service: a process whose results map clients see tile by tile.

    ``version`` counts changes of what the tiles show. ``look`` is the range of values that was measured for
    that version, null until it is needed. ``process``, ``configuration``, ``extras`` and ``look`` are JSON as
    text. ``tiles``, ``nbytes`` and ``cpu_s`` count what was served.
    """

    __tablename__ = "services"
    __table_args__ = (Index("ix_services_listing", "user_id", "created", "id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    user_id: Mapped[UUID] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    type: Mapped[str]
    title: Mapped[str | None]
    description: Mapped[str | None]
    process: Mapped[str]
    configuration: Mapped[str] = mapped_column(default="{}")
    enabled: Mapped[bool] = mapped_column(default=True)
    plan: Mapped[str | None]
    budget: Mapped[float | None]
    log_level: Mapped[str] = mapped_column(default="info")
    extras: Mapped[str] = mapped_column(default="{}")
    version: Mapped[int] = mapped_column(default=1)
    look: Mapped[str | None]
    tiles: Mapped[int] = mapped_column(BigInteger, default=0)
    nbytes: Mapped[int] = mapped_column(BigInteger, default=0)
    cpu_s: Mapped[float] = mapped_column(default=0.0)
    created: Mapped[datetime] = mapped_column(server_default=func.now())
    updated: Mapped[datetime] = mapped_column(server_default=func.now())


class ServiceLog(Base):
    """A message to the owner of a service. ``entry`` is as with jobs."""

    __tablename__ = "service_logs"
    __table_args__ = (Index("ix_service_logs_service_id_id", "service_id", "id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    service_id: Mapped[UUID] = mapped_column(ForeignKey(Service.id, ondelete="CASCADE"))
    level: Mapped[int] = mapped_column(SmallInteger)
    time: Mapped[datetime]
    message: Mapped[str]
    entry: Mapped[str]


def normalise_url(url: str) -> URL:
    """``postgres://``, ``postgresql://`` … as a SQLAlchemy URL of the psycopg2 driver.

    Raises ValueError when it is no URL of a PostgreSQL database.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ValueError(
            f"not a database URL: write {PREFIX}DATABASE_URL=postgresql://user@host/db"
        ) from error
    if parsed.drivername.split("+")[0] not in ("postgres", "postgresql"):
        raise ValueError(f"{parsed.drivername} is not supported: {PREFIX}DATABASE_URL must be PostgreSQL")
    return parsed.set(drivername="postgresql+psycopg2")


def database_url(config: Config) -> URL:
    """The URL of our database; ValueError when none is configured."""
    if config.database_url is None:
        raise ValueError(f"no database: set {PREFIX}DATABASE_URL, or start with `odc-openeo up`")
    return normalise_url(config.database_url.get_secret_value())


_engines: dict[tuple[int, URL], Engine] = {}
_lock = threading.Lock()


def engine(config: Config) -> Engine:
    """The engine of this process, made at the first call: connections must never cross a fork."""
    key = (os.getpid(), database_url(config))
    with _lock:
        if key not in _engines:
            _engines[key] = create_engine(
                key[1],
                pool_pre_ping=True,
                pool_size=5,
                max_overflow=20,
                pool_timeout=10,
                connect_args={"connect_timeout": 5, "application_name": "odc-openeo"},
            )
        return _engines[key]


def dispose(config: Config) -> None:
    """Close this process's connections."""
    with _lock:
        known = _engines.pop((os.getpid(), database_url(config)), None)
    if known is not None:
        known.dispose()


@contextmanager
def session(config: Config) -> Iterator[Session]:
    """A session in one transaction: committed at the end, rolled back on an error.

    Objects stay readable after the end. Raises InfrastructureBusy when the database cannot be reached.
    """
    with reachable(), Session(engine(config), expire_on_commit=False) as opened, opened.begin():
        yield opened


@contextmanager
def reading(config: Config) -> Iterator[Session]:
    """A session for one question: without a transaction, which would cost two more trips to the database.

    Objects stay readable after the end. Raises InfrastructureBusy when the database cannot be reached.
    """
    plain = engine(config).execution_options(isolation_level="AUTOCOMMIT")
    with reachable(), Session(plain, expire_on_commit=False) as opened:
        yield opened


@contextmanager
def reachable() -> Iterator[None]:
    """Turn a lost database into the openEO error that makes clients try again."""
    try:
        yield
    except (OperationalError, InterfaceError, TimeoutError) as error:
        raise InfrastructureBusy(
            "The database of the service cannot be reached at the moment. Try again in a minute; "
            "operators: `odc-openeo doctor` says what is wrong."
        ) from error


def check(config: Config) -> str:
    """Say in a few words what the database is; InfrastructureBusy or ValueError when it is unusable."""
    try:
        with session(config) as opened:
            version = opened.execute(text("SHOW server_version")).scalar_one()
            users = opened.execute(text(f"SELECT count(*) FROM {SCHEMA}.users")).scalar_one()
    except ProgrammingError as error:
        raise ValueError("our tables are missing or old: run `odc-openeo migrate`") from error
    return f"PostgreSQL {version}, {users} users"
