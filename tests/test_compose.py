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
from odc_openeo.cli.secret_files import DATABASE_URL
from odc_openeo.config import PREFIX, Config, list_secrets
from odc_openeo.stack.secret_files import make_secrets

ROOT = Path(__file__).parent.parent
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]

# The part of the compose specification that this file uses, closed: a key not listed here is a typing error.
TEXT = {"type": "string"}
TEXTS = {"type": "array", "items": TEXT}
DURATION = {"type": "string", "pattern": r"^(\d+(us|ms|s|m|h))+$"}
PORT = {"type": "string", "pattern": r"^(127\.0\.0\.1:)?(\d+|\$\{[A-Z_]+:-\d+\}):\d+(/(tcp|udp))?$"}
VALUES = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "null"]}}


def closed(required: list[str], /, **properties: object) -> dict:
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties}


def settable(pattern: str) -> dict:
    """A value, or a variable with such a default."""
    return {"type": "string", "pattern": rf"^(\$\{{STACK_[A-Z_]+:-)?{pattern}\}}?$"}


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
SIZE = settable(r"\d+[kmg]")
BUILD = closed(["context"], context=TEXT, dockerfile=TEXT, secrets=TEXTS)
ENV_FILE = closed(["path", "required"], path=TEXT, required={"const": False})
LOGGING = closed(
    ["driver", "options"],
    driver={"const": "json-file"},
    options=closed(["max-size", "max-file"], **{"max-size": settable(r"\d+[kmg]"), "max-file": TEXT}),
)
SERVICE = closed(
    ["image"],
    image=TEXT,
    build=BUILD,
    network_mode={"type": "string", "pattern": "^(none|service:[a-z-]+)$"},
    env_file={"type": "array", "items": ENV_FILE},
    logging=LOGGING,
    cap_add=TEXTS,
    cpus=settable(r"[\d.]+"),
    cpu_shares={"type": "integer", "minimum": 2},
    shm_size=SIZE,
    stop_grace_period=DURATION,
    entrypoint=TEXTS,
    user=TEXT,
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
    deploy=closed([], replicas=settable(r"\d+")),
    depends_on={
        "type": "object",
        "additionalProperties": closed(
            ["condition"], condition={"enum": CONDITIONS}, required={"const": False}
        ),
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
        "secrets": {"type": "object", "additionalProperties": closed(["file"], file=TEXT)},
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


LASTING = [name for name, service in SERVICES.items() if service["restart"] != "no"]
PROFILES = {profile for service in SERVICES.values() for profile in service.get("profiles", [])}
VARIABLE = re.compile(r"\$\{([A-Z_]+):-([^}]*)\}")


def list_mounts(name):
    """List (source, target, mode) of the volumes of a service, variables at their defaults."""
    for volume in SERVICES[name].get("volumes", []):
        source, target, *mode = VARIABLE.sub(r"\2", volume).split(":")
        yield source, target, *mode


@pytest.mark.parametrize("name", SERVICES)
def test_volumes_are_declared(name):
    for source, *_ in list_mounts(name):
        assert (ROOT / source).exists() if source.startswith("./") else source in COMPOSE["volumes"]


def test_profiles():
    assert {"samples", "jupyter", "editor", "explorer", "proxy", "monitoring"} == PROFILES


@pytest.mark.parametrize("name", LASTING)
def test_every_lasting_service_tells_its_health(name):
    """`docker compose up --wait` waits for all of them."""
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] == "CMD"
    assert check["retries"] >= 5
    assert {"interval", "timeout"} <= check.keys()


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_limited(name):
    service = SERVICES[name]
    assert service["mem_limit"]
    assert service["pids_limit"] <= 1024
    assert service["init"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert service["restart"] in ("no", "unless-stopped")
    # JupyterLab writes where its users do.
    assert service.get("read_only", False) == (name != "jupyter")
    assert {*service.get("cap_add", [])} <= {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"}
    assert "cap_add" not in service or name == "postgres"


@pytest.mark.parametrize("name", SERVICES)
def test_only_the_proxy_is_reached_from_elsewhere(name):
    for port in SERVICES[name].get("ports", []):
        assert port.startswith("127.0.0.1:") or name == "proxy"


def test_memory_of_dask_workers_is_within_the_limit():
    for name in ("dask-worker", "udf-worker"):
        command = SERVICES[name]["command"]
        assert command[command.index("--memory-limit") + 1] == "4GiB"
        assert int(SERVICES[name]["mem_limit"].rstrip("g")) > 4


def test_there_is_one_build_of_the_image():
    builders = [name for name, service in SERVICES.items() if "build" in service]
    images = [SERVICES[name]["image"] for name in builders]
    assert len(images) == len({*images})
    assert builders[0] == "secrets"
    assert all(
        "build" in service or service["image"] in images or VARIABLE.match(service["image"])
        for service in SERVICES.values()
    )


# --- Secrets -------------------------------------------------------------------------------------


def test_there_is_no_password_in_the_file():
    """Not even one of the samples: all are made at the first start, for this installation only."""
    text = (ROOT / "docker-compose.yml").read_text() + (ROOT / "Dockerfile").read_text()
    for line in text.splitlines():
        if re.search("PASSWORD|SECRET_KEY|DATABASE_URL|TOKEN", line) and not line.lstrip().startswith("#"):
            assert re.search(r"_FILE: /run/secrets/\w+$", line), line
    assert "://odc:" not in text


def test_services_name_the_files_that_are_made(tmp_path):
    made = {*make_secrets(tmp_path, DATABASE_URL)}
    text = (ROOT / "docker-compose.yml").read_text()
    named = {*re.findall(r"/run/secrets/([\w.]+)", text)}
    assert named == made
    url = (tmp_path / "database_url").read_text()
    postgres = SERVICES["postgres"]["environment"]
    assert url.startswith(f"postgresql+psycopg2://{postgres['POSTGRES_USER']}:")
    assert url.strip().endswith(f"@postgres:5432/{postgres['POSTGRES_DB']}")


def test_secrets_are_where_they_are_needed_only():
    holders = {
        name for name in SERVICES if any(target == "/run/secrets" for _, target, *_ in list_mounts(name))
    }
    assert holders == {
        *("secrets", "postgres", "index-init", "migrate", "samples", "api", "job-worker", "jupyter-api"),
        *("explorer-init", "explorer"),
    }
    for name in holders - {"secrets"}:
        (mount,) = (mount for mount in list_mounts(name) if mount[1] == "/run/secrets")
        assert mount == ("secrets", "/run/secrets", "ro")
    assert SERVICES["secrets"]["network_mode"] == "none"


def test_imagery_is_never_written():
    mounts = [mount for name in SERVICES for mount in list_mounts(name) if mount[1] == "/imagery"]
    assert len(mounts) > 3
    assert {*mounts} == {("imagery", "/imagery", "ro")}
    readers = {name for name in SERVICES if any(mount[1] == "/imagery" for mount in list_mounts(name))}
    assert {"api", "job-worker", "dask-worker"} <= readers


def test_the_example_of_settings_is_complete():
    """It names each variable of the compose file, with its default, and settings that exist."""
    example = (ROOT / "deploy" / "compose" / "example.env").read_text()
    named = {*re.findall(r"^#?([A-Z][A-Z_]+)=", example, re.MULTILINE)}
    text = (ROOT / "docker-compose.yml").read_text()
    page = (ROOT / "docs" / "compose.md").read_text()
    for variable in {name for name, _ in VARIABLE.findall(text)}:
        assert variable in named or f"`{variable}`" in page, variable
    for name in named:
        if name.startswith(PREFIX):
            assert name.removeprefix(PREFIX).lower() in Config.model_fields, name
        elif name.startswith("STACK_"):
            assert name in text, name
    defaults = dict(VARIABLE.findall(text))
    for line in re.findall(r"^#(STACK_[A-Z_]+(?:CPUS|MEMORY|WORKERS)=.*)$", example, re.MULTILINE):
        name, _, default = line.partition("=")
        assert defaults[name] == default


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
        assert "env_file" not in service
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
    assert "--requirement udf.txt" in line
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


@pytest.mark.parametrize(
    "name",
    [name for name, service in SERVICES.items() if "command" in service and service["image"] == "odc-openeo"],
)
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
    for profile in PROFILES:
        command = [docker, "compose", "--profile", profile, "config", "--quiet"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr


def test_settings_exist():
    text = (ROOT / "docker-compose.yml").read_text() + (ROOT / "Dockerfile").read_text()
    files = {f"{name}_file" for name in list_secrets()}
    for name in re.findall(rf"{PREFIX}([A-Z_]+)", text):
        assert name.lower() in {*Config.model_fields, *files}, name


def test_services_share_their_settings():
    environments = {name: SERVICES[name]["environment"] for name in ("api", "job-worker", "migrate")}
    assert environments["job-worker"] == environments["migrate"]
    api = environments["api"]
    assert environments["migrate"].items() <= api.items()
    assert api["ODC_OPENEO_DASK_SCHEDULER"] == SERVICES["dask-worker"]["command"][2]
