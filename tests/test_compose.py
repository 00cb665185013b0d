"""docker-compose.yml and Dockerfile: their structure, and that all they call exists."""

import re
import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import jsonschema
import pytest
import yaml

from odc_openeo.cli import cli
from odc_openeo.config import PREFIX, Config

ROOT = Path(__file__).parent.parent
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]

# The part of the compose specification that this file uses, closed: a key not listed here is a typing error.
TEXT = {"type": "string"}
TEXTS = {"type": "array", "items": TEXT}
DURATION = {"type": "string", "pattern": r"^(\d+(us|ms|s|m|h))+$"}
PORT = {"type": "string", "pattern": r"^([\d.]+:)?\d+:\d+(/(tcp|udp))?$"}
VALUES = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "null"]}}


def closed(required: list[str], **properties: object) -> dict:
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties}


CONDITIONS = ["service_started", "service_healthy", "service_completed_successfully"]
HEALTHCHECK = closed(
    [],
    test=TEXTS,
    interval=DURATION,
    timeout=DURATION,
    start_period=DURATION,
    retries={"type": "integer"},
    disable={"type": "boolean"},
)
SERVICE = closed(
    ["image"],
    image=TEXT,
    build=TEXT,
    restart={"enum": ["no", "always", "on-failure", "unless-stopped"]},
    environment=VALUES,
    volumes=TEXTS,
    healthcheck=HEALTHCHECK,
    command=TEXTS,
    profiles=TEXTS,
    ports={"type": "array", "items": PORT},
    deploy=closed([], replicas={"type": "integer", "minimum": 0}),
    depends_on={
        "type": "object",
        "additionalProperties": closed(["condition"], condition={"enum": CONDITIONS}),
    },
)
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["services"],
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"},
        "services": {"type": "object", "additionalProperties": SERVICE},
        "volumes": {"type": "object", "additionalProperties": {"type": ["object", "null"]}},
    },
    "patternProperties": {"^x-": {}},
}


def test_structure():
    jsonschema.validate(COMPOSE, SCHEMA)


def test_structure_test_can_fail():
    for wrong in ({"services": {"a": {"image": "x", "command_": []}}}, {"services": {"a": {}}}, {}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, SCHEMA)


@pytest.mark.parametrize("name", SERVICES)
def test_dependencies_can_be_met(name):
    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert other in SERVICES
        if how["condition"] == "service_healthy":
            assert SERVICES[other]["healthcheck"]["test"]
        if how["condition"] == "service_completed_successfully":
            assert SERVICES[other]["restart"] == "no"


@pytest.mark.parametrize("name", SERVICES)
def test_volumes_are_declared(name):
    for volume in SERVICES[name].get("volumes", []):
        assert volume.split(":")[0] in COMPOSE["volumes"]


def exists(command: list[str]) -> None:
    program, *arguments = command
    assert program in {script.name for script in entry_points(group="console_scripts")}, program
    words = [word for word in arguments if not word.startswith("-")]
    options = {word for word in arguments if word.startswith("--")}
    help_of = {"odc-openeo": 2, "datacube": 2, "dask": 1}[program]
    path = shutil.which(program, path=str(Path(sys.executable).parent))
    assert path is not None
    shown = subprocess.run(
        [path, *words[:help_of], "--help"], capture_output=True, text=True, check=True, timeout=120
    ).stdout
    for option in options:
        assert re.search(rf"{option}\b", shown), (command, option)


@pytest.mark.parametrize("name", [name for name in SERVICES if "command" in SERVICES[name]])
def test_every_command_exists(name):
    exists(SERVICES[name]["command"])


def test_dockerfile():
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users == ["odc-openeo"]
    assert lines[-1] == 'CMD ["odc-openeo", "serve"]'
    assert "serve" in cli.commands
    for line in lines:
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), source


def test_settings_exist():
    text = (ROOT / "docker-compose.yml").read_text() + (ROOT / "Dockerfile").read_text()
    for name in re.findall(rf"{PREFIX}([A-Z_]+)", text):
        assert name.lower() in Config.model_fields, name


def test_service_and_index_share_a_database():
    environment = SERVICES["api"]["environment"]
    assert environment["ODC_OPENEO_DATABASE_URL"] == environment["ODC_DEFAULT_DB_URL"]
    assert environment["ODC_OPENEO_DASK_SCHEDULER"] == SERVICES["dask-worker"]["command"][2]
