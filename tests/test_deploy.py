"""The image and the chart: read here, rendered by Helm's own library, checked against Kubernetes' schemas."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from purify_plugins.configuration.config import check_config

ROOT = Path(__file__).parent.parent
CHART = ROOT / "deploy" / "helm" / "purify"
EXAMPLES = sorted((ROOT / "deploy" / "examples").glob("*.yaml"))
VALUES = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
EVERYTHING = {
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "autoscaling": {"queue": 4},
    "secret": {"gatewayKey": "key", "upstreamKey": "up", "purifySecret": "s" * 64},
    "gateway": {"workers": 2, "modelId": "a name: of two words", "requireGuarantee": True, "drain": 60},
    "networkPolicy": {"from": [{"namespaceSelector": {}}]},
    "models": {"volume": {"hostPath": {"path": "/srv/models"}}},
    "image": {"pullSecrets": [{"name": "registry"}], "tag": "x"},
    "serviceAccount": {"annotations": {"a": "b"}},
    "podAnnotations": {"a": "b"},
    "podLabels": {"c": "d"},
    "nodeSelector": {"a": "b"},
    "tolerations": [{"key": "a", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
}
"""Values that take every branch of the templates but the ones of the defaults."""
MONITOR = {
    "type": "object",
    "additionalProperties": False,
    "required": ["selector", "endpoints"],
    "properties": {
        "selector": {"type": "object", "required": ["matchLabels"]},
        "endpoints": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "properties": {name: {"type": "string"} for name in ("port", "path", "interval")},
            },
        },
    },
}
"""A ServiceMonitor's fields that the chart uses, by the Prometheus operator's API reference."""


# The image


def test_the_image_runs_as_a_number_that_is_not_root_and_copies_what_is_there() -> None:
    user = re.findall(r"^USER (\d+)", DOCKERFILE, re.M)
    assert user
    assert int(user[-1]) > 0
    sources = [
        name for line in re.findall(r"^COPY (?!--from)(.+)", DOCKERFILE, re.M) for name in line.split()[:-1]
    ]
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert let_in == set(sources)
    assert all((ROOT / name).exists() for name in sources)


def test_the_image_has_the_torch_that_is_tested() -> None:
    [pinned] = re.findall(r"^torch==(\S+)", (ROOT / "constraints.txt").read_text(), re.M)
    assert re.findall(r"torch==(\S+)", DOCKERFILE) == [pinned]


@pytest.mark.slow
def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    if not (hadolint := shutil.which("hadolint")):
        pytest.skip("hadolint is not installed: pip install -c constraints.txt -e '.[all,test,deploy]'")
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


# The chart, as it is written


def test_the_chart_is_of_this_version_and_its_schema_knows_every_value() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert {chart["version"], chart["appVersion"]} == {VERSION}
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    assert set(schema["properties"]) == {*VALUES, "global"}
    for name, value in VALUES.items():
        known = schema["properties"][name].get("properties")
        assert known is None or set(known) == set(value), name


@pytest.mark.parametrize("file", [CHART / "values.yaml", *EXAMPLES], ids=lambda file: file.stem)
def test_the_configurations_of_the_chart_and_of_its_examples_are_right(file: Path) -> None:
    config = check_config(tomllib.loads(yaml.safe_load(file.read_text("utf-8"))["config"]))
    port = int(re.search(r":(\d+)$", config.llm["url"])[1])  # type: ignore[index]  # each names one
    assert port in yaml.safe_load(file.read_text("utf-8"))["networkPolicy"]["upstreamPorts"]


# The chart, rendered


@pytest.fixture(scope="module")
def chart() -> Iterator[Any]:
    pytest.importorskip(
        "helm_python",
        reason="Helm's library is not installed: pip install -c constraints.txt -e '.[all,test,deploy]'",
    )
    import helm_python

    with helm_python.Chart.load(str(CHART)) as found:
        yield found


def rendered(chart: Any, values: Any = None, name: str = "demo") -> dict[str, Any]:
    """The manifests by kind."""
    texts = chart.render(values or {}, name=name, namespace="prod")
    found = [yaml.safe_load(text) for file, text in texts.items() if file.endswith(".yaml")]
    return {each["kind"]: each for each in found if each}


def overriding(values: Any, path: str, value: Any) -> Any:
    name, _, rest = path.partition(".")
    return {**values, name: overriding(values.get(name, {}), rest, value) if rest else value}


CASES = {"defaults": {}, "everything": EVERYTHING}
CASES |= {file.stem: yaml.safe_load(file.read_text("utf-8")) for file in EXAMPLES}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("release", ["1.27", "1.31", "1.34", "1.37"])
def test_every_manifest_is_what_kubernetes_schemas_ask(chart: Any, case: str, release: str) -> None:
    """Strictly: a field that no schema knows is an error."""
    import jsonschema
    import kubernetes_validate

    chart.validate_schema(CASES[case])
    manifests = rendered(chart, CASES[case])
    if monitor := manifests.pop("ServiceMonitor", None):
        jsonschema.validate(monitor["spec"], MONITOR)
    assert set(manifests) >= {"Deployment", "Service", "ConfigMap", "ServiceAccount", "NetworkPolicy"}
    for manifest in manifests.values():
        kubernetes_validate.validate(manifest, release, strict=True)


@pytest.mark.slow
def test_a_wrong_field_would_be_seen(chart: Any) -> None:
    import kubernetes_validate

    manifest = rendered(chart)["Deployment"]
    manifest["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, "1.37", strict=True)


@pytest.mark.slow
def test_helm_s_linter_finds_nothing_but_the_missing_icon(chart: Any) -> None:
    import helm_python

    told = helm_python.lint(str(CHART))
    assert told["errors"] == []
    assert [each["error"] for each in told["messages"]] == ["icon is recommended"]


@pytest.mark.slow
def test_pods_are_as_locked_as_the_restricted_standard_asks(chart: Any) -> None:
    pod = rendered(chart)["Deployment"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert str(pod["securityContext"]["runAsUser"]) in DOCKERFILE
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    writable = {each["name"] for each in container["volumeMounts"] if not each.get("readOnly")}
    assert writable == {"scratch"}


@pytest.mark.slow
def test_what_is_joined_by_a_name_is(chart: Any) -> None:
    """Selectors, references, ports: none is checked by a schema."""
    found = rendered(chart, EVERYTHING)
    template = found["Deployment"]["spec"]["template"]
    labels = template["metadata"]["labels"].items()
    selectors = [
        found["Deployment"]["spec"]["selector"]["matchLabels"],
        found["Service"]["spec"]["selector"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ]
    assert all(selector.items() <= labels for selector in selectors)
    wanted = found["ServiceMonitor"]["spec"]["selector"]["matchLabels"].items()
    assert wanted <= found["Service"]["metadata"]["labels"].items()
    names = {kind: found[kind]["metadata"]["name"] for kind in found}
    assert found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == names["Deployment"]
    pod = template["spec"]
    [container] = pod["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": names["Secret"]}}]
    assert pod["volumes"][0]["configMap"]["name"] == names["ConfigMap"]
    assert pod["serviceAccountName"] == names["ServiceAccount"]
    [port] = container["ports"]
    assert found["Service"]["spec"]["ports"][0]["targetPort"] == port["name"]
    assert found["NetworkPolicy"]["spec"]["ingress"][0]["ports"][0]["port"] == port["containerPort"]
    assert f"--port={port['containerPort']}" in container["args"]


@pytest.mark.slow
def test_probes_ask_routes_that_there_are_and_options_are_those_of_purify_serve(chart: Any) -> None:
    import inspect

    from purify_adapters.gateway.app import GET
    from purify_plugins.cli.serve import serve

    [container] = rendered(chart, EVERYTHING)["Deployment"]["spec"]["template"]["spec"]["containers"]
    asked = {
        name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")
    }
    assert asked == {"startup": "/health", "liveness": "/health", "readiness": "/ready"}
    assert set(asked.values()) <= GET.keys()
    known = set(inspect.signature(serve).parameters)
    options = [each.partition("=")[0][2:].replace("-", "_") for each in container["args"][1:]]
    assert set(options) <= known
    assert len(options) == len(set(options))
    assert "--model-id=a name: of two words" in container["args"]


@pytest.mark.slow
def test_another_configuration_rolls_the_pods_and_secrets_stand_in_the_secret_alone(chart: Any) -> None:
    one, other = rendered(chart, EVERYTHING), rendered(chart, {**EVERYTHING, "config": "[slm]\nmodel = 'x'"})
    digests = [
        each["Deployment"]["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
        for each in (one, other)
    ]
    assert digests[0] != digests[1]
    held = {name: base64.b64decode(value).decode() for name, value in one["Secret"]["data"].items()}
    assert held == {"GATEWAY_KEY": "key", "UPSTREAM_KEY": "up", "PURIFY_SECRET": "s" * 64}
    others = json.dumps({kind: each for kind, each in one.items() if kind != "Secret"})
    assert "s" * 64 not in others
    drawn = base64.b64decode(rendered(chart)["Secret"]["data"]["PURIFY_SECRET"])
    assert len(drawn) == 64
    assert "Secret" not in rendered(chart, {"secret": {"existing": "mine"}})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("replica", 3, "replica"),
        ("gateway.workers", 0, "workers"),
        ("config", "[llm]", "config"),
        ("secret.purifySecret", "short", "purifySecret"),
        ("autoscaling.cpu", 0, "cpu"),
        ("networkPolicy.upstreamPorts", [], "upstreamPorts"),
        ("models.volume", {"hostPath": {}, "nfs": {}}, "volume"),
        ("serviceMonitor.interval", "often", "interval"),
        ("image.pullPolicy", "Sometimes", "pullPolicy"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(chart: Any, path: str, value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        chart.validate_schema(overriding({}, path, value))


@pytest.mark.slow
def test_fewer_replicas_at_most_than_at_least_are_refused_and_long_names_are_cut(chart: Any) -> None:
    with pytest.raises(Exception, match="less than autoscaling"):
        rendered(chart, {"autoscaling": {"minReplicas": 9}})
    assert len(rendered(chart, name="r" * 53)["Deployment"]["metadata"]["name"]) <= 63
