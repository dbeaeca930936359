"""Who a model is, who a peer is, and the credentials that prove it."""

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from kvwire.errors import AccessDenied

if TYPE_CHECKING:
    import grpc

TRUST_DOMAIN: Final = "kvwire"
_SPIFFE = re.compile(rf"spiffe://{TRUST_DOMAIN}/(cloud|edge)/([A-Za-z0-9][A-Za-z0-9._-]{{0,63}})")


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model by name and by the content hash of its weights."""

    name: str
    revision: str

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}"


class PeerRole(StrEnum):
    """Which side of the wire a certificate is for."""

    CLOUD = "cloud"
    EDGE = "edge"


@dataclass(frozen=True, slots=True)
class Identity:
    """A peer as its certificate names it: spiffe://kvwire/<cloud|edge>/<tenant>."""

    role: PeerRole
    tenant: str

    def __post_init__(self) -> None:
        if _SPIFFE.fullmatch(self.uri) is None:
            raise AccessDenied(f"not a tenant name: {self.tenant!r}")

    @property
    def uri(self) -> str:
        """The SPIFFE id, as it stands in the certificate's URI subject alternative name."""
        return f"spiffe://{TRUST_DOMAIN}/{self.role}/{self.tenant}"

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Read a SPIFFE id.

        Raises:
            AccessDenied: it is not one of ours.
        """
        match = _SPIFFE.fullmatch(uri)
        if match is None:
            raise AccessDenied(f"not an identity of this service: {uri[:200]!r}")
        return cls(PeerRole(match[1]), match[2])


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of three PEM files: our certificate chain, its key, and the roots that vouch for the peer."""

    certificate: Path
    key: Path
    roots: Path

    def read(self) -> tuple[bytes, bytes, bytes]:
        """The contents of certificate, key and roots.

        Raises:
            OSError: a file cannot be read.
            ValueError: a file is not PEM.
        """
        contents = [Path(path).read_bytes() for path in (self.certificate, self.key, self.roots)]
        for path, content in zip((self.certificate, self.key, self.roots), contents, strict=True):
            if b"-----BEGIN " not in content:
                raise ValueError(f"not a PEM file: {path}")
        return contents[0], contents[1], contents[2]


def server_credentials(files: TlsFiles) -> "grpc.ServerCredentials":
    """Mutual TLS for the cloud: a client without a certificate under our roots does not get a connection."""
    import grpc

    certificate, key, roots = files.read()
    return grpc.ssl_server_credentials(
        ((key, certificate),), root_certificates=roots, require_client_auth=True
    )


def channel_credentials(files: TlsFiles) -> "grpc.ChannelCredentials":
    """Mutual TLS for the edge: only roots of ours are trusted, never those of the system."""
    import grpc

    certificate, key, roots = files.read()
    return grpc.ssl_channel_credentials(
        root_certificates=roots, private_key=key, certificate_chain=certificate
    )
