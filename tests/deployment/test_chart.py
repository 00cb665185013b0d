"""The Helm chart: rendered by Helm's own engine, checked against the schemas of Kubernetes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import create_engine, text

from odc_openeo import __version__
from odc_openeo.cli import cli
from odc_openeo.config import PREFIX, Config

helm = pytest.importorskip("helm_python", reason="Helm's engine is not there for this platform")
kubernetes_validate = pytest.importorskip("kubernetes_validate")

HELM = Path(__file__).parents[2] / "deploy" / "helm"
CHART = HELM / "odc-openeo"
EXAMPLES = {path.stem: yaml.safe_load(path.read_text()) for path in (HELM / "examples").glob("*.yaml")}
VERSIONS = ("1.27", "1.30", "1.33")
FOREIGN = {"keda.sh/v1alpha1", "kubernetes.dask.org/v1"}
"""Kinds of other projects, which Kubernetes has no schemas of."""

Resource = dict[str, Any]


@cache
def load_chart() -> Any:
    return helm.Chart.load(CHART)


def render(values: Mapping[str, Any], name: str = "eo") -> list[Resource]:
    files = load_chart().render(deepcopy(dict(values)), name=name, namespace="earth")
    return [
        resource
        for path, content in files.items()
        if not path.endswith(".txt")
        for resource in yaml.safe_load_all(content)
        if resource
    ]


@pytest.fixture(params=sorted(EXAMPLES))
def resources(request: pytest.FixtureRequest) -> list[Resource]:
    return render(EXAMPLES[request.param])


def iterate_pods(resources: list[Resource]) -> Iterator[tuple[str, Resource]]:
    """Yield the name of each pod and its specification, with those inside of resources of Dask's operator."""
    for resource in resources:
        name, spec = resource["metadata"]["name"], resource.get("spec", {})
        if resource["kind"] == "DaskCluster":
            yield f"{name}-worker", spec["worker"]["spec"]
            yield f"{name}-scheduler", spec["scheduler"]["spec"]
        elif "template" in spec:
            yield name, spec["template"]["spec"]


def iterate_containers(resources: list[Resource]) -> Iterator[tuple[str, Resource]]:
    for name, pod in iterate_pods(resources):
        for container in [*pod.get("initContainers", ()), *pod["containers"]]:
            yield name, container


def list_names(resources: list[Resource], kind: str) -> set[str]:
    return {resource["metadata"]["name"] for resource in resources if resource["kind"] == kind}


@pytest.mark.parametrize("version", VERSIONS)
def test_resources_are_valid(resources: list[Resource], version: str) -> None:
    for resource in resources:
        if resource["apiVersion"] not in FOREIGN:
            kubernetes_validate.validate(resource, version, strict=True)
    for name, pod in iterate_pods(resources):
        whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod}
        kubernetes_validate.validate(whole, version, strict=True)


def test_examples_say_what_they_are() -> None:
    assert set(EXAMPLES) == {"small", "cloud", "air-gapped"}
    cloud, small, closed = (render(EXAMPLES[name]) for name in ("cloud", "small", "air-gapped"))
    assert {"DaskCluster", "DaskAutoscaler", "ScaledObject", "HorizontalPodAutoscaler"} <= {
        resource["kind"] for resource in cloud
    }
    assert not list_names(cloud, "Secret")
    assert list_names(small, "StatefulSet")
    assert not list_names(small, "Job"), "its database is not there before the release"
    assert not any("dask" in name for name, _ in iterate_pods(closed))
    images = {container["image"] for _, container in iterate_containers(closed)}
    assert images == {"registry.site.internal/eo/odc-openeo:0.3.0"}


def test_lint() -> None:
    for values in EXAMPLES.values():
        messages = helm.lint(CHART, deepcopy(values), strict=True).get("messages") or []
        problems = [m for m in messages if "icon is recommended" not in str(m)]
        assert not problems


def test_containers_have_no_privileges(resources: list[Resource]) -> None:
    for name, pod in iterate_pods(resources):
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys(), name
        assert not any("hostPath" in volume for volume in pod["volumes"]), name
    for name, container in iterate_containers(resources):
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False, name
        assert security["readOnlyRootFilesystem"] is True, name
        assert security["capabilities"] == {"drop": ["ALL"]}, name
        assert container["resources"]["limits"]["memory"], name
        assert container["resources"]["requests"]["cpu"], name


def test_user_code_gets_no_secrets(resources: list[Resource]) -> None:
    pods = {name: pod for name, pod in iterate_pods(resources) if "-udf-" in name}
    assert len(pods) == 2
    secret_words = re.compile(
        "secretKey|secretName|secretRef|database|password|serviceAccountName|configMap", re.IGNORECASE
    )
    for name, pod in pods.items():
        # The node uses the secrets of registries; the pod does not see them.
        assert not secret_words.search(yaml.safe_dump(pod | {"imagePullSecrets": None})), name
    policies = {r["metadata"]["name"]: r["spec"] for r in resources if r["kind"] == "NetworkPolicy"}
    for name in pods:
        policy = policies[name]
        assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
        for rule in policy["egress"]:
            assert rule["to"], "a rule without peers opens everything"
            assert all("ipBlock" not in peer for peer in rule["to"])


def test_secrets_are_in_secrets_only(resources: list[Resource]) -> None:
    for resource in resources:
        if resource["kind"] != "Secret":
            content = yaml.safe_dump(resource)
            assert "change-me" not in content
            assert not re.search(r"postgresql[+a-z0-9]*://", content), resource["metadata"]["name"]


def test_all_that_is_referred_to_is_there(resources: list[Resource]) -> None:
    outside = {"odc-openeo-database", "openeo-results", "imagery", "registry", "openeo-example-org"}
    claims = {
        claim["metadata"]["name"]
        for resource in resources
        for claim in resource.get("spec", {}).get("volumeClaimTemplates", ())
    }
    names = {kind: list_names(resources, kind) for kind in ("Secret", "ConfigMap", "PersistentVolumeClaim")}
    for _, pod in iterate_pods(resources):
        account = pod.get("serviceAccountName", "default")
        assert account in list_names(resources, "ServiceAccount") | {"default"}
        mounted = claims | {volume["name"] for volume in pod["volumes"]}
        for volume in pod["volumes"]:
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            config = volume.get("configMap", {}).get("name")
            assert claim is None or claim in names["PersistentVolumeClaim"] | outside
            assert config is None or config in names["ConfigMap"]
        for container in [*pod.get("initContainers", ()), *pod["containers"]]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= mounted
            for source in container.get("envFrom", ()):
                assert source.get("configMapRef", {}).get("name", "") in names["ConfigMap"] | {""}
            for variable in container.get("env", ()):
                reference = variable.get("valueFrom", {}).get("secretKeyRef", {}).get("name")
                assert reference is None or reference in names["Secret"] | outside
    labels = [
        r["spec"]["template"]["metadata"]["labels"] for r in resources if "template" in r.get("spec", {})
    ]
    for resource in resources:
        if resource["kind"] == "Service":
            selector = resource["spec"]["selector"].items()
            assert any(selector <= pod_labels.items() for pod_labels in labels), resource["metadata"]["name"]


def test_commands_and_settings_exist(resources: list[Resource]) -> None:
    for name, container in iterate_containers(resources):
        match container.get("args"):
            case ["odc-openeo", command, *_]:
                assert command in cli.commands, name
            case ["dask", "scheduler", *_] | ["datacube", "system", "init"] | None:
                pass
            case arguments:
                pytest.fail(f"{name}: {arguments}")
    variables = {variable["name"] for _, c in iterate_containers(resources) for variable in c.get("env", ())}
    settings = {key for r in resources if r["kind"] == "ConfigMap" for key in r["data"] if key.isupper()}
    ours = {name for name in variables | settings if name.startswith(PREFIX)}
    assert len(ours) > 5
    assert {name.removeprefix(PREFIX).lower() for name in ours} <= set(Config.model_fields)


def test_names_are_short_enough() -> None:
    name = "a-very-long-name-of-a-release-of-fifty-three-charact"
    for values in EXAMPLES.values():
        for resource in render(values, name):
            assert len(resource["metadata"]["name"]) <= 63, resource["metadata"]["name"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "database.url"),
        ({"dask": {"mode": "gateway"}}, "dask"),
        ({"dask": {"mode": "address"}, "database": {"url": "postgresql://u@h/d"}}, "dask.address"),
        ({"udf": {"memory": "4Gi"}}, "memory"),
        ({"replicas": 3}, "replicas"),
        ({"settings": {"PATH": "/tmp"}}, "PATH"),
        ({"settings": {"ODC_OPENEO_DATABASE_URL": ["a"]}}, "ODC_OPENEO_DATABASE_URL"),
        ({"secretKey": "short", "database": {"url": "postgresql://u@h/d"}}, "secretKey"),
        ({"postgresql": {"enabled": True}, "existingSecret": "mine"}, "existingSecret"),
        ({"ingress": {"enabled": True}, "database": {"url": "postgresql://u@h/d"}}, "ingress.host"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(helm.HelmError, match=message):
        render(values)


def test_values_in_quotes_stay_values() -> None:
    """Values cannot add keys to a document, whatever they contain."""
    values = deepcopy(EXAMPLES["small"])
    hostile = 'x"\n  evil: "1\n---\nkind: Pod # {{ .Values }}'
    values["settings"] = {"ODC_OPENEO_TITLE": hostile}
    values["files"] = {"a.yaml": hostile}
    resources = render(values)
    data = {k: v for r in resources if r["kind"] == "ConfigMap" for k, v in r["data"].items()}
    assert data["ODC_OPENEO_TITLE"] == hostile
    assert data["a.yaml"] == hostile
    assert "evil" not in data
    assert "Pod" not in {r["kind"] for r in resources}


def test_the_chart_has_the_version_of_the_project() -> None:
    metadata = load_chart().metadata
    metadata = metadata() if callable(metadata) else metadata
    assert metadata["appVersion"] == __version__


def test_the_queue_can_be_counted(database: str) -> None:
    (scaled,) = [r for r in render(EXAMPLES["cloud"]) if r["kind"] == "ScaledObject"]
    (trigger,) = scaled["spec"]["triggers"]
    engine = create_engine(database)
    with engine.connect() as connection:
        assert connection.execute(text(trigger["metadata"]["query"])).scalar() == 0
    engine.dispose()
