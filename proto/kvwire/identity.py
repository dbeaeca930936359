"""Who a model is, who a peer is, and the credentials that prove it."""

import logging
import re
import ssl
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from kvwire.errors import AccessDenied

if TYPE_CHECKING:
    import grpc

logger = logging.getLogger(__name__)

TRUST_DOMAIN: Final = "kvwire"
_WORD = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SPIFFE = re.compile(rf"spiffe://{TRUST_DOMAIN}/(cloud|edge)/({_WORD.pattern})(?:/({_WORD.pattern}))?")


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
    """A peer as its certificate names it: spiffe://kvwire/<cloud|edge>/<tenant>, and /<name> of one edge of several.

    Raises:
        AccessDenied: a name is none that an identity may have.
    """

    role: PeerRole
    tenant: str
    name: str = ""

    def __post_init__(self) -> None:
        if _WORD.fullmatch(self.tenant) is None:
            raise AccessDenied(f"not a tenant name: {self.tenant!r}")
        if self.name and (self.role is not PeerRole.EDGE or _WORD.fullmatch(self.name) is None):
            raise AccessDenied(f"not the name of an edge: {self.name!r}")

    @property
    def uri(self) -> str:
        """The SPIFFE id, as it stands in the certificate's URI subject alternative name."""
        return "/".join(filter(None, (f"spiffe://{TRUST_DOMAIN}", self.role, self.tenant, self.name)))

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Read a SPIFFE id.

        Raises:
            AccessDenied: it is not one of ours.
        """
        match = _SPIFFE.fullmatch(uri)
        if match is None:
            raise AccessDenied(f"not an identity of this service: {uri[:200]!r}")
        return cls(PeerRole(match[1]), match[2], match[3] or "")


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
    """Mutual TLS for the cloud: a client without a certificate under our roots does not get a connection.

    The files are read again for each connection, so new ones are served without a restart. What cannot be used, such as
    a new certificate whose key is not there yet, is told in the log, and the last that could be is served. The
    credentials must be kept for as long as the server runs.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is not PEM, or the key is not the certificate's.
    """
    import grpc

    def configuration(contents: tuple[bytes, bytes, bytes]) -> "grpc.ServerCertificateConfiguration":
        certificate, key, roots = contents
        return grpc.ssl_server_certificate_configuration(((key, certificate),), root_certificates=roots)

    served, told = _fitting(files), ""

    def renewed() -> "grpc.ServerCertificateConfiguration | None":
        nonlocal served, told
        try:
            if files.read() == served:
                return None
            served, told = _fitting(files), ""
        except (OSError, ValueError) as error:
            if str(error) != told:
                told = str(error)
                logger.error("the certificate in use stays: %s", error)
            return None
        logger.info("a new certificate, key or authority is served")
        return configuration(served)

    return grpc.dynamic_ssl_server_credentials(
        configuration(served), renewed, require_client_authentication=True
    )


def _fitting(files: TlsFiles) -> tuple[bytes, bytes, bytes]:
    """The contents of the files, which are of one certificate and may be replaced meanwhile."""
    contents = files.read()
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files.certificate, files.key)
        ssl.create_default_context(cadata=contents[2].decode())
    except ssl.SSLError as error:
        raise ValueError(f"{files.certificate}, {files.key} and {files.roots}: {error.reason}") from None
    if files.read() != contents:
        raise ValueError(f"{files.certificate} and its key are being replaced")
    return contents
