import os
import re
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import ValidationError

from odc_openeo import config as settings
from odc_openeo.config import PREFIX, Config


def test_every_setting_has_a_description_and_a_type():
    for name, field in Config.model_fields.items():
        assert field.description, name
        assert field.annotation is not None, name


def test_values_come_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("ODC_OPENEO_PORT", "9000")
    monkeypatch.setenv("ODC_OPENEO_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("ODC_OPENEO_TITLE", "")
    config = Config()
    assert config.port == 9000
    assert config.data_dir == tmp_path
    assert config.title == "Open Data Cube openEO"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "70000"),
        ("PORT", "x"),
        ("WORKERS", "0"),
        ("LOG_LEVEL", "loud"),
        ("PUBLIC_URL", "example.org"),
    ],
)
def test_wrong_values_are_refused(monkeypatch, name, value):
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(ValidationError):
        Config()


def test_config_is_immutable():
    with pytest.raises(ValidationError):
        Config().port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("example.org", False),
    ],
)
def test_demo_user_only_on_loopback(host, loopback):
    assert Config(host=host).on_loopback is loopback
    if loopback:
        assert Config(host=host, demo_user=True).demo_user
    else:
        with pytest.raises(ValidationError, match="loopback"):
            Config(host=host, demo_user=True)


def test_root_url():
    assert Config(port=81).root_url == "http://127.0.0.1:81"
    assert Config(host="::1", port=81).root_url == "http://[::1]:81"
    assert Config(public_url="https://eo.example.org/").root_url == "https://eo.example.org"


def test_children_get_the_same_configuration(monkeypatch, tmp_path):
    config = Config(data_dir=tmp_path, port=8123, secret_key="hush", database_url="postgresql://u:pw@h/d")
    for name, value in settings.child_environment(config).items():
        monkeypatch.setenv(name, value)
    assert Config() == config
    assert settings.child_environment(config, EXTRA="1")["EXTRA"] == "1"


def test_signing_key_is_made_once_and_private(tmp_path):
    config = Config(data_dir=tmp_path / "new")
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: config.signing_key(), range(32)))
    assert len(keys) == 1
    assert len(keys.pop()) > 32
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["secret_key"]
    assert stat.S_IMODE((tmp_path / "new" / "secret_key").stat().st_mode) == 0o600
    assert Config(secret_key="own", data_dir=tmp_path).signing_key() == b"own"


def test_secrets_are_never_shown():
    config = Config(secret_key="hush-hush", database_url="postgresql://me:pw@ss@host/db?password=s3same")
    shown = repr(config) + str(settings.describe_settings(config))
    for secret in ("hush-hush", "pw@ss", "ss@host", "s3same"):
        assert secret not in shown
    assert ("ODC_OPENEO_SECRET_KEY", "***") in [row[:2] for row in settings.describe_settings(config)]


SECRETS = ["database_url", "secret_key", "metrics_token", "udf_package_index"]


def test_every_secret_may_be_in_a_file(monkeypatch, tmp_path):
    assert {*SECRETS} <= {*settings.list_secrets()}
    for name in settings.list_secrets():
        path = tmp_path / name
        path.write_text(f"the-content-of-{name}\n")
        monkeypatch.setenv(f"ODC_OPENEO_{name.upper()}_FILE", str(path))
    config = Config()
    assert settings.unknown_variables() == []
    for name in settings.list_secrets():
        assert getattr(config, name).get_secret_value() == f"the-content-of-{name}"
        assert config.environment()[f"ODC_OPENEO_{name.upper()}"] == f"the-content-of-{name}"
    shown = repr(config) + str(settings.describe_settings(config))
    assert "the-content-of" not in repr(config)
    assert not re.search("the-content-of-(secret_key|metrics_token)", shown)
    assert "ODC_OPENEO_SECRET_KEY_FILE" in shown
    # The children of a process have both, and read no file.
    for variable, value in config.environment().items():
        monkeypatch.setenv(variable, value)
    (tmp_path / "secret_key").unlink()
    assert Config() == config


def test_a_secret_itself_precedes_its_file(monkeypatch, tmp_path):
    (tmp_path / "key").write_text("from-the-file")
    monkeypatch.setenv("ODC_OPENEO_SECRET_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.setenv("ODC_OPENEO_SECRET_KEY", "from-the-variable")
    assert Config().signing_key() == b"from-the-variable"
    assert Config(secret_key="from-the-code").signing_key() == b"from-the-code"
    monkeypatch.setenv("ODC_OPENEO_SECRET_KEY", "")
    assert Config().signing_key() == b"from-the-file"


def make_absent(path):
    pass


def make_device(path):
    path.symlink_to("/dev/zero")


CONTENTS = {
    "empty": b" \n",
    "binary": bytes(range(256)),
    "two lines": b"one\ntwo\n",
    "zero": b"with\0zero",
    "huge": b"x" * 2**17,
}


@pytest.mark.parametrize(
    "make",
    [
        make_absent,
        make_device,
        Path.mkdir,
        *(pytest.param(lambda path, c=c: path.write_bytes(c), id=name) for name, c in CONTENTS.items()),
    ],
)
def test_files_that_are_no_secrets(monkeypatch, tmp_path, make):
    make(tmp_path / "key")
    monkeypatch.setenv("ODC_OPENEO_SECRET_KEY_FILE", str(tmp_path / "key"))
    with pytest.raises(ValidationError) as raised:
        Config()
    (error,) = raised.value.errors()
    assert "ODC_OPENEO_SECRET_KEY_FILE" in error["msg"]
    assert str(tmp_path / "key") in error["msg"]
    assert "two" not in error["msg"]
    assert "xxx" not in error["msg"]


def test_only_secrets_have_files(monkeypatch):
    monkeypatch.setenv("ODC_OPENEO_TITLE_FILE", "/etc/hostname")
    assert Config().title == Config.model_fields["title"].default
    assert settings.unknown_variables() == ["ODC_OPENEO_TITLE_FILE"]


def test_mask_password():
    mask = settings.mask_password
    assert mask("postgresql://me:p:w@host/db") == "postgresql://me:***@host/db"
    assert mask("postgresql://me@host/db") == "postgresql://me@host/db"
    assert mask("tcp://127.0.0.1:8786") == "tcp://127.0.0.1:8786"


def test_typing_errors_are_found(monkeypatch):
    monkeypatch.setenv("ODC_OPENEO_PROT", "1")
    assert settings.unknown_variables() == ["ODC_OPENEO_PROT"]


def test_odc_settings_are_listed_masked(monkeypatch):
    monkeypatch.setenv("ODC_DEFAULT_DB_URL", "postgresql://me:pw@host/db")
    monkeypatch.setenv("ODC_DEFAULT_DB_PASSWORD", "pw")
    shown = settings.odc_settings()
    assert shown["ODC_DEFAULT_DB_URL"] == "postgresql://me:***@host/db"
    assert shown["ODC_DEFAULT_DB_PASSWORD"] == "***"


def test_default_data_dir_of_an_ordinary_user(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert Config().data_dir == tmp_path / "odc-openeo"


def test_only_config_reads_the_environment():
    package = Path(settings.__file__).parent
    # The files of `child` run in an interpreter without this package.
    paths = set(package.rglob("*.py")) - set((package / "udf" / "child").iterdir())
    readers = [
        path.name for path in paths if "os.environ" in path.read_text() or "getenv" in path.read_text()
    ]
    assert readers == ["config.py"]


def test_import_is_light():
    code = (
        "import odc_openeo.config, sys; print([m for m in ('datacube', 'dask', 'flask') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
