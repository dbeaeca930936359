"""A cloud node from start to end, as a process."""

import json
import re
import signal
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cloud_node.audit_chain import verify
from cloud_node.config import CloudConfig
from cloud_node.documents import Documents
from fuser import StoredText
from kvwire.errors import Draining, Unreachable
from kvwire.segment import SliceKind
from kvwire.serde import share_request_to_proto
from kvwire.v1.sharer_pb2_grpc import SharerServiceStub
from ops.certs import Certificates
from ops.chaos.stage import REPLICA, member_of, send
from ops.node_check import _telemetry
from tests.cloud_fixture import start_cloud, write_config
from tests.process import python

QUESTION = "Who keeps the spare key?"


def told(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_sigterm_drains_and_exits_with_0(
    tmp_path: Path, tiny_sharer: Path, tiny_bundle: Path, certificates: Certificates
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        telemetry = f"127.0.0.1:{free.getsockname()[1]}"
    settings = {"telemetry": {"listen": telemetry, "logs": "json"}}
    cloud = start_cloud(tmp_path / "cloud", tiny_sharer, tiny_bundle, certificates, settings)
    try:
        assert told(telemetry, "/healthz") == (200, '{"status": "SERVING"}')
        assert "kvwire_cloud_replicas_up 1.0" in told(telemetry, "/metrics")[1]
        with cloud.channel() as channel:
            health = health_pb2_grpc.HealthStub(channel)
            watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=60)
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
            stub = SharerServiceStub(channel)  # type: ignore[no-untyped-call]
            request = cloud.request("slow", QUESTION, kind=SliceKind.SHARED)
            slow = stub.Share(share_request_to_proto(request), timeout=60)
            next(slow)  # the header: the prefill is under way
            cloud.process.terminate()
            assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert told(telemetry, "/healthz")[0] == 503
            with pytest.raises(Draining):
                cloud.share(cloud.request("note-1", QUESTION))
            assert [part.WhichOneof("part") for part in slow][-1] == "trailer"
        start = time.monotonic()
        assert cloud.process.wait(60) == 0
        assert time.monotonic() - start < 30
        with pytest.raises(Unreachable):
            cloud.share(cloud.request("note-1", QUESTION))
    finally:
        cloud.stop()
    decisions = [line["decision"] for line in cloud.audit() if line["method"] == "Share"]
    assert decisions == ["SENDING", "DRAINING", "SERVED"]
    assert verify(cloud.directory / "audit.jsonl").records == 4
    log = (cloud.directory / "cloud.log").read_text()
    assert "Traceback" not in log and "tide into the record" not in log
    calls = [
        line for text in log.splitlines() if text[0] == "{" and (line := json.loads(text))["event"] == "call"
    ]
    assert [line["reason"] for line in calls if line["method"] == "Share"] == ["DRAINING", "SERVED"]
    assert re.search(r"loading the Sharer.*loaded the Sharer in \d+ s", log, re.DOTALL)
    assert re.search(r"the Sharer tiny-sharer computes on cpu \(\d+ threads\) in (float32|bfloat16)", log)


@pytest.mark.parametrize("module", [("cloud_node",), ("ops.cli", "cloud")])
def test_a_wrong_configuration_is_named_and_exits_with_2(tmp_path: Path, module: tuple[str, ...]) -> None:
    (tmp_path / "cloud.toml").write_text("listn = 'x'\n")
    done = python("-m", *module, "--config", str(tmp_path / "cloud.toml"))
    assert done.returncode == 2
    assert "listn" in done.stderr and "Traceback" not in done.stderr


def test_a_bundle_for_another_sharer_is_named_before_ray_starts(
    tmp_path: Path, tiny_receiver: Path, tiny_bundle: Path, certificates: Certificates
) -> None:
    config = write_config(tmp_path, tiny_receiver, tiny_bundle, certificates)
    done = python("-m", "cloud_node", "--config", str(config))
    assert done.returncode == 1
    assert "Sharer of bundle" in done.stderr and "tiny-receiver" in done.stderr
    assert "Traceback" not in done.stderr


HANGS = """
import runpy, sys, threading, time
from cloud_node import CloudConfig, node, ray_replicas

class Replicas:
    def __init__(self, config): pass
    async def start(self):
        threading.Thread(target=time.sleep, args=(600,), daemon=sys.argv[1] == "embedded").start()
        raise RuntimeError("Ray hangs")
    async def stop(self): pass

ray_replicas.RayReplicas, node._check_pair = Replicas, lambda config: None
module, *rest = sys.argv[1:]
if module != "embedded":
    sys.argv = ["", *rest]
    runpy.run_module(module, run_name="__main__")
try:
    node.run(CloudConfig.load(rest[-1]))
except RuntimeError:
    sys.exit(7)
"""


@pytest.mark.parametrize(
    ("module", "status"), [(("cloud_node",), 1), (("ops.cli", "cloud"), 1), (("embedded",), 7)]
)
def test_a_command_ends_whatever_hangs_and_a_program_around_a_node_keeps_its_own_status(
    tmp_path: Path,
    tiny_sharer: Path,
    tiny_bundle: Path,
    certificates: Certificates,
    module: tuple[str, ...],
    status: int,
) -> None:
    config = write_config(tmp_path, tiny_sharer, tiny_bundle, certificates)
    done = python("-c", HANGS, *module, "--config", str(config))
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert module == ("embedded",) or done.stderr.splitlines()[-1].endswith("Ray hangs")


def test_a_document_that_is_added_while_the_cloud_runs_is_read_before_its_first_question(
    tmp_path: Path, tiny_sharer: Path, tiny_bundle: Path, certificates: Certificates
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        telemetry = f"127.0.0.1:{free.getsockname()[1]}"
    folder = tmp_path / "cloud"
    settings = {"telemetry": {"listen": telemetry}, "sharer": {"prefix_store": "kept"}}
    cloud = start_cloud(folder, tiny_sharer, tiny_bundle, certificates, settings)
    try:
        config = CloudConfig.load(folder / "cloud.toml")
        documents = Documents(config.documents, config.prefix_files)
        new = documents.add("acme", "new", "The bell rings twice before the tide.")
        assert config.prefix_files is not None
        text = StoredText("acme", "new", new.version)
        its = config.prefix_files.path("*", text, "*").relative_to(config.prefix_files.root)
        end = time.monotonic() + 120
        while not list(config.prefix_files.root.glob(str(its))):
            assert time.monotonic() < end
            time.sleep(0.1)
        for kind in (SliceKind.EXCERPT, SliceKind.DRAFT):  # a layer of a long document may come first
            cloud.share(cloud.request("new", QUESTION, kind=kind), timeout_s=100)
        page = told(telemetry, "/metrics")[1]
        counts = dict(re.findall(r'kvwire_cloud_prefixes_total{source="(\w+)"} (\S+)', page))
        assert counts == {"disk": "1.0", "memory": "1.0", "model": "0.0"}
        documents.remove("acme", "new")
        documents.close()
        assert not list(config.prefix_files.root.glob(str(its)))
    finally:
        cloud.stop()


def test_a_replica_that_hangs_is_in_health_metric_log_and_doctor_within_five_seconds_and_so_is_its_return(
    tmp_path: Path, tiny_sharer: Path, tiny_bundle: Path, certificates: Certificates
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        telemetry = f"127.0.0.1:{free.getsockname()[1]}"
    folder = tmp_path / "cloud"
    cloud = start_cloud(folder, tiny_sharer, tiny_bundle, certificates, {"telemetry": {"listen": telemetry}})

    def until(status: int) -> float:
        began = time.monotonic()
        while told(telemetry, "/healthz")[0] != status:
            assert time.monotonic() - began < 30
            time.sleep(0.05)
        return time.monotonic() - began

    def doctors() -> tuple[str, str]:
        (found,) = (one for one in _telemetry(telemetry, ask=True) if one.what == "health")
        return found.state, found.found

    try:
        time.sleep(2)  # the node asks itself meanwhile
        audited = cloud.audit()
        assert doctors() == ("ok", "SERVING")
        replica = member_of(cloud.process.pid, REPLICA)
        send(replica, signal.SIGSTOP)
        try:
            assert until(503) < 5.0
            why = "the node's own question is not answered: DEADLINE_EXCEEDED"
            assert json.loads(told(telemetry, "/healthz")[1]) == {"status": "NOT_SERVING", "why": why}
            assert doctors() == ("bad", f"NOT_SERVING, {why}")
            failed = 'kvwire_cloud_canary_failures_total{reason="DEADLINE_EXCEEDED"} 1.0'
            assert failed in told(telemetry, "/metrics")[1]
            assert why in (folder / "cloud.log").read_text()
        finally:
            send(replica, signal.SIGCONT)
        assert until(200) < 10.0
        assert cloud.audit() == audited
    finally:
        cloud.stop()
