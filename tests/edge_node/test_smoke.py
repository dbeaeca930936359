"""`kvwire smoke`: the step that is broken is named, with what to do, and what comes after it is not tried. And
`kvwire config check`, which asks nobody."""

import dataclasses
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from edge_node import EdgeConfig
from edge_node.config import ApiConfig, CloudPeer, ShareConfig, TlsConfig
from kvwire.telemetry import TelemetryConfig
from ops.certs import make_certificates
from ops.cli import app
from ops.finding import Finding, State, looked
from tests.edge_node.toml import write_toml

if TYPE_CHECKING:
    from tests.edge_node.sharer_server import RunningServer

STEPS = ["name", "tcp", "tls", "health", "cloud", "cloud bundle", "cloud kinds", "cloud codecs"]


def run(*command: str) -> tuple[int, list[dict[str, str]]]:
    """Exit status and findings."""
    done = CliRunner().invoke(app, [*command, "--json"])
    report = json.loads(done.stdout)
    assert report["ok"] == (done.exit_code == 0)
    assert all(finding["then"] for finding in report["findings"] if finding["state"] == "bad")
    return done.exit_code, report["findings"]


def smoke(config: EdgeConfig, folder: Path) -> tuple[int, list[dict[str, str]]]:
    return run("smoke", "--config", str(write_toml(config, folder / "edge.toml")))


def at(config: EdgeConfig, **cloud: str) -> EdgeConfig:
    return dataclasses.replace(config, cloud=CloudPeer(**{"address": config.cloud.address} | cloud))


def test_a_way_that_is_whole_is_told_step_by_step(config: EdgeConfig, tmp_path: Path) -> None:
    status, found = smoke(config, tmp_path)
    assert status == 0 and [one["what"].partition(" 127")[0] for one in found] == ["config", *STEPS]


def test_each_broken_step_is_named_and_the_last(config: EdgeConfig, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = f"127.0.0.1:{listener.getsockname()[1]}"
    other = make_certificates(tmp_path / "other", ["acme"])
    stranger = TlsConfig(config.tls.certificate, config.tls.key, str(other.ca.certificate))
    draft = dataclasses.replace(config, share=dataclasses.replace(config.share, codec="raw"))
    broken = {
        "name": at(config, address="no-such-host.invalid:7443"),
        "tcp": at(config, address=nobody),
        "tls": dataclasses.replace(config, tls=stranger),
    }
    for step, spoilt in broken.items():
        status, found = smoke(spoilt, tmp_path)
        assert status == 1 and found[-1]["state"] == "bad" and found[-1]["what"].startswith(step), (
            step,
            found,
        )
        assert len(found) == 2 + STEPS.index(step)
    status, found = smoke(at(draft, identity="spiffe://kvwire/cloud/another"), tmp_path)
    assert status == 1 and "not for spiffe://kvwire/cloud/another" in found[-1]["found"]


def test_a_cloud_that_takes_no_calls_is_told(
    config: EdgeConfig, server: "RunningServer", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.health, "taking", False)
    _, found = smoke(config, tmp_path)
    assert found[-1]["what"].startswith("health") and "NOT_SERVING" in found[-1]["found"]


@pytest.mark.parametrize(("late", "states"), [(1, [State.GOOD]), (2, [State.BAD])])
def test_one_late_answer_breaks_no_step_and_a_second_one_does(late: int, states: list[State]) -> None:
    answers = iter([TimeoutError()] * late + [None])

    def look() -> Iterator[Finding]:
        if (error := next(answers)) is not None:
            raise error
        yield Finding(State.GOOD, "health", "SERVING")

    assert [one.state for one in looked("health", look)] == states


def test_a_configuration_is_checked_in_a_moment_and_nobody_is_asked(
    config: EdgeConfig, server: "RunningServer", tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
        config = at(config, address=f"127.0.0.1:{silent.getsockname()[1]}")
        told = TelemetryConfig(f"127.0.0.1:{silent.getsockname()[1]}")
        config = dataclasses.replace(config, api=ApiConfig("127.0.0.1:0"), telemetry=told)
        path = write_toml(config, tmp_path / "edge.toml")
        run("config", "check", str(path))  # libraries are loaded
        began = time.monotonic()
        status, found = run("config", "check", str(path))
        assert status == 0 and time.monotonic() - began < 3.0
        assert run("config", "check", "--config", str(path)) == (status, found)
    whats = {one["what"]: one["state"] for one in found}
    assert "cloud" not in whats and whats["receiver.bundle"] == "ok" and whats["telemetry.listen"] == "note"
    wrong = dataclasses.replace(config, share=ShareConfig(codec="morse"))
    status, found = run("config", "check", str(write_toml(wrong, tmp_path / "edge.toml")))
    assert status == 1 and [one["what"] for one in found if one["state"] == "bad"] == ["share"]
    sure = dataclasses.replace(config.receiver, least_confidence=0.5)
    wrong = dataclasses.replace(config, receiver=sure)  # the bundle tells none: every question fails
    status, found = run("config", "check", str(write_toml(wrong, tmp_path / "edge.toml")))
    assert status == 1
    assert [one["what"] for one in found if one["state"] == "bad"] == ["receiver.least_confidence"]


def test_a_file_that_configures_no_node_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("[nothing]\n", encoding="utf-8")
    status, found = run("config", "check", str(tmp_path / "x.toml"))
    assert status == 1 and "[sharer]" in found[0]["found"]


@pytest.mark.parametrize("named", [(), ("a.toml", "--config", "b.toml")])
def test_one_file_is_checked_and_no_other_number(
    named: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.toml", "b.toml"):
        Path(name).write_text("[receiver]\n", encoding="utf-8")
    assert CliRunner().invoke(app, ["config", "check", *named]).exit_code == 2
