"""The tables of this service in PostgreSQL: models, engine and sessions. Those of ODC are separate."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Connection,
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
    """Return the current time in UTC."""
    return datetime.now(UTC)


class Base(DeclarativeBase):
    """Base of all models: schema ``openeo``, times with time zone, constraints with predictable names."""

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
    """A user who signs in with name and password, or as ``subject`` of the identity provider ``issuer``.

    Names are unique among users with a password; names from providers are only for display. ``roles`` are
    those set here, ``grants`` the roles and rules about claims that applied when the provider was last asked.
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
    grants: Mapped[list[str]] = mapped_column(ARRAY(Text), default=list, server_default="{}")
    created: Mapped[datetime] = mapped_column(default=now)
    disabled: Mapped[bool] = mapped_column(default=False)
    tokens: Mapped[list[Token]] = relationship(back_populates="user", cascade="all, delete-orphan")


class Token(Base):
    """A valid login. Only the SHA-256 of the client's token is stored."""

    __tablename__ = "tokens"

    hash: Mapped[bytes] = mapped_column(BYTEA, primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), index=True)
    created: Mapped[datetime] = mapped_column(default=now)
    expires: Mapped[datetime] = mapped_column(index=True)
    user: Mapped[User] = relationship(back_populates="tokens", lazy="joined")


class Attempt(Base):
    """The number of attempts since the start of a period; ``key`` identifies the action and the client."""

    __tablename__ = "attempts"

    key: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int]
    since: Mapped[datetime] = mapped_column(index=True)


class CollectionSummary(Base):
    """Extent and count of an ODC product, so that listing collections scans no datasets.

    ``west`` … ``north`` are degrees in EPSG:4326 (west > east crosses the antimeridian); all extents are
    null when the product has no datasets. ``last_change`` is the state of the index when this was computed.
    ``details`` has what else the catalogue shows: reference systems, native extents, grids, platforms.
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


class JobRow(Base):
    """A batch job: its process, its status, its worker.

    ``attempt`` identifies the current run; every change by a worker is conditional on it. ``heartbeat`` is
    the last sign of life of that run, ``tries`` counts runs since the job was queued, ``not_before`` is when
    the next one may begin. ``process`` and ``extras`` (properties unknown to the API) are JSON kept as text,
    exactly as sent.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(
            "status IN ('created', 'queued', 'running', 'canceled', 'finished', 'error')", name="status"
        ),
        # The index has all columns of a listing, which is thus read from the index alone.
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
    """A log entry of a job. ``entry`` is JSON as text: what the API shows in addition to the columns."""

    __tablename__ = "job_logs"
    __table_args__ = (Index("ix_job_logs_job_id_id", "job_id", "id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    job_id: Mapped[UUID] = mapped_column(ForeignKey(JobRow.id, ondelete="CASCADE"))
    level: Mapped[int] = mapped_column(SmallInteger)
    time: Mapped[datetime]
    message: Mapped[str]
    entry: Mapped[str]


class JobResult(Base):
    """The results of a job: the files of one attempt. While not ``complete``, those written so far.

    ``assets`` and ``details`` are JSON as text; ``expires`` is when the files are deleted.
    """

    __tablename__ = "job_results"

    job_id: Mapped[UUID] = mapped_column(ForeignKey(JobRow.id, ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[UUID] = mapped_column(unique=True)
    complete: Mapped[bool]
    assets: Mapped[str]
    details: Mapped[str]
    nbytes: Mapped[int] = mapped_column(BigInteger)
    created: Mapped[datetime] = mapped_column(server_default=func.now())
    expires: Mapped[datetime | None] = mapped_column(index=True)


class JobSplitRow(Base):
    """How a job in parts is split; ``attempt`` is the run that planned it.

    ``split`` and ``details`` (what the results say about their origin) are JSON as text. ``parts`` counts the
    parts but the last one, which completes the results; ``soft_errors`` is the share of them that may be left
    out. ``cpu_s``, ``seconds`` and ``mb_seconds`` are the usage of planning.
    """

    __tablename__ = "job_splits"

    job_id: Mapped[UUID] = mapped_column(ForeignKey(JobRow.id, ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[UUID]
    split: Mapped[str]
    details: Mapped[str]
    parts: Mapped[int]
    soft_errors: Mapped[float] = mapped_column(default=0.0)
    paused: Mapped[bool] = mapped_column(default=False)
    last_started: Mapped[datetime | None]
    created: Mapped[datetime] = mapped_column(server_default=func.now())
    cpu_s: Mapped[float] = mapped_column(default=0.0)
    seconds: Mapped[float] = mapped_column(default=0.0)
    mb_seconds: Mapped[float] = mapped_column(default=0.0)


class JobPartRow(Base):
    """A part of a job. ``attempt``, ``heartbeat``, ``tries`` and ``not_before`` are as those of a `JobRow`.

    The part that ``is_last`` completes the results once no other part waits or runs. ``part`` and ``assets``
    (the files of the attempt that is done) are JSON as text; ``error`` says why a part has failed. ``cpu_s``,
    ``seconds`` and ``mb_seconds`` are the usage of all attempts.
    """

    __tablename__ = "job_parts"
    __table_args__ = (
        CheckConstraint("status IN ('waiting', 'running', 'done', 'failed')", name="status"),
        Index("ix_job_parts_waiting", "job_id", "number", postgresql_where=text("status = 'waiting'")),
        Index("ix_job_parts_running", "job_id", "number", postgresql_where=text("status = 'running'")),
        Index("ix_job_parts_ended", "ended", postgresql_where=text("status = 'done'")),
    )

    job_id: Mapped[UUID] = mapped_column(ForeignKey(JobSplitRow.job_id, ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    is_last: Mapped[bool]
    part: Mapped[str]
    status: Mapped[str] = mapped_column(default="waiting")
    tries: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[datetime | None]
    attempt: Mapped[UUID | None]
    worker: Mapped[str | None]
    heartbeat: Mapped[datetime | None]
    started: Mapped[datetime | None]
    ended: Mapped[datetime | None]
    cpu_s: Mapped[float] = mapped_column(default=0.0)
    seconds: Mapped[float] = mapped_column(default=0.0)
    mb_seconds: Mapped[float] = mapped_column(default=0.0)
    assets: Mapped[str] = mapped_column(default="[]")
    error: Mapped[str | None]


class UsageRow(Base):
    """The usage of a user on a day (UTC) by ``kind``: ``job``, ``result`` (synchronous) or ``service``.

    Without a foreign key: it stays when the user is deleted. ``runs`` of services are tiles.
    """

    __tablename__ = "usage"
    __table_args__ = (Index("ix_usage_user_id_day", "user_id", "day"),)

    day: Mapped[date] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    collections: Mapped[tuple[str, ...]] = mapped_column(ARRAY(Text, as_tuple=True), primary_key=True)
    runs: Mapped[int] = mapped_column(BigInteger)
    cpu_s: Mapped[float]
    seconds: Mapped[float]
    nbytes: Mapped[int] = mapped_column(BigInteger)


class StoredProcess(Base):
    """A user-defined process, as JSON text. Anyone who knows ``share`` can use it while it is ``public``."""

    __tablename__ = "stored_processes"

    user_id: Mapped[UUID] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    process: Mapped[str]
    public: Mapped[bool] = mapped_column(default=False)
    share: Mapped[UUID] = mapped_column(unique=True, default=uuid4)
    created: Mapped[datetime] = mapped_column(server_default=func.now())
    updated: Mapped[datetime] = mapped_column(server_default=func.now())


class WorkspaceRow(Base):
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

    ``stac`` has the properties from the first export, ``details`` those derived from all Items.
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


class ServiceRow(Base):
    """A secondary web service: a process whose results map clients request as tiles.

    ``version`` counts changes that affect the tiles. ``look`` is the range of values that was measured for
    that version, null until it is needed. ``process``, ``configuration``, ``extras`` and ``look`` are JSON as
    text. ``tiles``, ``nbytes`` and ``cpu_s`` are the usage so far.
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
    """A log entry of a service, with the columns of `JobLog`."""

    __tablename__ = "service_logs"
    __table_args__ = (Index("ix_service_logs_service_id_id", "service_id", "id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    service_id: Mapped[UUID] = mapped_column(ForeignKey(ServiceRow.id, ondelete="CASCADE"))
    level: Mapped[int] = mapped_column(SmallInteger)
    time: Mapped[datetime]
    message: Mapped[str]
    entry: Mapped[str]


def normalise_url(url: str) -> URL:
    """Return ``postgres://``, ``postgresql://`` … as a SQLAlchemy URL of the psycopg2 driver.

    Raises ValueError if it is not the URL of a PostgreSQL database.
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


def get_database_url(config: Config) -> URL:
    """Return the URL of the configured database; ValueError if there is none."""
    if config.database_url is None:
        raise ValueError(f"no database: set {PREFIX}DATABASE_URL, or start with `odc-openeo up`")
    return normalise_url(config.database_url.get_secret_value())


_connect_seconds = {"limit": 5}


def get_connect_seconds() -> int:
    """Return how long new connections to a database may take."""
    return _connect_seconds["limit"]


def use_patient_connections() -> None:
    """Let connections take longer: an operator's command should rather wait than fail on a busy machine."""
    _connect_seconds["limit"] = 60


_engines: dict[tuple[int, URL], Engine] = {}
_lock = threading.Lock()


def dump_finite_json(value: Any) -> str:
    """Serialize a value for a JSON column: numbers that are not finite, which JSON has not, become null."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(_replace_infinite(value), allow_nan=False)


def _replace_infinite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _replace_infinite(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_infinite(member) for member in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def get_engine(config: Config) -> Engine:
    """Return the engine of this process, made at the first call: connections must never cross a fork."""
    key = (os.getpid(), get_database_url(config))
    with _lock:
        if key not in _engines:
            _engines[key] = create_engine(
                key[1],
                pool_pre_ping=True,
                pool_size=5,
                max_overflow=20,
                pool_timeout=10,
                json_serializer=dump_finite_json,
                # Messages of errors would have them: hashes of passwords, process graphs of users.
                hide_parameters=True,
                connect_args={"connect_timeout": get_connect_seconds(), "application_name": "odc-openeo"},
            )
        return _engines[key]


def dispose_engine(config: Config) -> None:
    """Close the connections of this process."""
    with _lock:
        engine = _engines.pop((os.getpid(), get_database_url(config)), None)
    if engine is not None:
        engine.dispose()


@contextmanager
def session(config: Config) -> Iterator[Session]:
    """Open a session in one transaction: committed at the end, rolled back on an error.

    Objects stay readable after the end. Raises InfrastructureBusy when the database cannot be reached.
    """
    with (
        as_infrastructure_busy(),
        Session(get_engine(config), expire_on_commit=False) as opened,
        opened.begin(),
    ):
        yield opened


@contextmanager
def autocommit_session(config: Config) -> Iterator[Session]:
    """Open a session for a single query: without a transaction, which would cost two more round trips.

    Objects stay readable after the end. Raises InfrastructureBusy when the database cannot be reached.
    """
    plain = get_engine(config).execution_options(isolation_level="AUTOCOMMIT")
    with as_infrastructure_busy(), Session(plain, expire_on_commit=False) as opened:
        yield opened


@contextmanager
def connect_once(config: Config) -> Iterator[Connection]:
    """Open a connection for single statements on tables, without a transaction and without objects.

    Raises InfrastructureBusy when the database cannot be reached.
    """
    plain = get_engine(config).execution_options(isolation_level="AUTOCOMMIT")
    with as_infrastructure_busy(), plain.connect() as connection:
        yield connection


@contextmanager
def as_infrastructure_busy() -> Iterator[None]:
    """Translate connection errors of the database into InfrastructureBusy, after which clients retry."""
    try:
        yield
    except (OperationalError, InterfaceError, TimeoutError) as error:
        raise InfrastructureBusy(
            "The database of the service cannot be reached at the moment. Try again in a minute; "
            "operators: run `odc-openeo doctor` to find the cause."
        ) from error


def check_database(config: Config) -> str:
    """Describe the database in a few words; InfrastructureBusy or ValueError if it is unusable."""
    try:
        with session(config) as opened:
            version = opened.execute(text("SHOW server_version")).scalar_one()
            users = opened.execute(text(f"SELECT count(*) FROM {SCHEMA}.users")).scalar_one()
    except ProgrammingError as error:
        raise ValueError("the database schema is missing or outdated: run `odc-openeo migrate`") from error
    return f"PostgreSQL {version}, {users} users"
