"""A server of real slices, a configuration that reaches it, and an assistant around the tiny Receiver."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from openai import OpenAI

    from edge_node import Assistant, EdgeConfig
    from fuser.bundle.bundle import Bundle
    from fuser.receiver import Receiver
    from ops.certs import Certificates
    from tests.edge_node.local_api import Api
    from tests.edge_node.sharer_server import RunningServer, SliceService


@pytest.fixture(scope="session")
def slice_service(tiny_sharer: Path, tiny_bundle: Path) -> "SliceService":
    from tests.edge_node.sharer_server import DOCUMENTS, SliceService

    return SliceService(tiny_sharer, tiny_bundle, DOCUMENTS)


@pytest.fixture(scope="session")
def running(slice_service: "SliceService", certificates: "Certificates") -> Iterator["RunningServer"]:
    from kvwire.identity import TlsFiles
    from tests.edge_node.sharer_server import serving

    pair = certificates.cloud
    with serving(slice_service, TlsFiles(pair.certificate, pair.key, certificates.ca.certificate)) as server:
        yield server


@pytest.fixture
def server(running: "RunningServer") -> Iterator["RunningServer"]:
    """The server, honest again after each test."""
    service = running.service
    service.requests.clear()
    service.remaining_s.clear()
    service.relays.clear()
    service.searches.clear()
    service.finds = ()
    service.cancelled.clear()
    yield running
    service.tamper = lambda parts: parts
    service.serve = lambda request: request
    service.failures.clear()
    service.relay_most = 0


@pytest.fixture
def config(
    server: "RunningServer", certificates: "Certificates", tiny_receiver: Path, tiny_bundle: Path
) -> "EdgeConfig":
    """An edge of tenant acme that talks to `server`."""
    from tests.edge_node.toml import edge_of

    pair = (tiny_receiver, tiny_bundle)
    return edge_of(certificates, server.address, *pair, tokens=8, max_positions=8, deadline_s=20.0)


@pytest.fixture(scope="session")
def bundle(tiny_bundle: Path) -> "Bundle":
    from fuser.bundle.bundle import Bundle

    return Bundle.load(tiny_bundle)


@pytest.fixture(scope="session")
def receiver(tiny_receiver: Path, bundle: "Bundle") -> "Receiver":
    from fuser.models.load import load_model
    from fuser.receiver import Receiver

    return Receiver(*load_model(tiny_receiver), bundle)


@pytest.fixture
def assistant(config: "EdgeConfig", receiver: "Receiver") -> Iterator["Assistant"]:
    from edge_node import Assistant
    from edge_node.client import Client

    with Assistant(config, receiver, Client(config)) as made:
        yield made


@pytest.fixture
def cut_off(config: "EdgeConfig", receiver: "Receiver") -> Iterator["Assistant"]:
    """An assistant whose cloud is not there."""
    from edge_node import Assistant
    from edge_node.client import Client
    from edge_node.config import CloudPeer

    config = dataclasses.replace(config, cloud=CloudPeer(address="127.0.0.1:1"))
    with Assistant(config, receiver, Client(config)) as made:
        yield made


@pytest.fixture
def api(assistant: "Assistant") -> Iterator["Api"]:
    from tests.edge_node.local_api import serving_api

    with serving_api(assistant) as made:
        yield made


@pytest.fixture
def client(api: "Api") -> Iterator["OpenAI"]:
    from tests.edge_node.local_api import client_of

    with client_of(api) as made:
        yield made


@pytest.fixture
def broken_stream(monkeypatch: pytest.MonkeyPatch) -> str:
    """Every answer breaks off after a piece; what then stands in the error, and is nobody's to read."""
    from edge_node.stream import AnswerStream

    def broken(stream: AnswerStream) -> Iterator[str]:
        yield "one "
        raise RuntimeError("a private text")

    monkeypatch.setattr(AnswerStream, "_run", broken)
    return "private"
