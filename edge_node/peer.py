"""Who answers at the cloud's address: its SPIFFE id is checked, then its certificate pinned for the channel.

gRPC for Python checks a server's host name and shows nothing of its certificate. So one TLS handshake is made
first that reads the certificate; the channel then trusts that certificate alone, so the same key must answer
there. Gateways behind one address share a certificate, or else the client looks again when one fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import grpc

from edge_node.config import EdgeConfig, TlsConfig, split_address
from fuser.config import BadConfig
from kvwire.errors import AccessDenied, Unreachable

_REFUSALS: Final = frozenset(
    f"{version}_ALERT_{what}"
    for version in ("SSLV3", "TLSV1", "TLSV13")
    for what in (
        *("BAD_CERTIFICATE", "CERTIFICATE_EXPIRED", "CERTIFICATE_REQUIRED", "CERTIFICATE_REVOKED"),
        *("CERTIFICATE_UNKNOWN", "UNSUPPORTED_CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED", "NO_CERTIFICATE"),
    )
)
"""Alerts by which a cloud says that it does not accept our certificate, as `ssl` names them."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """Credentials that accept one certificate alone, and a name that it answers to."""

    credentials: grpc.ChannelCredentials
    name: str


async def pin_cloud(config: EdgeConfig) -> Pinned:
    """Connect once, check who is there, and pin it. The caller's timeout ends it.

    Only a certificate that was read and is wrong is a decision; whatever else goes wrong is the link's.

    Raises:
        Unreachable: nobody answers, the connection breaks, or one of our own PEM files cannot be used.
        AccessDenied: the certificate is not the expected cloud's, or the cloud does not accept ours.
    """
    address = config.cloud.address
    try:
        context, certificate, key = config.tls.load()
    except BadConfig as error:
        raise Unreachable(str(error)) from error
    try:
        named, der, greeted = await _greet(context, *split_address(address))
    except ssl.SSLCertVerificationError as error:
        raise AccessDenied(f"the certificate at {address}: {error.verify_message}") from error
    except ssl.SSLError as error:
        if error.reason in _REFUSALS:
            raise AccessDenied(
                f"{address} does not accept this edge's certificate: {error.reason}"
            ) from error
        raise Unreachable(f"TLS with {address} broke: {error.reason}") from error
    except (OSError, UnicodeError) as error:  # the latter of a name that no resolver takes
        raise Unreachable(f"{address}: {str(error) or 'hung up'}") from error
    check_identity(named, config.cloud.identity)
    if not greeted:
        if fault := _own_fault(config.tls):
            raise AccessDenied(f"{address} does not accept this edge's certificate: {fault}")
        raise Unreachable(f"{address} hung up after the handshake: cut off, or this edge is not accepted")
    credentials = grpc.ssl_channel_credentials(
        ssl.DER_cert_to_PEM_cert(der).encode(), private_key=key, certificate_chain=certificate
    )
    return Pinned(credentials, answers_to(named))


def check_identity(named: Mapping[str, Any], expected: str) -> None:
    """Compare the SPIFFE ids of a certificate, as `ssl` decodes it, with the one expected.

    Raises:
        AccessDenied: it carries none, several, or another one.
    """
    uris = [value for kind, value in named.get("subjectAltName", ()) if kind == "URI"]
    if uris != [expected]:
        found = ", ".join(uris)[:300] or "nobody"
        raise AccessDenied(f"the cloud's certificate is for {found}, not for {expected}")


def answers_to(named: Mapping[str, Any]) -> str:
    """A name that gRPC's own host check will find in the (pinned) certificate."""
    names = named.get("subjectAltName", ())
    for wanted in ("DNS", "IP Address"):
        for kind, value in names:
            if kind == wanted:
                return str(value).replace("*", "pinned", 1)
    for part in named.get("subject", ()):
        for kind, value in part:
            if kind == "commonName":
                return str(value)
    return "pinned"


async def _greet(context: ssl.SSLContext, host: str, port: int) -> tuple[Mapping[str, Any], bytes, bool]:
    """The certificate, decoded and as DER; and whether a byte came after it.

    With TLS 1.3 a server refuses ours only after the handshake.
    """
    reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname="")
    try:
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        named, der = tls.getpeercert(), tls.getpeercert(binary_form=True)
        greeted = bool(await reader.read(1))  # an HTTP/2 server speaks first
        return named or {}, der or b"", greeted
    finally:
        writer.transport.abort()


def _own_fault(tls: TlsConfig) -> str | None:
    """What a cloud of the same authority finds wrong with our certificate; None where it would take it.

    gRPC refuses a client's certificate by closing, without an alert, as a link that is cut does. So this edge
    looks for itself: it shows the certificate to a server of its own, in memory.
    """
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode, server.verify_mode = ssl.CERT_NONE, ssl.CERT_REQUIRED
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        server.load_verify_locations(tls.authority)
        for context in (client, server):
            context.load_cert_chain(tls.certificate, tls.key)
        for end in (client.wrap_bio(down, up), server.wrap_bio(up, down, server_side=True)) * 2:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    except OSError:  # a file that changed meanwhile: the next attempt reads it
        return None
    return None
