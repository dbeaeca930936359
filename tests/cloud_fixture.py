"""A real cloud node with the tiny pair, in a process of its own: Ray Serve, mutual TLS, SQLite, audit log.

def test_something(cloud: CloudNode) -> None:
    request = cloud.request("note-1", "Who keeps the key?")
    parts = cloud.share(request, tenant="acme")
"""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import grpc

    from kvwire.messages import Description, ShareRequest
    from ops.certs import Certificates

START_S = 120.0

DOCUMENTS = {
    (
        "acme",
        "note-1",
    ): "Ilse Brandvik keeps the spare key under the third stone from the boat house.",
    ("acme", "note-2"): "图书馆在河边，星期三上午九点开门。Müller's café 🌧️ def area(w): return w",
    ("acme", "capped"): "Every sample from the northern mine is weighed, numbered and stored for nine years.",
    ("acme", "long"): "The harbour master of Velmora wrote the day's tide into the ledger. " * 110,
    ("acme", "slow"): "Every sample from the northern mine is weighed, numbered and stored. " * 500,
    ("acme", "too-long"): "Every sample from the northern mine is weighed, numbered and stored. " * 3_000,
    ("other", "foreign"): "The meeting moved to Thursday because the bridge over the Tarn was closed.",
}
CAPS = {("acme", "capped"): 3}


@dataclass
class CloudNode:
    """A running cloud node and what a test needs to talk to it."""

    process: "subprocess.Popen[str]"
    directory: Path
    address: str
    certificates: "Certificates"
    description: "Description" = field(init=False)

    def channel(self, tenant: str | None = "acme", options: Sequence[tuple[str, Any]] = ()) -> "grpc.Channel":
        """A channel with a tenant's certificate; None connects without one."""
        import grpc

        from kvwire.identity import TlsFiles
        from tests.tls import channel_credentials

        if tenant is None:
            credentials = grpc.ssl_channel_credentials(self.certificates.ca.certificate.read_bytes())
        else:
            pair = self.certificates.edges[tenant]
            credentials = channel_credentials(
                TlsFiles(pair.certificate, pair.key, self.certificates.ca.certificate)
            )
        return grpc.secure_channel(self.address, credentials, options=list(options))

    def request(self, document_id: str | None, question: str, **changes: Any) -> "ShareRequest":
        """A request that this cloud would serve; `changes` replace its fields."""
        return request_for(self.description, document_id, question, **changes)

    def share(self, request: "ShareRequest", tenant: str = "acme", timeout_s: float = 20.0) -> list[Any]:
        """Header, frames and summary of one slice; raises KvwireError as the cloud told it."""
        import grpc

        from kvwire.limits import Limits
        from kvwire.serde import share_request_to_proto, share_response_from_proto
        from kvwire.status import from_rpc_error
        from kvwire.v1.sharer_pb2_grpc import SharerServiceStub

        with self.channel(tenant) as channel:
            stub = SharerServiceStub(channel)  # type: ignore[no-untyped-call]
            try:
                replies = stub.Share(share_request_to_proto(request), timeout=timeout_s)
                return [share_response_from_proto(reply, Limits()) for reply in replies]
            except grpc.RpcError as error:
                raise from_rpc_error(error) from None

    def audit(self) -> list[dict[str, Any]]:
        """The lines of the audit log."""
        text = (self.directory / "audit.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    def audit_of(self, request_id: bytes, within_s: float = 10.0) -> dict[str, Any]:
        """The audit line of one request, once the call has ended."""
        end = time.monotonic() + within_s
        while True:
            for line in self.audit():
                if line["request_id"] == request_id.hex() and line["decision"] != "SENDING":
                    return line
            assert time.monotonic() < end, "the call is not in the audit log"
            time.sleep(0.02)

    def stop(self, within_s: float = 60.0) -> int:
        """SIGTERM, and the exit status."""
        return ended(self.process, within_s)


def ended(process: "subprocess.Popen[str]", within_s: float = 60.0) -> int:
    """The exit status of a process after SIGTERM, and after SIGKILL where that does not end it in time."""
    with process:  # its pipes are closed, and it is waited for
        process.terminate()
        try:
            return process.wait(within_s)
        finally:
            process.kill()


def request_for(
    offer: "Description", document_id: str | None, question: str, **changes: Any
) -> "ShareRequest":
    """A request that the cloud of this description would serve; `changes` replace its fields."""
    from kvwire.messages import ShareRequest
    from kvwire.plan import Plan
    from kvwire.section import Role, Section, Visibility
    from kvwire.segment import SliceKind

    sections = [Section(Role.QUESTION, Visibility.SHARED, text=question)]
    if document_id is not None:
        sections.insert(0, Section(Role.DOCUMENT, Visibility.CLOUD, document_id=document_id))
    usual = SliceKind.EXCERPT if document_id is not None else SliceKind.SHARED
    kind = changes.get("kind", usual)
    fields: dict[str, Any] = {
        "request_id": os.urandom(16),
        "sharer": offer.sharer,
        "bundle_hash": offer.bundles[0].bundle_hash,
        "codec_hash": next(codec.parameters_hash for codec in offer.codecs if codec.name == "raw"),
        "kind": kind,
        "plan": Plan(codec="raw", positions=0 if kind is SliceKind.SHARED else 12),
        "sections": tuple(sections),
    }
    return ShareRequest(**(fields | changes))


def start_cloud(
    directory: Path,
    sharer: Path,
    bundle: Path,
    certificates: "Certificates",
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> CloudNode:
    """Start a cloud node on a free port of loopback and wait until it can answer.

    Args:
        directory: for its configuration, documents, audit log and output.
        settings: table -> key -> value of its configuration, besides those written here.
    """
    from cloud_node.documents import Documents
    from kvwire import PROTOCOL_VERSION
    from kvwire.serde import description_from_proto
    from kvwire.v1 import sharer_pb2
    from kvwire.v1.sharer_pb2_grpc import SharerServiceStub

    config = write_config(directory, sharer, bundle, certificates, settings)
    documents = Documents(f"sqlite:///{directory / 'documents.db'}")
    for (tenant, document_id), text in DOCUMENTS.items():
        documents.add(tenant, document_id, text, CAPS.get((tenant, document_id)), replace=True)
    documents.close()
    with (directory / "cloud.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "cloud_node", "--config", str(config)],
            cwd=directory,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        node = CloudNode(process, directory, _address(process, directory), certificates)
        with node.channel() as channel:
            stub = SharerServiceStub(channel)  # type: ignore[no-untyped-call]
            reply = stub.Describe(sharer_pb2.DescribeRequest(protocol_version=PROTOCOL_VERSION), timeout=20)
        node.description = description_from_proto(reply)
    except BaseException:  # Ctrl-C among them
        ended(process)
        raise
    return node


@pytest.fixture(scope="session")
def cloud(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_sharer: Path,
    tiny_bundle: Path,
    certificates: "Certificates",
) -> Iterator[CloudNode]:
    """A cloud node with `DOCUMENTS`, shared by all tests of the session."""
    node = start_cloud(tmp_path_factory.mktemp("cloud"), tiny_sharer, tiny_bundle, certificates)
    yield node
    node.stop()


def write_config(
    directory: Path,
    sharer: Path,
    bundle: Path,
    certificates: "Certificates",
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    """Write the `cloud.toml` that `start_cloud` starts."""
    tables: dict[str, dict[str, Any]] = {
        "tls": {
            "certificate": str(certificates.cloud.certificate),
            "key": str(certificates.cloud.key),
            "authority": str(certificates.ca.certificate),
        },
        "sharer": {
            "model": str(sharer),
            "bundles": [str(bundle)],
            "dtype": "float32",  # as tests load the models they compare with
            "max_prompt_tokens": 24_000,  # random models do not mind positions they were not made for
            "prefix_cache_bytes": 8 << 20,  # the slow document does not fit, so it stays slow
            "prefix_store": "",
            "max_ongoing": 2,
            "max_queued": 4,
            "retry_after_s": 0.5,
        },
        "export": {"profile": "custom", "shared_over_documents": 8_192},
    }
    for name, values in (settings or {}).items():
        tables[name] = tables.get(name, {}) | dict(values)
    lines = ['listen = "127.0.0.1:0"']
    for name, values in tables.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "cloud.toml"
    config.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return config


def _address(process: "subprocess.Popen[str]", directory: Path) -> str:
    assert process.stdout is not None
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        if select.select([process.stdout], [], [], 1.0)[0]:
            line = process.stdout.readline()
            if line.startswith("{"):
                return str(json.loads(line)["listening"])
    raise RuntimeError(f"the cloud node did not start:\n{(directory / 'cloud.log').read_text()[-3000:]}")
