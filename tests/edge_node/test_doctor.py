"""`kvwire doctor --config`: each thing that a configuration names is looked at, by its key, with what to do next."""

import contextlib
import dataclasses
import json
import shutil
import socket
import sqlite3
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from rich.console import Console
from typer.testing import CliRunner

from cloud_node.documents import Documents
from edge_node import EdgeConfig
from edge_node.config import ApiConfig, CloudPeer, ShareConfig
from kvwire.telemetry import Meter, TelemetryConfig, telling
from ops.certs import make_certificates
from ops.cli import app
from ops.finding import State
from ops.node_check import _telemetry
from tests.edge_node.toml import write_toml

if TYPE_CHECKING:
    from ops.certs import Certificates

Found = dict[str, dict[str, str]]


def doctor(config: Path) -> tuple[int, Found]:
    """Exit status and the findings, the worst of each name; the report says the same as the status."""
    done = CliRunner().invoke(app, ["doctor", "--config", str(config), "--json"])
    report = json.loads(done.stdout)
    order = ("ok", "note", "bad")
    findings = sorted(report["findings"], key=lambda finding: order.index(finding["state"]))
    assert report["ok"] == (done.exit_code == 0) == all(finding["state"] != "bad" for finding in findings)
    assert all(finding["then"] for finding in findings if finding["state"] != "ok")
    assert [finding["what"] for finding in findings].count("prometheus_client") == 1  # of two extras
    return done.exit_code, {finding["what"]: finding for finding in findings}


@pytest.fixture
def edge(config: EdgeConfig, tmp_path: Path) -> Callable[..., Path]:
    """An edge.toml; keywords replace tables, and files of `[tls]` are copies that a test may spoil."""

    def made(**changes: Any) -> Path:
        copies = {}
        for key, path in dataclasses.asdict(config.tls).items():
            copies[key] = str(shutil.copy(path, tmp_path / f"{key}.pem"))
        tls = dataclasses.replace(config.tls, **copies)
        api = ApiConfig(listen="127.0.0.1:0")
        return write_toml(
            dataclasses.replace(config, **{"tls": tls, "api": api} | changes), tmp_path / "edge.toml"
        )

    return made


@pytest.fixture
def cloud(
    certificates: "Certificates", tiny_sharer: Path, tiny_bundle: Path, tmp_path: Path
) -> Callable[..., Path]:
    """A cloud.toml; keywords replace values."""

    def made(**changes: Any) -> Path:
        values = {
            "listen": "127.0.0.1:0",
            "documents": "sqlite:///documents.db",
            "audit": "audit.jsonl",
            "certificate": str(certificates.cloud.certificate),
            "key": str(certificates.cloud.key),
            "authority": str(certificates.ca.certificate),
            "model": str(tiny_sharer),
            "bundles": [str(tiny_bundle)],
        } | changes
        lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
        path = tmp_path / "cloud.toml"
        path.write_text(
            "\n".join([*lines[:3], "[tls]", *lines[3:6], "[sharer]", *lines[6:]]), encoding="utf-8"
        )
        return path

    return made


@pytest.fixture
def taken() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_an_edge_that_has_all_it_needs_is_well(edge: Callable[..., Path]) -> None:
    status, found = doctor(edge())
    for what in (
        "config",
        "tls.certificate",
        "device",
        "receiver.device",
        "receiver.model",
        "receiver.bundle",
        "share",
        "cloud",
        "cloud bundle",
    ):
        assert found[what]["state"] == "ok", found[what]
    assert "spiffe://kvwire/edge/acme, until 20" in found["tls.certificate"]["found"]
    assert status == 0


def test_a_cloud_that_has_all_it_needs_is_well(cloud: Callable[..., Path]) -> None:
    path = cloud()
    before = sorted(path.parent.iterdir())
    for _ in range(2):
        status, found = doctor(path)
        for what in (
            "config",
            "tls.certificate",
            "sharer.device",
            "sharer.model",
            "sharer.bundles",
            "listen",
            "export",
            "audit",
            "documents",
        ):
            assert found[what]["state"] == "ok", found[what]
        assert "short-quote: " in found["export"]["found"] and "up to 8 pos" in found["export"]["found"]
        assert status == 0 and "spiffe://kvwire/cloud/main" in found["tls.certificate"]["found"]
        assert sorted(path.parent.iterdir()) == before  # nothing was made by looking


def test_a_device_that_is_not_there_is_named_by_its_key(
    edge: Callable[..., Path], config: EdgeConfig, cloud: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    on_gpu = edge(receiver=dataclasses.replace(config.receiver, device="cuda"))
    for path, key in ((on_gpu, "receiver.device"), (cloud(gpus=1.0), "sharer.device")):
        status, found = doctor(path)
        assert (status, found[key]["state"]) == (1, "bad")
        assert "device cuda is not there" in found[key]["found"]


def test_a_cloud_that_does_not_answer_is_named(edge: Callable[..., Path]) -> None:
    status, found = doctor(edge(cloud=CloudPeer(address="127.0.0.1:1")))
    assert status == 1 and "Unreachable" in found["cloud"]["found"]
    assert "kvwire cloud" in found["cloud"]["then"] and "127.0.0.1:1" in found["cloud"]["then"]


def test_a_receiver_that_is_not_there_is_named_by_its_key(
    edge: Callable[..., Path], config: EdgeConfig
) -> None:
    for key, name in (("model", "smollm2-135m-instrukt"), ("bundle", "no-such-bundle")):
        status, found = doctor(edge(receiver=dataclasses.replace(config.receiver, **{key: name})))
        finding = found[f"receiver.{key}"]
        assert (status, finding["state"]) == (1, "bad") and name in finding["found"]
    known = dataclasses.replace(config.receiver, model="smollm2-360m-instruct")
    assert "smollm2-360m-instruct" in doctor(edge(receiver=known))[1]["receiver.model"]["found"]


def test_a_bundle_of_another_model_is_bad(
    edge: Callable[..., Path],
    cloud: Callable[..., Path],
    config: EdgeConfig,
    tiny_sharer: Path,
    tiny_receiver: Path,
) -> None:
    status, found = doctor(edge(receiver=dataclasses.replace(config.receiver, model=str(tiny_sharer))))
    assert status == 1 and "not for tiny-sharer" in found["receiver.bundle"]["found"]
    status, found = doctor(cloud(model=str(tiny_receiver)))
    assert status == 1 and "not for tiny-receiver" in found["sharer.bundles"]["found"]


def test_a_node_that_runs_here_is_asked_for_its_health_past_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setattr(urllib.request, "_opener", None)  # made once, of what the environment said then
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with telling(TelemetryConfig("127.0.0.1:0"), Meter(), lambda: (False, {"why": "draining"})) as address:
        (found,) = (one for one in _telemetry(address, ask=True) if one.what == "health")
    assert (found.state, found.found) == (State.BAD, "NOT_SERVING, draining")


def test_a_slice_that_cannot_be_asked_for_is_bad(edge: Callable[..., Path]) -> None:
    for share, said in ((ShareConfig(codec="morse"), "morse"), (ShareConfig(plan="auto"), "plans")):
        status, found = doctor(edge(share=share))
        assert status == 1 and said in found["share"]["found"]


@pytest.mark.parametrize("key", ["certificate", "key", "authority"])
def test_each_file_of_tls_is_named_by_its_key(edge: Callable[..., Path], tmp_path: Path, key: str) -> None:
    path = edge()
    (tmp_path / f"{key}.pem").write_text("nothing", encoding="utf-8")
    status, found = doctor(path)
    assert status == 1 and "not a PEM file" in found[f"tls.{key}"]["found"]
    (tmp_path / f"{key}.pem").unlink()
    status, found = doctor(path)
    assert status == 1 and "No such file" in found[f"tls.{key}"]["found"]


def test_a_key_of_another_certificate_is_bad(
    edge: Callable[..., Path], tmp_path: Path, certificates: "Certificates"
) -> None:
    path = edge()
    shutil.copy(certificates.edges["other"].key, tmp_path / "key.pem")
    status, found = doctor(path)
    assert status == 1 and "is not the key of" in found["tls.key"]["found"]


def test_a_key_behind_a_password_is_bad_and_asked_for_nowhere(
    edge: Callable[..., Path], tmp_path: Path
) -> None:
    path = edge()
    key = load_pem_private_key((tmp_path / "key.pem").read_bytes(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"not told"))
    (tmp_path / "key.pem").write_bytes(locked)
    status, found = doctor(path)
    assert status == 1 and "is not the key of" not in found["tls.certificate"]["found"]


def test_a_certificate_of_the_other_side_or_an_old_one_is_bad(
    cloud: Callable[..., Path], certificates: "Certificates", tmp_path: Path
) -> None:
    edge = certificates.edges["acme"]
    status, found = doctor(cloud(certificate=str(edge.certificate), key=str(edge.key)))
    assert status == 1 and "is for spiffe://kvwire/edge/acme" in found["tls.certificate"]["found"]
    for days, state, said in (
        (0, "bad", "expired on"),
        (3, "bad", "renew it now"),
        (7, "note", "renew it soon"),
        (8, "ok", "until"),
    ):
        old = make_certificates(tmp_path / f"old{days}", [], days=days)
        status, found = doctor(cloud(certificate=str(old.cloud.certificate), key=str(old.cloud.key)))
        finding = found["tls.certificate"]
        assert finding["state"] == state and said in f"{finding['found']} {finding['then']}"
        assert "did not issue" in found["tls.authority"]["found"]


def test_a_file_of_api_keys_is_looked_into(edge: Callable[..., Path], tmp_path: Path) -> None:
    keys = tmp_path / "api.keys"
    keys.write_text("one\ntwo\n", encoding="utf-8")
    api = ApiConfig(listen="127.0.0.1:0", keys_file=str(keys))
    assert "2 keys" in doctor(edge(api=api))[1]["api.keys_file"]["found"]
    keys.unlink()
    status, found = doctor(edge(api=api))
    assert status == 1 and found["api.keys_file"]["state"] == "bad"
    assert str(keys) in found["api.keys_file"]["found"]


def test_a_taken_port_is_a_note_as_beside_a_running_node(
    cloud: Callable[..., Path], edge: Callable[..., Path], taken: str
) -> None:
    status, found = doctor(cloud(listen=taken))
    assert status == 0 and found["listen"]["state"] == "note"
    assert f"{taken} is taken" in found["listen"]["found"]
    status, found = doctor(edge(api=ApiConfig(listen=taken)))
    assert status == 0 and found["api.listen"]["state"] == "note"


def test_files_of_a_cloud_that_cannot_be_opened_are_named(cloud: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "broken.jsonl").write_text('{"time": 1}\n', encoding="utf-8")
    (tmp_path / "text.db").write_text(
        "not a database, but long enough to be read as one " * 40, encoding="utf-8"
    )
    status, found = doctor(cloud(audit="broken.jsonl", documents="sqlite:///text.db", bundles=["gone"]))
    assert status == 1
    assert {what for what, finding in found.items() if finding["state"] == "bad"} == {
        "audit",
        "documents",
        "sharer.bundles",
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("colour = 1", "needs either [sharer]"),
        ("[receiver]\n[sharer]", "needs either [sharer]"),
        ("[receiver", "node.toml: Expected"),
        ("[tls]\ncertificate = 'a'\nkey = 'b'\nauthority = 'c'\n[receiver]\ncolour = 1", "colour"),
        ("[sharer]\nmodel = 'x'\nbundles = ['y']\n[tls]\ncolour = 1", "colour"),
    ],
)
def test_a_configuration_that_is_refused_says_why(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "node.toml").write_text(text, encoding="utf-8")
    status, found = doctor(tmp_path / "node.toml")
    assert status == 1 and said in found["config"]["found"]


def test_a_person_is_told_what_to_do_next(edge: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ops.output.console", Console(width=200))
    path = edge(cloud=CloudPeer(address="127.0.0.1:1"))
    done = CliRunner().invoke(app, ["doctor", "--config", str(path)])
    assert (
        done.exit_code == 1
        and "next" in done.stdout
        and "is `kvwire cloud` running at 127.0.0.1:1?" in done.stdout
    )


def test_an_audit_log_that_ends_in_half_a_line_is_a_note(cloud: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").write_text('{"time": 1', encoding="utf-8")
    status, found = doctor(cloud())
    assert (status, found["audit"]["state"]) == (0, "note")
    assert "when the node starts" in found["audit"]["then"]


@pytest.mark.parametrize("table", ["", "CREATE TABLE documents (tenant TEXT, id TEXT)"])
def test_a_look_at_a_database_changes_nothing(cloud: Callable[..., Path], tmp_path: Path, table: str) -> None:
    path = tmp_path / "a #1 ?.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE other (x)")
        connection.execute(table)
        connection.commit()
    before = {file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    config = cloud(documents=f"sqlite:///{tmp_path}/a %231 %3F.db")
    _, found = doctor(config)
    assert found["documents"]["state"] == ("bad" if table else "ok"), found["documents"]
    assert before == {
        file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file() and file != config
    }


def test_a_look_at_a_running_nodes_database_finds_its_table(
    cloud: Callable[..., Path], tmp_path: Path
) -> None:
    documents = Documents(f"sqlite:///{tmp_path / 'documents.db'}")
    documents.add("acme", "a", "text")
    _, found = doctor(cloud())
    assert found["documents"]["state"] == "ok"
    documents.close()
    before = sorted(tmp_path.iterdir())
    assert doctor(cloud())[1]["documents"]["state"] == "ok"
    assert sorted(tmp_path.iterdir()) == before
