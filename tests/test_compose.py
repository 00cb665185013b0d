"""docker-compose.yml and Dockerfile: their structure, and that all they call exists."""

import re
import shutil
import subprocess
import sys
import tomllib
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
PORT = {"type": "string", "pattern": r"^([\d.]+:)?(\d+|\$\{[A-Z_]+:-\d+\}):\d+(/(tcp|udp))?$"}
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
SIZE = {"type": "string", "pattern": r"^\d+[kmg]$"}
SERVICE = closed(
    ["image"],
    image=TEXT,
    build={"anyOf": [TEXT, closed(["context"], context=TEXT, dockerfile=TEXT)]},
    network_mode={"type": "string", "pattern": "^service:[a-z-]+$"},
    restart={"enum": ["no", "always", "on-failure", "unless-stopped"]},
    environment=VALUES,
    volumes=TEXTS,
    healthcheck=HEALTHCHECK,
    command=TEXTS,
    profiles=TEXTS,
    networks=TEXTS,
    init={"type": "boolean"},
    read_only={"type": "boolean"},
    cap_drop=TEXTS,
    security_opt=TEXTS,
    tmpfs=TEXTS,
    mem_limit=SIZE,
    pids_limit={"type": "integer", "minimum": 1},
    working_dir=TEXT,
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
        "networks": {
            "type": "object",
            "additionalProperties": closed([], internal={"type": "boolean"}),
        },
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


def list_networks(name):
    return set(SERVICES[name].get("networks", ["default"]))


@pytest.mark.parametrize("name", SERVICES)
def test_networks_are_declared(name):
    assert list_networks(name) <= set(COMPOSE["networks"])


def test_user_code_is_confined():
    for name in ("udf-scheduler", "udf-worker"):
        service = SERVICES[name]
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["mem_limit"]
        assert service["pids_limit"]
        assert service.get("volumes", []) in ([], ["udf-cache:/udf-cache:ro"])
        assert "ports" not in service
        assert set(service.get("environment", {})) <= {"ODC_OPENEO_UDF"}
        assert {place.split(":")[0] for place in service["tmpfs"]} == {"/tmp", "/data"}


def list_callers_of_user_code():
    members = {name for name in SERVICES if "udf-calls" in list_networks(name)}
    # The notebooks lend their network to an API of their own.
    return members - {"udf-scheduler", "jupyter"}


def test_workers_of_user_code_reach_their_scheduler_only():
    assert all(COMPOSE["networks"][network]["internal"] for network in ("udf-calls", "udf-workers"))
    members = {name for name in SERVICES if list_networks(name) & list_networks("udf-worker")}
    assert members == {"udf-scheduler", "udf-worker"}
    callers = list_callers_of_user_code()
    assert callers == {"api", "job-worker", "dask-worker"}
    address = SERVICES["api"]["environment"]["ODC_OPENEO_UDF_SCHEDULER"]
    assert all(SERVICES[name]["environment"]["ODC_OPENEO_UDF_SCHEDULER"] == address for name in callers)
    assert address == SERVICES["udf-worker"]["command"][2] == "tcp://udf-scheduler:8786"


def test_user_code_has_an_interpreter_without_this_package():
    text = (ROOT / "Dockerfile").read_text()
    assert "ODC_OPENEO_UDF_PYTHONS=/opt/udf/bin/python" in text
    (line,) = re.findall(r"/opt/udf/bin/pip install (.*)", text)
    assert "--requirement /tmp/udf.txt" in line
    assert ".whl" not in line
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[^\w-]", text)[0] for text in project["optional-dependencies"]["udf"]}
    assert {"openeo", "xarray", "numpy", "scipy", "pandas", "scikit-image", "onnxruntime"} <= names


def test_kubernetes_confines_user_code_as_compose_does():
    text = (ROOT / "docs" / "udfs.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    deployment, policy, of_scheduler = yaml.safe_load_all(block)
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["args"] == SERVICES["udf-worker"]["command"]
    assert [variable["name"] for variable in container["env"]] == ["ODC_OPENEO_UDF"]
    rights = container["securityContext"]
    assert rights["readOnlyRootFilesystem"]
    assert rights["allowPrivilegeEscalation"] is False
    assert rights["capabilities"] == {"drop": ["ALL"]}
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["automountServiceAccountToken"] is False
    assert all("emptyDir" in volume for volume in pod["volumes"])
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"] == labels
    assert policy["spec"]["ingress"] == [{"from": [{"podSelector": of_scheduler["spec"]["podSelector"]}]}]
    callers = of_scheduler["spec"]["ingress"][0]["from"][1]["podSelector"]["matchExpressions"][0]["values"]
    assert set(callers) == list_callers_of_user_code()


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


def read_dockerfile(path: str) -> list[str]:
    lines = (ROOT / path).read_text().replace("\\\n", " ").splitlines()
    for line in lines:
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert source.startswith("--") or list(ROOT.glob(source)), source
    return lines


def test_dockerfile():
    lines = read_dockerfile("Dockerfile")
    assert [line.split()[1] for line in lines if line.startswith("USER ")] == ["odc-openeo"]
    assert lines[-1] == 'CMD ["odc-openeo", "serve"]'
    assert "serve" in cli.commands


def test_dockerfile_of_jupyter():
    assert SERVICES["jupyter"]["build"] == {"context": ".", "dockerfile": "docs/notebooks/Dockerfile"}
    lines = read_dockerfile(SERVICES["jupyter"]["build"]["dockerfile"])
    assert [line.split()[1] for line in lines if line.startswith("USER ")] == ["jupyter"]
    assert "token" not in lines[-1], "JupyterLab asks for its token"


def test_the_user_demo_exists_beside_jupyter_only():
    """The settings of the API in Jupyter's network are those of a service that nobody else reaches."""
    demo = {
        name for name, service in SERVICES.items() if "ODC_OPENEO_DEMO_USER" in service.get("environment", {})
    }
    assert demo == {"jupyter-api"}
    service = SERVICES["jupyter-api"]
    assert service["network_mode"] == "service:jupyter"
    assert "ports" not in service
    values = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in service["environment"].items()
        if name in ("ODC_OPENEO_HOST", "ODC_OPENEO_PUBLIC_URL", "ODC_OPENEO_DEMO_USER")
    }
    config = Config(**values)
    assert config.is_local_only
    assert config.serves_assets


def test_docker_compose_accepts_the_file():
    docker = shutil.which("docker")
    if (
        docker is None
        or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode
    ):
        pytest.skip("Docker Compose is not installed")
    for profile in ("samples", "jupyter"):
        command = [docker, "compose", "--profile", profile, "config", "--quiet"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr


def test_settings_exist():
    text = (ROOT / "docker-compose.yml").read_text() + (ROOT / "Dockerfile").read_text()
    for name in re.findall(rf"{PREFIX}([A-Z_]+)", text):
        assert name.lower() in Config.model_fields, name


def test_service_and_index_share_a_database():
    environment = SERVICES["api"]["environment"]
    assert environment["ODC_OPENEO_DATABASE_URL"] == environment["ODC_DEFAULT_DB_URL"]
    assert environment["ODC_OPENEO_DASK_SCHEDULER"] == SERVICES["dask-worker"]["command"][2]
