"""Back up everything that the service keeps into one file, and restore it.

The database is dumped first, as it is at one moment, then the files. Only those that go in between may be
missing; results with such files are not restored.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from pydantic import SecretStr

from odc_openeo import __version__, db
from odc_openeo.config import Config, child_environment, odc_database_environment
from odc_openeo.db import migrate
from odc_openeo.db.schema_check import check_schema, upgrade_schema
from odc_openeo.indexing.datacube_command import build_datacube_command
from odc_openeo.indexing.index import init_command
from odc_openeo.jobs.queue import delete_results_without_files
from odc_openeo.stack import postgres
from odc_openeo.stack.backup_archive import (
    MANIFEST,
    ArchiveWriter,
    BackupInvalid,
    extract_archive,
    read_manifest,
)
from odc_openeo.stack.database_dump import Database, DumpError
from odc_openeo.stack.embedded import DATABASE
from odc_openeo.stack.running_stack import attach, find_running_stack, lock_folder
from odc_openeo.storage import get_storage
from odc_openeo.timestamps import format_rfc3339

FORMAT: Final = 1
INDEX_SCHEMAS: Final = ("agdc", "odc")
SETTINGS_FILES: Final = ("collection_overrides", "oidc_providers", "quotas", "workspace_providers")


class RestoreRefused(ValueError):
    """Something is in the way of a restore; the message says what, and nothing was changed."""


@dataclass(frozen=True)
class BackupSummary:
    """The content of a backup: number of files, schemas of the database, and remarks on what is missing."""

    path: Path
    files: int
    schemas: tuple[str, ...]
    remarks: tuple[str, ...] = ()


# --- Backup --------------------------------------------------------------------------------------


def make_backup(config: Config, target: Path) -> BackupSummary:
    """Write a backup to a file; the service may run meanwhile.

    What does not end with ``.tar`` is a folder, which is made if it is missing, and the file in it is new.

    Raises:
        FileExistsError: the file exists.
        ValueError, DumpError, PostgresError: the database cannot be used, or be dumped.
    """
    path = _choose_path(target)
    is_embedded = config.database_url is None and (config.data_dir / "postgresql").is_dir()
    with _open_database(config) as opened, tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        check_schema(opened)
        database = Database(db.get_database_url(opened))
        schemas = database.list_schemas([db.SCHEMA, *(INDEX_SCHEMAS if is_embedded else ())])
        with ArchiveWriter(path) as archive:
            storage = _find_storage_folder(config)
            archive.add_json(MANIFEST, _make_manifest(database, schemas, has_storage=storage is not None))
            dump = Path(scratch) / "database.dump"
            database.dump(schemas, dump)
            archive.add_file("database.dump", dump)
            _make_signing_key(config)
            archive.add_file("secret_key", config.data_dir / "secret_key")
            files = 0 if storage is None else archive.add_folder("storage", storage)
            if is_embedded:
                archive.add_folder("samples", config.data_dir / "samples")
            for name in SETTINGS_FILES:
                if getattr(config, name) is not None:
                    archive.add_file(f"settings/{name}.yaml", getattr(config, name))
    return BackupSummary(path, files, tuple(schemas), tuple(_list_remarks(config, is_embedded)))


def _choose_path(target: Path) -> Path:
    path = target
    if target.is_dir() or (target.suffix != ".tar" and not target.exists()):
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = target / f"odc-openeo-{db.now():%Y%m%dT%H%M%SZ}.tar"
    if path.exists():
        raise FileExistsError(f"{path} exists: choose another name, or a folder")
    return path


def _make_manifest(database: Database, schemas: list[str], *, has_storage: bool) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": __version__,
        "revision": database.query(f"SELECT version_num FROM {db.SCHEMA}.alembic_version")[0],
        "created": format_rfc3339(db.now()),
        "schemas": schemas,
        "storage": has_storage,
    }


def _list_remarks(config: Config, is_embedded: bool) -> Iterator[str]:
    if _find_storage_folder(config) is None:
        yield f"files are not in it: back up {config.storage} by the means of that store"
    if not is_embedded:
        yield "the index of Open Data Cube is not in it: back up its database as you do with others"
    if config.secret_key is not None:
        yield "the setting secret_key is not in it"


def _make_signing_key(config: Config) -> None:
    if config.secret_key is None:
        config.signing_key()


def _find_storage_folder(config: Config) -> Path | None:
    path = get_storage(config).find_local_path("x")
    return None if path is None else path.parent


@contextlib.contextmanager
def _open_database(config: Config) -> Iterator[Config]:
    """Yield a configuration with the database of the settings or of a running stack, else start ours."""
    attached = attach(config)
    if attached.database_url is not None:
        yield attached
        return
    with _start_database(config) as opened:
        yield opened


@contextlib.contextmanager
def _start_database(config: Config) -> Iterator[Config]:
    config.data_dir.mkdir(parents=True, exist_ok=True)
    with lock_folder(config.data_dir):
        server = postgres.start_server(
            config.data_dir / "postgresql", config.data_dir / "log" / "postgresql.log"
        )
        opened = config
        try:
            url = server.create_database(DATABASE)
            opened = config.model_copy(update={"database_url": SecretStr(url)})
            yield opened
        finally:
            if opened.database_url is not None:
                db.dispose_engine(opened)
            server.stop(10)


# --- Restore -------------------------------------------------------------------------------------


def restore_backup(config: Config, path: Path, *, replace: bool = False) -> BackupSummary:
    """Restore a backup into an empty service, or with ``replace`` instead of what is there.

    Everything is checked before anything is changed. Older tables are upgraded.

    Raises:
        BackupInvalid: the archive is damaged, of a newer version, or not a backup.
        RestoreRefused: the service runs, or has content and ``replace`` is not set.
    """
    manifest = _check_manifest(config, path)
    if find_running_stack(config.data_dir) is not None:
        raise RestoreRefused(f"`odc-openeo up` runs with {config.data_dir}: stop it first")
    config.data_dir.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".restore-", dir=config.data_dir))
    try:
        extract_archive(path, staging)
        if not (staging / "database.dump").is_file():
            raise BackupInvalid(f"{path} has no database")
        is_embedded = config.database_url is None
        with _start_database(config) if is_embedded else contextlib.nullcontext(config) as opened:
            return _restore_all(opened, path, manifest, staging, is_embedded=is_embedded, replace=replace)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _check_manifest(config: Config, path: Path) -> Mapping[str, Any]:
    manifest = read_manifest(path)
    if manifest.get("format") != FORMAT:
        raise BackupInvalid(f"{path} has a format that this version does not know: use a newer one")
    if manifest.get("revision") not in migrate.list_revisions(config):
        raise BackupInvalid(
            f"{path} was made by a newer version ({str(manifest.get('version'))[:20]}) of odc-openeo: "
            "install that version"
        )
    schemas = manifest.get("schemas")
    if not isinstance(schemas, list) or not set(map(str, schemas)) <= {db.SCHEMA, *INDEX_SCHEMAS}:
        raise BackupInvalid(f"{path} has schemas that no backup has")
    return manifest


def _restore_all(
    config: Config,
    path: Path,
    manifest: Mapping[str, Any],
    staging: Path,
    *,
    is_embedded: bool,
    replace: bool,
) -> BackupSummary:
    database = Database(db.get_database_url(config))
    schemas = [name for name in manifest["schemas"] if is_embedded or name == db.SCHEMA]
    if len(schemas) < len(manifest["schemas"]):
        raise RestoreRefused(
            "the backup is that of an `odc-openeo up` with its own database and index: restore it without "
            "database_url, and dump the index from there"
        )
    storage = _find_storage_folder(config)
    _check_target(database, schemas, storage, replace=replace)
    drop = schemas if replace else []
    if set(INDEX_SCHEMAS) & set(schemas):
        _create_index_roles(config)
        drop = schemas
    database.restore(staging / "database.dump", drop, with_owners=is_embedded)
    _move(staging / "storage", storage)
    _move(staging / "samples", config.data_dir / "samples")
    _move(staging / "settings", config.data_dir / f"restored-settings-{uuid4().hex[:8]}")
    _move(staging / "secret_key", config.data_dir / "secret_key")
    upgrade_schema(config)
    missing = 0 if storage is None else delete_results_without_files(config, _make_file_check(config))
    remark = f"{missing} results are not restored: their files were removed while the backup was made"
    files = 0 if storage is None else sum(file.is_file() for file in storage.rglob("*"))
    return BackupSummary(path, files, tuple(schemas), (remark,) if missing else ())


def _create_index_roles(config: Config) -> None:
    """Create an empty index, and with it the roles that own the one of the backup."""
    url = db.get_database_url(config).render_as_string(hide_password=False)
    environment = child_environment(None, **odc_database_environment(url))
    command = build_datacube_command(init_command("postgres"))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DumpError(f"`datacube system init` failed: {done.stderr.strip()[-1000:]}")


def _check_target(database: Database, schemas: list[str], storage: Path | None, *, replace: bool) -> None:
    other_sessions = "datname = current_database() AND application_name = 'odc-openeo'"
    if database.query(f"SELECT count(*) FROM pg_stat_activity WHERE {other_sessions}") != ["0"]:
        raise RestoreRefused("processes of the service use the database: stop them first")
    if replace:
        return
    existing = database.list_schemas(schemas)
    if existing:
        raise RestoreRefused(f"the database has {', '.join(existing)} already: --replace drops that")
    if storage is not None and storage.is_dir() and any(storage.iterdir()):
        raise RestoreRefused(f"{storage} has files already: --replace removes them")


def _move(source: Path, target: Path | None) -> None:
    """Move a file or folder of the backup to its place; what is there is removed."""
    if target is None or not source.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
    shutil.move(source, target)


def _make_file_check(config: Config) -> Callable[[str], bool]:
    storage = get_storage(config)

    def exists(key: str) -> bool:
        local = storage.find_local_path(key)
        return local is not None and local.exists()

    return exists
