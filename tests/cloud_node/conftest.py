"""A replica with the tiny Sharer, and a gateway around it, in the test's own process: no Ray."""

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cloud_fixture import CAPS, DOCUMENTS, request_for

if TYPE_CHECKING:
    import grpc

    from cloud_node.config import CloudConfig
    from cloud_node.gateway import Gateway
    from cloud_node.replica import Replica
    from cloud_node.service import SharerService
    from kvwire.messages import Description, Found, RelayReply, ShareRequest
    from ops.certs import Certificates
    from ops.chaos.world import LocalReplicas


@pytest.fixture
def documents_url(tmp_path: Path) -> str:
    """Where the documents of `config` lie: an empty store."""
    return f"sqlite:///{tmp_path / 'documents.db'}"


@pytest.fixture
def config(
    tmp_path: Path, documents_url: str, tiny_sharer: Path, tiny_bundle: Path, certificates: "Certificates"
) -> "CloudConfig":
    """The configuration of a cloud node for the tiny pair, with `DOCUMENTS` stored."""
    from cloud_node.config import CloudConfig, CloudTls, ExportPolicy, SharerConfig
    from cloud_node.documents import Documents

    documents = Documents(documents_url)
    for (tenant, document_id), text in DOCUMENTS.items():
        documents.add(tenant, document_id, text, CAPS.get((tenant, document_id)))
    documents.close()
    cloud, ca = certificates.cloud, certificates.ca
    sharer = SharerConfig(
        str(tiny_sharer),
        (str(tiny_bundle),),
        dtype="float32",
        max_prompt_tokens=24_000,
        retry_after_s=0.5,
    )
    return CloudConfig(
        tls=CloudTls(str(cloud.certificate), str(cloud.key), str(ca.certificate)),
        sharer=sharer,
        listen="127.0.0.1:0",
        documents=documents_url,
        audit=str(tmp_path / "audit.jsonl"),
        export=ExportPolicy(profile="custom", shared_over_documents=8_192),
    )


@pytest.fixture
def replica(config: "CloudConfig") -> "Iterator[Replica]":
    """The tiny Sharer with its bundle and the documents."""
    from cloud_node.replica import Replica

    replica = Replica.load(config)
    yield replica
    replica._documents.close()


@dataclass
class LocalCloud:
    """A gateway in this event loop."""

    gateway: "Gateway"
    service: "SharerService"
    replicas: "LocalReplicas"
    description: "Description"
    address: str
    certificates: "Certificates"
    audit: Path
    metadata: tuple[tuple[str, str], ...] = ()
    """Of each call."""

    def request(self, document_id: str | None, question: str, **changes: Any) -> "ShareRequest":
        """A request that this cloud would serve; `changes` replace its fields."""
        return request_for(self.description, document_id, question, **changes)

    def channel(self) -> "grpc.aio.Channel":
        """A channel with the certificate of tenant acme."""
        import grpc

        from kvwire.identity import TlsFiles
        from tests.tls import channel_credentials

        pair, ca = self.certificates.edges["acme"], self.certificates.ca
        credentials = channel_credentials(TlsFiles(pair.certificate, pair.key, ca.certificate))
        return grpc.aio.secure_channel(self.address, credentials)

    async def share(self, request: "ShareRequest", timeout_s: float | None = 20.0) -> list[Any]:
        """Header, frames and summary; raises KvwireError as the cloud told it."""
        import grpc

        from kvwire.limits import Limits
        from kvwire.serde import share_request_to_proto, share_response_from_proto
        from kvwire.status import from_rpc_error
        from kvwire.v1.sharer_pb2_grpc import SharerServiceStub

        async with self.channel() as channel:
            stub = SharerServiceStub(channel)  # type: ignore[no-untyped-call]
            try:
                replies = stub.Share(
                    share_request_to_proto(request), timeout=timeout_s, metadata=self.metadata
                )
                return [share_response_from_proto(reply, Limits()) async for reply in replies]
            except grpc.RpcError as error:
                raise from_rpc_error(error) from None

    async def search(
        self, question: str, k: int = 3, timeout_s: float | None = 20.0, **fields: Any
    ) -> "tuple[Found, ...]":
        """The passages found; raises KvwireError as the cloud told it. `fields` replace those of the message."""
        import grpc

        from kvwire import PROTOCOL_VERSION
        from kvwire.limits import Limits
        from kvwire.serde import found_from_proto
        from kvwire.status import from_rpc_error
        from kvwire.v1 import sharer_pb2 as pb
        from kvwire.v1.sharer_pb2_grpc import SharerServiceStub

        given = {"protocol_version": PROTOCOL_VERSION, "question": question, "k": k} | fields
        async with self.channel() as channel:
            stub = SharerServiceStub(channel)  # type: ignore[no-untyped-call]
            try:
                reply = await stub.Search(
                    pb.SearchRequest(**given), timeout=timeout_s, metadata=self.metadata
                )
                return found_from_proto(reply, k, Limits())
            except grpc.RpcError as error:
                raise from_rpc_error(error) from None

    async def relay(self, document_id: str, question: str, max_new_tokens: int) -> "RelayReply":
        """The Sharer's own answer; raises KvwireError as the cloud told it."""
        import grpc

        from kvwire.limits import Limits
        from kvwire.messages import RelayRequest
        from kvwire.serde import relay_reply_from_proto, relay_request_to_proto
        from kvwire.status import from_rpc_error
        from kvwire.v1.sharer_pb2_grpc import SharerServiceStub

        share = self.request(document_id, question)
        request = RelayRequest(
            request_id=share.request_id,
            sharer=share.sharer,
            max_new_tokens=max_new_tokens,
            sections=share.sections,
        )
        async with self.channel() as channel:
            stub = SharerServiceStub(channel)  # type: ignore[no-untyped-call]
            try:
                sent = relay_request_to_proto(request)
                return relay_reply_from_proto(
                    await stub.Relay(sent, timeout=20, metadata=self.metadata), Limits()
                )
            except grpc.RpcError as error:
                raise from_rpc_error(error) from None


Start = Callable[..., Awaitable[LocalCloud]]


@pytest.fixture
async def start_local(
    config: "CloudConfig", replica: "Replica", certificates: "Certificates"
) -> AsyncIterator[Start]:
    """Start a gateway of this process: `await start_local(export=ExportPolicy(...))`."""
    from cloud_node.access import Access
    from cloud_node.audit import AuditLog
    from cloud_node.documents import Documents
    from cloud_node.gateway import Gateway
    from cloud_node.service import SharerService, offered

    started: list[tuple[LocalCloud, AuditLog, Documents]] = []

    async def start(**changes: Any) -> LocalCloud:
        told = dataclasses.replace(config, **changes)
        audit = AuditLog(told.audit)
        description = offered(replica.describe(), told)
        replica._export = told.export  # it serves many configurations: loading it takes long
        from ops.chaos.world import LocalReplicas

        replicas = LocalReplicas(replica)
        documents = Documents(told.documents)
        service = SharerService(told, description, replicas, Access(documents), audit)
        gateway = Gateway(told, service, _always)
        address = await gateway.start()
        local = LocalCloud(gateway, service, replicas, description, address, certificates, Path(told.audit))
        started.append((local, audit, documents))
        return local

    yield start
    for local, audit, documents in started:
        await local.gateway.drain()
        audit.close()
        documents.close()


async def _always() -> bool:
    return True
