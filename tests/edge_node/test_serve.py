"""An edge node as a process of its own."""

import dataclasses
import http.client
import json
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from edge_node import Assistant, EdgeConfig
from edge_node.api import make_app
from edge_node.config import ApiConfig
from edge_node.serve import _listening
from fuser.config import BadConfig
from kvwire.telemetry import TelemetryConfig
from tests.edge_node.toml import write_toml
from tests.process import python


def test_a_process_serves_until_it_is_told_to_end(config: EdgeConfig, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        told = TelemetryConfig(f"127.0.0.1:{free.getsockname()[1]}", "json")
    config = dataclasses.replace(config, api=ApiConfig(listen="127.0.0.1:0"), telemetry=told)
    path = write_toml(config, tmp_path / "edge.toml")
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_node", "--config", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    try:
        assert process.stdout is not None
        host, _, port = json.loads(process.stdout.readline())["listening"].partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        body = json.dumps({"question": "Who keeps the key?", "document": "note-1"})
        connection.request("POST", "/v1/ask", body, {"Content-Type": "application/json"})
        assert json.loads(connection.getresponse().read())["source"] == "fused"
        connection.close()
        with urllib.request.urlopen(f"http://{told.listen}/healthz", timeout=10) as health:
            assert json.loads(health.read())["cloud"] == "OK"
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=30)
        assert process.returncode == 0, log
        lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
        assert [line["source"] for line in lines if line["event"] == "ask"] == ["fused"]
    finally:
        process.kill()
        process.wait()


def test_the_loopback_addresses_that_are_listened_on() -> None:
    (four,) = _listening("127.0.0.1", 0)
    both = _listening("localhost", 0)
    assert len({end.getsockname()[1] for end in both}) == 1
    try:
        (six,) = _listening("::1", 0)
    except OSError:
        assert len(both) == 1  # no IPv6 on this machine
        six = four
    else:
        assert [end.getsockname()[0] for end in both] == ["127.0.0.1", "::1"]
    with pytest.raises(OSError):
        _listening("localhost", both[0].getsockname()[1])
    for end in (four, six, *both):
        end.close()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_every_loopback_name_is_answered_to(assistant: Assistant, host: str) -> None:
    with TestClient(make_app(assistant, ApiConfig()), base_url=f"http://{host}:7480") as client:
        assert client.get("/healthz").status_code == 200


def test_a_name_of_api_hosts_is_answered_to_and_no_other(assistant: Assistant, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("sesame\n", encoding="utf-8")
    config = ApiConfig(listen="0.0.0.0:80", hosts=("edge.example",), keys_file=str(tmp_path / "keys"))
    key = {"Authorization": "Bearer sesame"}
    with TestClient(make_app(assistant, config), base_url="http://edge.example", headers=key) as client:
        assert client.get("/v1/models").status_code == 200
        assert client.get("/v1/models", headers={"Origin": "https://edge.example"}).status_code == 200
        assert client.get("/v1/models", headers={"Authorization": "Bearer other"}).status_code == 401
        for other in ("evil.example", "edge.example.evil.example", "edgeXexample", "edge.example:80@evil"):
            assert client.get("/v1/models", headers={"Host": other}).status_code == 400, other
            refused = client.get("/v1/models", headers={"Origin": f"https://{other}"})
            assert refused.status_code == 403, other


def test_a_file_of_tls_that_is_missing_is_refused_at_start_by_its_key(
    config: EdgeConfig, tmp_path: Path
) -> None:
    broken = dataclasses.replace(config, tls=dataclasses.replace(config.tls, certificate="/gone.pem"))
    with pytest.raises(BadConfig, match=r"tls\.certificate: /gone\.pem"):
        Assistant.from_config(broken)
    run = python("-m", "edge_node", "--config", str(write_toml(broken, tmp_path / "edge.toml")))
    assert run.returncode == 2 and "tls.certificate: /gone.pem" in run.stderr
    assert "Traceback" not in run.stderr


def test_the_five_lines_of_the_readme_work_as_a_program(config: EdgeConfig, tmp_path: Path) -> None:
    write_toml(config, tmp_path / "edge.toml")
    lines = """
from edge_node import Assistant

a = Assistant.from_config("edge.toml")
answer = a.ask("Who keeps the spare key?", document="note-1")
print(answer.to_json())
"""
    run = python("-c", lines, cwd=tmp_path)
    assert run.returncode == 0 and "Traceback" not in run.stderr, run.stderr
    assert json.loads(run.stdout)["source"] == "fused"


def test_a_wrong_configuration_ends_with_status_2_and_the_key(tmp_path: Path) -> None:
    (tmp_path / "edge.toml").write_text("colour = 1\n")
    run = python("-m", "edge_node", "--config", "edge.toml", cwd=tmp_path)
    assert run.returncode == 2 and "colour" in run.stderr and "Traceback" not in run.stderr
