import asyncio
import datetime
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID, NameOID
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health_pb2

from cloud_node.access import POLICIES, Access, Policy, identify
from cloud_node.documents import Documents
from cloud_node.exposure import Budget
from cloud_node.users import Principal
from kvwire.errors import AccessDenied, NotFound
from kvwire.identity import Identity, PeerRole
from kvwire.messages import SearchRequest
from kvwire.v1 import sharer_pb2
from tests.process import python

ACME = Identity(PeerRole.EDGE, "acme")


class Context:
    """As much of a gRPC context as an identity needs: the certificate that TLS verified, with these URIs."""

    def __init__(self, *uris: str, names: bool = True, other: x509.ExtensionType | None = None) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now)
        if names:
            alternatives = [x509.UniformResourceIdentifier(uri) for uri in uris]
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        if other is not None:
            builder = builder.add_extension(other, critical=False)
        self._pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_pem_cert": [self._pem], "peer_spiffe_id": [ACME.uri.encode()]}


@pytest.mark.parametrize("file", [sharer_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR])
def test_every_method_that_is_served_has_a_policy(file: FileDescriptor) -> None:
    served = {
        f"/{service.full_name}/{method.name}"
        for service in file.services_by_name.values()
        for method in service.methods
    }
    assert served <= set(POLICIES)


def test_only_an_edge_may_ask_the_sharer() -> None:
    sharer = {name: policy for name, policy in POLICIES.items() if "SharerService" in name}
    assert len(sharer) == len(sharer_pb2.DESCRIPTOR.services_by_name["SharerService"].methods)
    for policy in sharer.values():
        assert identify(Context(ACME.uri), policy) == ACME
        with pytest.raises(AccessDenied):
            identify(Context("spiffe://kvwire/cloud/main"), policy)


@pytest.mark.parametrize(
    "uris",
    [
        (),
        (ACME.uri, ACME.uri),
        ("spiffe://elsewhere/edge/acme",),
        ("spiffe://kvwire/edge/acme/x/y",),
        ("spiffe://kvwire/edge/acme/",),
        ("spiffe://kvwire/cloud/main/x",),
        ("",),
        *((f"{ACME.uri}{character}{rest}",) for character in "\0\n\r\t\x7f " for rest in ("", ".evil")),
    ],
)
def test_anything_but_one_identity_of_ours_is_refused(uris: tuple[str, ...]) -> None:
    with pytest.raises(AccessDenied):
        identify(Context(*uris))


def test_a_certificate_without_names_that_can_be_read_or_none_at_all_is_refused() -> None:
    class Nobody:
        def auth_context(self) -> dict[str, list[bytes]]:
            return {}

    # An EDI party name is a general name, but none of those that the library reads.
    edi = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, bytes.fromhex("3004a5023000"))
    for context in (Context(names=False), Context(names=False, other=edi), Nobody()):
        with pytest.raises(AccessDenied):
            identify(context)


def test_a_policy_without_roles_lets_nobody_in() -> None:
    with pytest.raises(AccessDenied):
        identify(Context(ACME.uri), Policy(frozenset()))


async def test_a_tenant_sees_its_own_documents_only(tmp_path: Path) -> None:
    documents = Documents(f"sqlite:///{tmp_path / 'd.db'}")
    documents.add("acme", "mine", "text", max_positions=4)
    documents.add("other", "theirs", "text")
    access = Access(documents)
    assert [info.max_positions for info in await access.documents_of(Principal(ACME), ["mine"])] == [4]
    assert await access.documents_of(Principal(ACME), []) == ()
    refused: list[Any] = []
    for names in (["theirs"], ["nobodys"], ["mine", "theirs"], ["no id at all"]):
        with pytest.raises(NotFound) as error:
            await access.documents_of(Principal(ACME), names)
        refused.append((error.value.public_text, str(error.value.metadata())))
    assert len(set(refused)) == 1


async def test_the_long_searches_of_one_tenant_keep_no_other_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents, go_on = Documents(f"sqlite:///{tmp_path / 'd.db'}"), threading.Event()
    documents.add("other", "theirs", "text")
    monkeypatch.setattr(documents, "search", lambda *_: go_on.wait(60) and ())
    access, other = Access(documents), Principal(Identity(PeerRole.EDGE, "other"))
    wanted = SearchRequest(question="a long question", k=1)
    searches = [
        asyncio.ensure_future(access.search(Principal(ACME), wanted, (), Budget(), None)) for _ in range(16)
    ]
    await asyncio.sleep(0)
    assert [info.id for info in await access.documents_of(other, ["theirs"])] == ["theirs"]
    go_on.set()
    assert await asyncio.gather(*searches) == [()] * 16


HANGS = """
import asyncio, sys, time
from cloud_node.access import Access
from cloud_node.users import Principal
from kvwire.identity import Identity, PeerRole


class Documents:
    def find(self, tenant, names, caller):
        if names == ["held up"]:
            time.sleep(600)
        return ()


async def ask():
    access = Access(Documents())
    acme = Principal(Identity(PeerRole.EDGE, "acme"))
    try:
        await asyncio.wait_for(access.documents_of(acme, ["held up"]), 0.2)
    except TimeoutError:
        assert await access.documents_of(acme, ["other"]) == ()
        print("given up", flush=True)


asyncio.run(ask())
sys.exit(7)
"""


def test_a_database_that_hangs_keeps_neither_the_loop_nor_the_process_from_ending() -> None:
    done = python("-c", HANGS)
    assert (done.stdout, done.returncode) == ("given up\n", 7), done.stderr
