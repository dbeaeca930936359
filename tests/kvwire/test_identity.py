"""SPIFFE ids, and mutual TLS over a real server."""

from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from kvwire.errors import AccessDenied
from kvwire.identity import Identity, PeerRole, TlsFiles, server_credentials
from tests.tls import channel_credentials

if TYPE_CHECKING:
    from ops.certs import Certificates


def test_an_identity_is_read_back_from_its_uri() -> None:
    identity = Identity(PeerRole.EDGE, "tenant-a")
    assert identity.uri == "spiffe://kvwire/edge/tenant-a"
    assert Identity.parse(identity.uri) == identity
    named = Identity(PeerRole.EDGE, "tenant-a", "kiosk-3")
    assert named.uri == "spiffe://kvwire/edge/tenant-a/kiosk-3"
    assert Identity.parse(named.uri) == named != identity


@pytest.mark.parametrize(
    "uri",
    [
        "spiffe://kvwire/edge/",
        "spiffe://kvwire/edge/a/b/c",
        "spiffe://kvwire/edge/a/",
        "spiffe://kvwire/cloud/a/b",
        "spiffe://kvwire/edge/..",
        "spiffe://kvwire/edge/a\n",
        "spiffe://kvwire/admin/a",
        "spiffe://other/edge/a",
        "https://kvwire/edge/a",
        "spiffe://kvwire/edge/" + "a" * 65,
        "spiffe://kvwire/edge/%61",
        "",
    ],
)
def test_a_foreign_uri_is_refused(uri: str) -> None:
    with pytest.raises(AccessDenied):
        Identity.parse(uri)


def test_a_tenant_that_does_not_fit_a_uri_is_refused() -> None:
    with pytest.raises(AccessDenied):
        Identity(PeerRole.EDGE, "a/b")
    for role, tenant, name in (
        (PeerRole.EDGE, "a", "b/c"),
        (PeerRole.EDGE, "a", ".."),
        (PeerRole.CLOUD, "main", "b"),
    ):
        with pytest.raises(AccessDenied):
            Identity(role, tenant, name)


def test_a_file_that_is_not_pem_is_named(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text("not a key")
    with pytest.raises(ValueError, match=r"key\.pem"):
        TlsFiles(path, path, path).read()
    with pytest.raises(OSError, match=r"gone\.pem"):
        TlsFiles(tmp_path / "gone.pem", path, path).read()


class WhoAmI(grpc.GenericRpcHandler):
    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: context.auth_context()["peer_spiffe_id"][0]
        )


def serve(files: TlsFiles) -> tuple[grpc.Server, int]:
    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=(WhoAmI(),))
    port = server.add_secure_port("127.0.0.1:0", server_credentials(files))
    server.start()
    return server, port


def ask(port: int, credentials: grpc.ChannelCredentials) -> str:
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
        reply: bytes = channel.unary_unary("/any/Any")(b"", timeout=5)
    return reply.decode()


def files_of(certificates: "Certificates", tenant: str | None) -> TlsFiles:
    pair = certificates.cloud if tenant is None else certificates.edges[tenant]
    return TlsFiles(pair.certificate, pair.key, certificates.ca.certificate)


@pytest.fixture
def port(certificates: "Certificates") -> Iterator[int]:
    server, port = serve(files_of(certificates, None))
    yield port
    server.stop(0).wait()


def test_the_cloud_sees_who_calls(certificates: "Certificates", port: int) -> None:
    assert ask(port, channel_credentials(files_of(certificates, "acme"))) == "spiffe://kvwire/edge/acme"


def test_a_client_without_a_certificate_gets_no_connection(certificates: "Certificates", port: int) -> None:
    roots = certificates.ca.certificate.read_bytes()
    with pytest.raises(grpc.RpcError) as caught:
        ask(port, grpc.ssl_channel_credentials(root_certificates=roots))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_client_of_another_authority_gets_no_connection(
    certificates: "Certificates", port: int, tmp_path: Path
) -> None:
    from ops.certs import make_certificates

    foreign = make_certificates(tmp_path / "foreign", ["acme"]).edges["acme"]
    files = TlsFiles(foreign.certificate, foreign.key, certificates.ca.certificate)
    with pytest.raises(grpc.RpcError) as caught:
        ask(port, channel_credentials(files))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_an_edge_cannot_pose_as_the_cloud(certificates: "Certificates") -> None:
    server, port = serve(files_of(certificates, "other"))
    with pytest.raises(grpc.RpcError) as caught:
        ask(port, channel_credentials(files_of(certificates, "acme")))
    server.stop(0).wait()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
