"""Certificates that change while a cloud runs, with real handshakes."""

import asyncio
import dataclasses
import json
import shutil
import ssl
import time
from pathlib import Path

import grpc
import pytest
from cryptography import x509

from cloud_node.config import CloudConfig
from cloud_node.revoked import Revoked
from fuser.sharer import Sharer
from kvwire.errors import AccessDenied
from kvwire.identity import Identity, PeerRole, TlsFiles
from kvwire.limits import Limits
from kvwire.serde import share_request_to_proto, share_response_from_proto
from kvwire.v1.sharer_pb2_grpc import SharerServiceStub
from ops.certs import Certificates, KeyPair, make_certificates
from tests.cloud_node.conftest import LocalCloud, Start
from tests.tls import channel_credentials

QUESTION = "Who keeps the spare key?"
ACME = Identity(PeerRole.EDGE, "acme")


def serial_of(pair: KeyPair) -> int:
    return x509.load_pem_x509_certificate(pair.certificate.read_bytes()).serial_number


def put_secret(mount: Path, made: Certificates) -> None:
    """As Kubernetes writes a Secret: a new folder, and a link to it that is replaced in one step."""
    folder = mount / f"..{time.monotonic_ns()}"
    folder.mkdir(parents=True)
    for name, path in (
        ("tls.crt", made.cloud.certificate),
        ("tls.key", made.cloud.key),
        ("ca.crt", made.ca.certificate),
    ):
        shutil.copy(path, folder / name)
        if not (mount / name).is_symlink():
            (mount / name).symlink_to(Path("..data") / name)
    (mount / "..new").symlink_to(folder.name)
    (mount / "..new").replace(mount / "..data")


def mounted(config: CloudConfig, mount: Path) -> CloudConfig:
    files = (str(mount / name) for name in ("tls.crt", "tls.key", "ca.crt"))
    return dataclasses.replace(
        config, tls=dataclasses.replace(config.tls, **dict(zip(KEYS, files, strict=True)))
    )


KEYS = ("certificate", "key", "authority")


def channel(cloud: LocalCloud, made: Certificates, trusted: Certificates | None = None) -> grpc.aio.Channel:
    pair = made.edges["acme"]
    files = TlsFiles(pair.certificate, pair.key, (trusted or made).ca.certificate)
    # Each has a connection of its own: gRPC would share one of equal channels.
    options = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.secure_channel(cloud.address, channel_credentials(files), options=options)


async def answered(cloud: LocalCloud, through: grpc.aio.Channel) -> int:
    stub = SharerServiceStub(through)  # type: ignore[no-untyped-call]
    replies = stub.Share(share_request_to_proto(cloud.request("note-1", QUESTION)), timeout=20)
    return len([share_response_from_proto(reply, Limits()) async for reply in replies])


async def served_serial(cloud: LocalCloud, made: Certificates) -> int:
    """Of the certificate that the cloud shows to a new connection."""
    host, _, port = cloud.address.rpartition(":")
    context = ssl.create_default_context(cafile=str(made.ca.certificate))
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(made.edges["acme"].certificate, made.edges["acme"].key)
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(shown).serial_number


async def test_a_new_certificate_is_served_without_a_restart_and_calls_in_flight_survive(
    start_local: Start, config: CloudConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = (make_certificates(tmp_path / name, ["acme"]) for name in ("old", "new"))
    mount = tmp_path / "mount"
    put_secret(mount, old)
    cloud = await start_local(tls=mounted(config, mount).tls)
    assert await served_serial(cloud, old) == serial_of(old.cloud)
    steps, go_on = Sharer.steps, asyncio.Event()
    waiting = asyncio.Event()
    loop = asyncio.get_running_loop()

    def held(self: Sharer, *args: object) -> object:
        loop.call_soon_threadsafe(waiting.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()
        return steps(self, *args)  # type: ignore[arg-type]

    async with channel(cloud, old) as before:
        with monkeypatch.context() as patch:
            patch.setattr(Sharer, "steps", held)
            flight = asyncio.create_task(answered(cloud, before))
            await waiting.wait()
            put_secret(mount, new)
            assert await served_serial(cloud, new) == serial_of(new.cloud)
            go_on.set()
            assert await flight == 3
    async with channel(cloud, new) as after:
        assert await answered(cloud, after) == 3


async def test_an_authority_that_is_gone_is_refused_and_one_beside_it_is_not(
    start_local: Start, config: CloudConfig, tmp_path: Path
) -> None:
    old, new = (make_certificates(tmp_path / name, ["acme"]) for name in ("old", "new"))
    authority = tmp_path / "ca.pem"
    authority.write_bytes(old.ca.certificate.read_bytes() + new.ca.certificate.read_bytes())
    tls = dataclasses.replace(
        config.tls,
        certificate=str(new.cloud.certificate),
        key=str(new.cloud.key),
        authority=str(authority),
    )
    cloud = await start_local(tls=tls)
    for made in (old, new):
        async with channel(cloud, made, new) as through:
            assert await answered(cloud, through) == 3
    authority.write_bytes(new.ca.certificate.read_bytes())
    async with channel(cloud, old, new) as through:
        with pytest.raises(grpc.RpcError) as error:
            await answered(cloud, through)
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    async with channel(cloud, new) as through:
        assert await answered(cloud, through) == 3


async def test_half_a_renewal_changes_nothing_and_is_told(
    start_local: Start, config: CloudConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = (make_certificates(tmp_path / name, ["acme"]) for name in ("old", "new"))
    mount = tmp_path / "mount"
    put_secret(mount, old)
    cloud = await start_local(tls=mounted(config, mount).tls)
    (mount / "tls.crt").unlink()
    for half in (new.cloud.certificate.read_bytes(), b"not a certificate", None):
        if half is not None:
            (mount / "tls.crt").write_bytes(half)
        else:
            (mount / "tls.crt").unlink()
        assert await served_serial(cloud, old) == serial_of(old.cloud)
        assert "the certificate in use stays" in caplog.text
        caplog.clear()


async def test_a_revoked_edge_is_refused_at_its_next_call_and_recorded(
    start_local: Start, config: CloudConfig, tmp_path: Path
) -> None:
    made = make_certificates(tmp_path / "tls", ["acme"])
    revoked = tmp_path / "revoked.txt"
    revoked.write_text("# nobody yet\n")
    tls = dataclasses.replace(
        config.tls,
        **dict(
            zip(KEYS, map(str, (made.cloud.certificate, made.cloud.key, made.ca.certificate)), strict=True)
        ),
        revoked=str(revoked),
    )
    cloud = await start_local(tls=tls)
    for entry in (f"{serial_of(made.edges['acme']):X}", ACME.uri):
        async with channel(cloud, made) as through:
            assert await answered(cloud, through) == 3
            revoked.write_text(f"{entry}  # lost\n")
            unknown = through.unary_unary("/kvwire.v9.Unknown/Share")
            for call in (
                answered(cloud, through),
                unknown(b"", timeout=20),
            ):  # over the connection that it has
                with pytest.raises(grpc.RpcError) as error:
                    await call
                assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED
        revoked.write_text("")
    lines = [json.loads(line) for line in cloud.audit.read_text().splitlines()]
    refused = [(line["method"], line["tenant"]) for line in lines if line["decision"] == "ACCESS_DENIED"]
    assert refused == [("Share", "acme")] * 2


def test_what_cannot_be_read_takes_no_revocation_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "revoked.txt"
    with pytest.raises(OSError, match="revoked"):
        Revoked(str(file))
    file.write_text("nonsense here\n")
    with pytest.raises(ValueError, match="line 1"):
        Revoked(str(file))
    file.write_text("serial=0A:0B\n\n")
    revoked = Revoked(str(file))
    kiosk = Identity(PeerRole.EDGE, "acme", "kiosk-3")
    for change in ("nonsense\n0C\n", None):
        if change is None:
            file.unlink()
        else:
            file.write_text(change)
        for _ in range(3):
            with pytest.raises(AccessDenied):
                revoked.check(ACME, 0x0A0B)
        assert len(caplog.records) == 1
        caplog.clear()
    with pytest.raises(AccessDenied):
        revoked.check(ACME, 0x0C)
    file.write_text(kiosk.uri)
    revoked.check(ACME, 0x0A0B)
    with pytest.raises(AccessDenied):
        revoked.check(kiosk, 1)
    Revoked(None).check(kiosk, 1)
