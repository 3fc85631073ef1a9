"""examples/deployment/: what schemas can say of it, and that what it names is there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer.main
import yaml
from helpers.deployment import (
    DEPLOYMENT,
    ROOT,
    commands,
    compose,
    documents,
    instructions,
    manifest,
    manifests,
    unit,
)

from moderntensor._version import VERSION
from moderntensor.api.service_routes import ROUTES
from moderntensor.cli.app import app
from moderntensor.errors import ConfigError
from moderntensor.network.addresses import parse_address, parse_node_address
from moderntensor.network.identity import NodeIdentity

CALLS = list(commands())
PATHS = {route.path for route in ROUTES}


def options(arguments: list[str]) -> dict[str, Any]:
    """What the real command makes of these arguments."""
    group: Any = typer.main.get_command(app)
    context = group.make_context("moderntensor", [], resilient_parsing=True)
    rest = list(arguments)
    command = group
    while hasattr(command, "get_command"):
        command = command.get_command(context, rest.pop(0))
        assert command is not None, arguments
    made = command.make_context("moderntensor", rest)
    return dict(made.params)


@pytest.mark.parametrize(("place", "arguments"), CALLS, ids=[place for place, _ in CALLS])
def test_the_command_takes_every_call(place: str, arguments: list[str]) -> None:
    made = options(arguments)
    if arguments[0] == "node":
        parse_address(made["listen"])
        host, port = parse_address(made["http"])
        assert port == 8645
        # Off loopback only where something has to reach it from another container.
        reached = place.startswith(("compose", "kubernetes"))
        assert host == ("0.0.0.0" if reached else "127.0.0.1")  # noqa: S104
        for peer in made["peer"] or ():
            parse_node_address(peer)


def test_there_are_calls_everywhere() -> None:
    assert [place for place, _ in CALLS] == [
        "Dockerfile",
        "compose genesis",
        "compose node1",
        "compose node2",
        "compose node3",
        "kubernetes",
        "moderntensor.service",
        "validator.conf",
    ]


def test_a_wrong_option_would_be_noticed() -> None:
    with pytest.raises(Exception, match="no-such-option"):
        options(["node", "--data", "x", "--genesis", "y", "--no-such-option"])


# --- Dockerfile -----------------------------------------------------------------------------


def test_the_image_is_small_and_nobodys() -> None:
    lines = instructions(DEPLOYMENT / "Dockerfile")
    stages = [number for number, (word, _) in enumerate(lines) if word == "FROM"]
    assert len(stages) == 2
    last = dict(lines[stages[-1] :])
    assert "gcc" not in json.dumps(lines[stages[-1] :])
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last["USER"])
    assert last["STOPSIGNAL"] == "SIGTERM"
    assert yaml.safe_load(last["ENTRYPOINT"]) == ["moderntensor"]
    for word, rest in lines:
        assert word != "ADD"
        if "pip" in rest and word == "RUN" and "install --" in rest:
            assert "--no-cache-dir" in rest or "apt-get" in rest
    assert {"30303", "8645"} == set(last["EXPOSE"].split())


def test_the_health_check_asks_a_path_that_exists() -> None:
    (rest,) = (
        rest for word, rest in instructions(DEPLOYMENT / "Dockerfile") if word == "HEALTHCHECK"
    )
    check = yaml.safe_load(rest.partition("CMD ")[2])
    assert check[:2] == ["python", "-c"]
    compile(check[2], "HEALTHCHECK", "exec")
    (path,) = re.findall(r"http://127\.0\.0\.1:8645(/[a-z]+)'", check[2])
    assert path in PATHS


def test_the_image_gets_what_the_wheel_is_built_from() -> None:
    lines = (DEPLOYMENT / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    assert all((ROOT / name).exists() for name in kept)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {"pyproject.toml", "setup.py", "MANIFEST.in", "ext", "moderntensor"}
    assert {project["readme"], *project["license-files"], *needed} <= kept


# --- Compose --------------------------------------------------------------------------------


def follows(schema: str, path: Path) -> None:
    """It is as one of the schemas that check-jsonschema brings along says."""
    result = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.long
def test_compose_follows_its_specification() -> None:
    follows("vendor.compose-spec", DEPLOYMENT / "compose.yaml")


def test_the_nodes_of_compose_are_three_that_know_each_other() -> None:
    services = compose()["services"]
    nodes = [name for name in services if name.startswith("node")]
    keys = set()
    for name in nodes:
        arguments = dict(CALLS)[f"compose {name}"]
        made = options(arguments)
        assert sorted(made["peer"]) == [f"{n}:30303" for n in nodes if n != name]
        assert made["http_allow_host"] == [name]  # Prometheus asks for it by that name
        keys.add(str(made["validator_key"]))
        assert services[name]["read_only"] is True
        assert services[name]["stop_grace_period"] == "20s"
    assert len(keys) == len(nodes) == 3
    published = [port for each in services.values() for port in each.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_what_compose_mounts_is_there() -> None:
    whole = compose()
    for service in whole["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            if source.startswith("."):
                assert (DEPLOYMENT / source).exists(), source
            else:
                assert source in whole["volumes"]
        for each in service.get("configs", ()):
            assert each["source"] in whole["configs"]


def test_prometheus_of_compose_asks_the_nodes() -> None:
    configs = compose()["configs"]
    prometheus = yaml.safe_load(configs["prometheus"]["content"])
    (ours,) = documents(DEPLOYMENT / "prometheus" / "prometheus.yml")
    (job,) = prometheus["scrape_configs"]
    assert job["job_name"] == ours["scrape_configs"][0]["job_name"]  # the alert rules name it
    assert job["metrics_path"] in PATHS
    assert job["static_configs"] == [{"targets": [f"node{n}:8645" for n in (1, 2, 3)]}]
    assert prometheus["rule_files"] == ["alerts.yml"]
    folder = yaml.safe_load(configs["dashboards"]["content"])["providers"][0]["options"]["path"]
    home = compose()["services"]["grafana"]["environment"][
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"
    ]
    assert Path(home).parent == Path(folder)
    assert (DEPLOYMENT / "grafana" / Path(home).name).exists()


# --- Kubernetes -----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")  # of the schemas' age, by the validator
@pytest.mark.parametrize("version", ["1.32", kubernetes_validate.latest_version()])
def test_manifests_follow_the_schemas_of_kubernetes(version: str) -> None:
    for document in manifests():
        if document["apiVersion"].startswith("monitoring.coreos.com/"):
            continue  # a resource of the Prometheus operator
        kubernetes_validate.validate(document, version, strict=True)


def test_the_validator_of_manifests_can_say_no() -> None:
    broken = manifest("StatefulSet")
    broken["spec"]["replcas"] = 3
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, "1.32", strict=True)


def test_probes_and_ports_are_those_of_the_node() -> None:
    pod = manifest("StatefulSet")["spec"]["template"]["spec"]
    (node,) = pod["containers"]
    ports = {each["name"]: each["containerPort"] for each in node["ports"]}
    made = options(node["args"])
    assert parse_address(made["listen"])[1] == ports["p2p"]
    assert parse_address(made["http"])[1] == ports["http"]
    probes = [node[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
    assert {probe["path"] for probe in probes} == {"/healthz", "/readyz"} <= PATHS
    assert {probe["port"] for probe in probes} == {"http"}
    for kind, name in (("Service", "moderntensor-peers"), ("Service", "moderntensor")):
        for port in manifest(kind, name)["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"]


def test_nodes_can_find_each_other_before_they_are_ready() -> None:
    """Otherwise a StatefulSet of nodes that need a peer to be ready never gets there."""
    spec = manifest("StatefulSet")["spec"]
    service = manifest("Service", spec["serviceName"])["spec"]
    assert service["clusterIP"] == "None"
    assert service["publishNotReadyAddresses"] is True
    assert spec["podManagementPolicy"] == "Parallel"
    peers = options(spec["template"]["spec"]["containers"][0]["args"])["peer"]
    assert peers == [f"moderntensor-{n}.{spec['serviceName']}:30303" for n in range(3)]
    assert spec["replicas"] == len(peers)


def test_pods_may_do_no_more_than_they_need() -> None:
    pod = manifest("StatefulSet")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    user = dict(instructions(DEPLOYMENT / "Dockerfile"))["USER"]
    assert user == f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}"
    assert pod["automountServiceAccountToken"] is False
    assert pod["terminationGracePeriodSeconds"] > 10
    for container in (*pod["initContainers"], *pod["containers"]):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["image"] == f"moderntensor:{VERSION}"
        mounted = {each["name"] for each in container["volumeMounts"]}
        assert mounted <= {each["name"] for each in pod["volumes"]} | {"data"}
    labels = manifest("StatefulSet")["spec"]["selector"]
    assert manifest("PodDisruptionBudget")["spec"]["selector"] == labels
    assert manifest("NetworkPolicy")["spec"]["podSelector"] == labels


def test_a_pod_takes_back_what_its_volume_gave_to_the_group(tmp_path: Path) -> None:
    """As the kubelet does with `fsGroup`; the node would refuse to start."""
    pod = manifest("StatefulSet")["spec"]["template"]["spec"]
    (step,) = (each for each in pod["initContainers"] if each["name"] == "private")
    (node,) = pod["containers"]
    data = str(options(node["args"])["data"])
    assert {"name": "data", "mountPath": data} in step["volumeMounts"]
    key = tmp_path / "node.key"
    ours = NodeIdentity.load(key)
    (tmp_path / "chain").mkdir()
    for path in tmp_path.iterdir():
        path.chmod(path.stat().st_mode | 0o060)
    with pytest.raises(ConfigError, match="readable by others"):
        NodeIdentity.load(key)
    command = [str(tmp_path) if part == data else part for part in step["command"] + step["args"]]
    for _ in range(2):  # also where there is nothing to do
        subprocess.run(command, check=True)
    assert NodeIdentity.load(key).node_id == ours.node_id
    assert (tmp_path / "chain").stat().st_mode & 0o070


def test_the_service_of_the_api_may_be_called_by_all_of_its_names() -> None:
    name = manifest("Service")["metadata"]["name"]
    namespace = manifest("Namespace")["metadata"]["name"]
    (node,) = manifest("StatefulSet")["spec"]["template"]["spec"]["containers"]
    within = f"{name}.{namespace}"
    names = [name, within, f"{within}.svc", f"{within}.svc.cluster.local"]
    assert options(node["args"])["http_allow_host"] == names


def test_a_drain_does_not_wait_for_pods_that_are_not_ready() -> None:
    """They may not become ready before the drain is over."""
    budget = manifest("PodDisruptionBudget")["spec"]
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert budget["maxUnavailable"] == 1


def test_a_chain_has_time_to_open() -> None:
    (node,) = manifest("StatefulSet")["spec"]["template"]["spec"]["containers"]
    probe = node["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 3600


@pytest.mark.long
@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_makes_of_it_what_refers_to_each_other(tmp_path: Path) -> None:
    shutil.copytree(DEPLOYMENT / "kubernetes", tmp_path, dirs_exist_ok=True)
    (kustomization,) = documents(tmp_path / "kustomization.yaml")
    sources = [
        file.rpartition("=")[2]
        for kind in ("configMapGenerator", "secretGenerator")
        for each in kustomization[kind]
        for file in each["files"]
    ]
    for source in sources:
        (tmp_path / source).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / source).write_text("x")
    result = subprocess.run(
        ["kubectl", "kustomize", tmp_path],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    made = [each for each in yaml.safe_load_all(result.stdout) if each]
    names = {(each["kind"], each["metadata"]["name"]) for each in made}
    (pod,) = (each["spec"]["template"]["spec"] for each in made if each["kind"] == "StatefulSet")
    for volume in pod["volumes"]:
        if "configMap" in volume:
            assert ("ConfigMap", volume["configMap"]["name"]) in names
        if "secret" in volume:
            assert ("Secret", volume["secret"]["secretName"]) in names
    assert {each["metadata"].get("namespace") for each in made if each["kind"] != "Namespace"} == {
        "moderntensor"
    }


def test_kustomize_knows_every_manifest() -> None:
    path = DEPLOYMENT / "kubernetes" / "kustomization.yaml"
    (kustomization,) = documents(path)
    there = {each.name for each in path.parent.glob("*.yaml")}
    assert {*kustomization["resources"], path.name, "service-monitor.yaml"} == there
    made = {
        each["name"]
        for kind in ("configMapGenerator", "secretGenerator")
        for each in kustomization[kind]
    }
    volumes = manifest("StatefulSet")["spec"]["template"]["spec"]["volumes"]
    named = {
        v[k][n]
        for v in volumes
        for k, n in (("configMap", "name"), ("secret", "secretName"))
        if k in v
    }
    assert named == made


# --- systemd --------------------------------------------------------------------------------


def test_the_unit_ends_the_node_as_it_wants_to_be_ended() -> None:
    settings = unit(DEPLOYMENT / "systemd" / "moderntensor.service")
    assert settings["KillSignal"] == ["SIGTERM"]
    assert int(settings["TimeoutStopSec"][0]) > 10
    assert settings["DynamicUser"] == settings["NoNewPrivileges"] == ["yes"]
    assert settings["ProtectSystem"] == ["strict"]
    assert settings["StateDirectory"] == ["moderntensor"]
    assert "MemoryDenyWriteExecute" not in settings  # cffi's callbacks need such a page
    for place in ("moderntensor.service", "validator.conf"):
        assert str(options(dict(CALLS)[place])["data"]) == "${STATE_DIRECTORY}"
