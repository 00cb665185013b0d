import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect

from odc_openeo import db
from odc_openeo.config import Config, child_environment
from odc_openeo.db import migrate
from odc_openeo.errors import InfrastructureBusy
from odc_openeo.users import accounts
from odc_openeo.users.oidc import Identity
from tests.support.index_drivers import get_schema


@pytest.fixture
def empty_config(empty_database):
    config = Config(database_url=empty_database)
    yield config
    db.dispose_engine(config)


def tables(config: Config) -> set[str]:
    return set(inspect(db.get_engine(config)).get_table_names(schema=db.SCHEMA))


def test_up_and_down(empty_config):
    migrate.upgrade(empty_config)
    all_tables = set(db.Base.metadata.tables)
    assert {f"{db.SCHEMA}.{name}" for name in tables(empty_config) - {"alembic_version"}} == all_tables
    migrate.upgrade(empty_config)
    migrate.downgrade(empty_config)
    assert tables(empty_config) == {"alembic_version"}
    migrate.upgrade(empty_config)
    assert "users" in tables(empty_config)


def test_users_of_providers_go_when_their_columns_do(config):
    ada = accounts.create_user(config, "ada", "correct horse")
    accounts.get_or_create_user(config, Identity("https://login.example.org", "1", "ada"))
    migrate.downgrade(config, "jobs")
    migrate.upgrade(config)
    assert accounts.list_users(config) == [ada]


def test_models_equal_migrated_schema(config):
    def ours(name, kind, parents):
        return kind != "schema" or name == db.SCHEMA

    with db.get_engine(config).connect() as connection:
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
    before = set(inspect(db.get_engine(odc_config)).get_table_names(schema=get_schema()))
    migrate.downgrade(odc_config)
    migrate.upgrade(odc_config)
    assert set(inspect(db.get_engine(odc_config)).get_table_names(schema=get_schema())) == before != set()


def test_lost_database_is_an_openeo_error():
    config = Config(database_url="postgres://nobody@127.0.0.1:1/none")
    with pytest.raises(InfrastructureBusy, match="doctor"):
        db.check_database(config)


def test_a_broken_connection_heals(config, postgres_server):
    assert "0 users" in db.check_database(config)
    postgres_server.run_sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'test_%'"
    )
    assert "0 users" in db.check_database(config)


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
        db.check_database(empty_config)
