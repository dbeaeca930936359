"""The files of ops/deploy: what can be checked of them without an engine."""

import contextlib
import json
import re
import shutil
import subprocess
import time
import tomllib
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml

from cloud_node import CloudConfig
from cloud_node.call import CLOUD
from edge_node import EdgeConfig
from edge_node.metrics import EDGE
from kvwire.identity import Identity, PeerRole
from kvwire.telemetry import Meter, TelemetryConfig, telling
from ops.demo.stage import free_port

DEPLOY = Path(__file__).parents[2] / "ops" / "deploy"
MANIFESTS = DEPLOY / "kubernetes"
OPERATORS = DEPLOY / "operators"


def manifests() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for path in sorted((*MANIFESTS.glob("*.yaml"), *OPERATORS.glob("*.yaml"))):
        found += [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one]
    return found


def test_the_clouds_configuration_is_one_that_a_node_takes() -> None:
    config = CloudConfig.load(MANIFESTS / "cloud.toml")
    assert config.listen == "0.0.0.0:7443"
    (pod,) = (one for one in manifests() if one["kind"] == "StatefulSet")
    (container,) = pod["spec"]["template"]["spec"]["containers"]
    mounts = {mount["mountPath"]: mount.get("readOnly") for mount in container["volumeMounts"]}
    assert mounts["/etc/kvwire/tls"] and "/var/lib/kvwire" in mounts
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": 7443, "telemetry": 9464} and config.telemetry.listen == "0.0.0.0:9464"
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["httpGet"] == {"path": "/healthz", "port": "telemetry"}


def test_the_edges_configuration_in_a_container_is_one_that_a_node_takes(tmp_path: Path) -> None:
    page = (DEPLOY.parents[1] / "docs" / "deploy.md").read_text(encoding="utf-8")
    tables = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    files = '[tls]\ncertificate = "a"\nkey = "b"\nauthority = "c"\n[receiver]\nmodel = "m"\nbundle = "b"\n'
    for number, table in enumerate(tables):
        path = tmp_path / f"{number}.toml"
        path.write_text(files + table, encoding="utf-8")
        EdgeConfig.load(path)
    assert len(tables) == 2 and tomllib.loads(tables[0])["api"]["listen"] == "0.0.0.0:7480"


def test_telemetry_is_for_the_namespace_alone() -> None:
    (policy,) = (one for one in manifests() if one["kind"] == "NetworkPolicy")
    open_to_all, inside = policy["spec"]["ingress"]
    assert "from" not in open_to_all and [port["port"] for port in open_to_all["ports"]] == [7443]
    assert inside["from"] == [{"podSelector": {}}] and [port["port"] for port in inside["ports"]] == [9464]
    (service,) = (one for one in manifests() if one["kind"] == "Service")
    assert [port["port"] for port in service["spec"]["ports"]] == [7443]


def test_every_manifest_has_what_its_kind_needs_and_nothing_runs_as_root() -> None:
    kinds = [one["kind"] for one in manifests()]
    assert kinds.count("StatefulSet") == kinds.count("Service") == kinds.count("NetworkPolicy") == 1
    for one in manifests():
        assert one["apiVersion"] and (one["kind"] == "Kustomization" or one["metadata"]["name"])
        if one["kind"] == "StatefulSet":
            spec = one["spec"]["template"]["spec"]
            assert spec["securityContext"]["runAsNonRoot"] is True
            for container in spec["containers"]:
                assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
                assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_the_one_pod_is_not_evicted_while_it_serves() -> None:
    (budget,) = (one["spec"] for one in manifests() if one["kind"] == "PodDisruptionBudget")
    (pods,) = (one["spec"] for one in manifests() if one["kind"] == "StatefulSet")
    assert budget["selector"]["matchLabels"] == pods["template"]["metadata"]["labels"]
    assert budget["minAvailable"] == pods["replicas"] == 1
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl here")
@pytest.mark.parametrize(("folder", "more"), [(MANIFESTS, set()), (OPERATORS, {"Certificate", "PodMonitor"})])
def test_kustomize_renders_the_manifests(folder: Path, more: set[str]) -> None:
    run = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    rendered = list(yaml.safe_load_all(run.stdout))
    assert {one["kind"] for one in rendered} >= {
        "ConfigMap",
        "StatefulSet",
        "Service",
        "NetworkPolicy",
        "PodDisruptionBudget",
    } | more
    assert {one["metadata"].get("namespace", "kvwire") for one in rendered} == {"kvwire"}


def test_the_certificate_of_cert_manager_is_one_that_edges_know() -> None:
    (certificate,) = (one for one in manifests() if one["kind"] == "Certificate")
    (pod,) = (one for one in manifests() if one["kind"] == "StatefulSet")
    secrets = [
        volume["secret"] for volume in pod["spec"]["template"]["spec"]["volumes"] if "secret" in volume
    ]
    assert [secret["secretName"] for secret in secrets] == [certificate["spec"]["secretName"]]
    assert Identity.parse(certificate["spec"]["uris"][0]).role is PeerRole.CLOUD


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="no Prometheus here")
def test_prometheus_scrapes_both_nodes_and_answers_every_panel_and_alert(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        told = []
        for metrics in (CLOUD, EDGE):
            meter = Meter(metrics, {name: ("one",) for metric in metrics for name in metric.labels})
            for metric in metrics:
                if metric.kind == "gauge":
                    meter.read(metric.name, lambda: 0.0)
            told.append(
                stack.enter_context(telling(TelemetryConfig("127.0.0.1:0"), meter, lambda: (True, {})))
            )
        config = {
            "global": {"scrape_interval": "200ms", "evaluation_interval": "200ms"},
            "rule_files": [str(DEPLOY / "alerts.yaml")],
            "scrape_configs": [{"job_name": "kvwire", "static_configs": [{"targets": told}]}],
        }
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
        address = f"127.0.0.1:{free_port()}"
        options = {
            "config.file": tmp_path / "prometheus.yml",
            "storage.tsdb.path": tmp_path / "data",
            "web.listen-address": address,
        }
        log = stack.enter_context((tmp_path / "log").open("wb"))
        process = subprocess.Popen(
            ["prometheus", *(f"--{name}={value}" for name, value in options.items())],
            stdout=log,
            stderr=log,
        )
        stack.callback(process.wait)
        stack.callback(process.kill)

        def asked(path: str, **values: str) -> Any:
            with urllib.request.urlopen(
                f"http://{address}/api/v1/{path}?{urlencode(values)}", timeout=10
            ) as page:
                return json.load(page)["data"]

        def rules() -> list[dict[str, Any]]:
            return [rule for group in asked("rules")["groups"] for rule in group["rules"]]

        due = {"KvwireCloudNotServing", "KvwireAuditNotWritable", "KvwireReplicasDown"}
        end = time.monotonic() + 60
        while True:
            assert process.poll() is None and time.monotonic() < end, (tmp_path / "log").read_text()
            with contextlib.suppress(OSError):
                up = [target["health"] == "up" for target in asked("targets")["activeTargets"]]
                pending = {rule["name"] for rule in rules() if rule["state"] == "pending"}
                if due <= pending and up == [True, True]:
                    break
            time.sleep(0.1)
        assert {rule["health"] for rule in rules()} == {"ok"} and len(rules()) > 10
        board = json.loads((DEPLOY / "grafana.json").read_text(encoding="utf-8"))
        for panel in board["panels"]:
            for target in panel["targets"]:
                asked("query", query=target["expr"].replace("$__rate_interval", "1m"))
        assert len(asked("query", query="kvwire_cloud_serving")["result"]) == 1


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
@pytest.mark.parametrize("node", ["cloud", "edge"])
def test_systemd_takes_the_units(node: str, tmp_path: Path) -> None:
    unit = (DEPLOY / "systemd" / f"kvwire-{node}.service").read_text(encoding="utf-8")
    path = tmp_path / f"kvwire-{node}.service"
    path.write_text(unit.replace("/opt/kvwire/bin/kvwire", "/bin/true"), encoding="utf-8")
    run = subprocess.run(
        ["systemd-analyze", "verify", str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0 and not run.stderr, run.stderr


def test_the_images_run_as_nobody_in_particular_from_pinned_versions() -> None:
    lines = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").splitlines()
    stages = [line.split(" AS ")[1] for line in lines if line.startswith("FROM")]
    assert stages == ["wheel", "base", "cloud", "edge"]
    assert all(re.search(r":\d+\.\d+\.\d+", line) for line in lines if line.startswith("FROM python"))
    assert lines.count("USER kvwire") == 2
    assert sum("-c /constraints.txt" in line for line in lines) == 2
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]
    for name, service in services.items():
        assert service["build"]["target"] == name
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert services["edge"]["ports"] == ["127.0.0.1:7480:7480"]
