import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect

from odc_openeo import accounts, db, migrations
from odc_openeo.config import Config, child_environment
from odc_openeo.errors import InfrastructureBusy
from odc_openeo.oidc import Identity


@pytest.fixture
def empty_config(empty_database):
    config = Config(database_url=empty_database)
    yield config
    db.dispose(config)


def tables(config: Config) -> set[str]:
    return set(inspect(db.engine(config)).get_table_names(schema=db.SCHEMA))


def test_up_and_down(empty_config):
    migrations.upgrade(empty_config)
    made = set(db.Base.metadata.tables)
    assert {f"{db.SCHEMA}.{name}" for name in tables(empty_config) - {"alembic_version"}} == made
    migrations.upgrade(empty_config)
    migrations.downgrade(empty_config)
    assert tables(empty_config) == {"alembic_version"}
    migrations.upgrade(empty_config)
    assert "users" in tables(empty_config)


def test_users_of_providers_go_when_their_columns_do(config):
    ada = accounts.create_user(config, "ada", "correct horse")
    accounts.user_of_identity(config, Identity("https://login.example.org", "1", "ada"))
    migrations.downgrade(config, "jobs")
    migrations.upgrade(config)
    assert accounts.list_users(config) == [ada]


def test_models_are_what_migrations_make(config):
    def ours(name, kind, parents):
        return kind != "schema" or name == db.SCHEMA

    with db.engine(config).connect() as connection:
        options = {
            "version_table_schema": db.SCHEMA,
            "include_schemas": True,
            "include_name": ours,
            "compare_type": True,
        }
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, db.Base.metadata) == []


def test_several_hosts_may_migrate_at_once(empty_config):
    command = [sys.executable, "-m", "odc_openeo.cli", "migrate"]
    environment = child_environment(empty_config)
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(subprocess.run, command, env=environment, check=True) for _ in range(3)]
        for run in runs:
            run.result()
    assert "users" in tables(empty_config)


def test_leaves_open_data_cubes_tables_alone(odc_config):
    before = set(inspect(db.engine(odc_config)).get_table_names(schema="agdc"))
    migrations.downgrade(odc_config)
    migrations.upgrade(odc_config)
    assert set(inspect(db.engine(odc_config)).get_table_names(schema="agdc")) == before != set()


def test_lost_database_is_an_openeo_error():
    config = Config(database_url="postgres://nobody@127.0.0.1:1/none")
    with pytest.raises(InfrastructureBusy, match="doctor"):
        db.check(config)


def test_a_broken_connection_heals(config, postgres_server):
    assert "0 users" in db.check(config)
    postgres_server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'test_%'")
    assert "0 users" in db.check(config)


@pytest.mark.parametrize(("url", "what"), [("sqlite://", "PostgreSQL"), ("nonsense", "not a database URL")])
def test_other_databases_are_refused(url, what):
    with pytest.raises(ValueError, match=what):
        db.normalise_url(url)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2", "postgresql+psycopg"])
def test_all_spellings_mean_psycopg2(scheme):
    url = db.normalise_url(f"{scheme}://u:p@h/d?host=/run")
    assert url.render_as_string(hide_password=False) == "postgresql+psycopg2://u:p@h/d?host=%2Frun"


def test_tables_missing_is_said(empty_config):
    with pytest.raises(ValueError, match="odc-openeo migrate"):
        db.check(empty_config)


def test_migrations_are_in_the_package():
    folder = Path(migrations.__file__).parent
    assert (folder / "env.py").exists()
    assert (folder / "script.py.mako").exists()
