"""Development certificates: one CA, the cloud's certificate, and one for each edge.

For loopback and for trials. A real installation takes its certificates from its own authority; all that
KVWire asks of them is one SPIFFE URI as subject alternative name (`kvwire.identity`).
"""

import datetime
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kvwire.identity import Identity, PeerRole

CLOUD = Identity(PeerRole.CLOUD, "main")
_CLOCK_SKEW = datetime.timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Paths of one PEM certificate and its private key."""

    certificate: Path
    key: Path

    @property
    def valid_until(self) -> datetime.datetime:
        """When the certificate ends, in UTC."""
        return x509.load_pem_x509_certificate(self.certificate.read_bytes()).not_valid_after_utc


@dataclass(frozen=True, slots=True)
class Certificates:
    """What `make_certificates` leaves in a folder."""

    ca: KeyPair
    cloud: KeyPair
    edges: dict[str, KeyPair]


LEAF_DAYS: Final = 30
AUTHORITY_DAYS: Final = 1_825
AUTHORITY: Final = "authority"


def make_certificates(
    directory: Path,
    tenants: Sequence[str],
    hosts: Sequence[str] = ("127.0.0.1", "localhost"),
    days: int = LEAF_DAYS,
    force: bool = False,
    authority_days: int = AUTHORITY_DAYS,
    names: Sequence[str] = (),
) -> Certificates:
    """Make an authority and the cloud's certificate in `directory`, where there is none yet, and one for each edge.

    Keys are readable by their owner only. What is there stays as it is, so edges are added one by one. `force` makes
    everything anew, so certificates of an earlier authority are no longer accepted.

    Args:
        names: of edges of the one tenant, each with a certificate of its own; without them the tenant has one.
        days, authority_days: how long certificates, and the authority, are valid. None outlives the authority.

    Raises:
        FileExistsError: an edge's certificate is there already and `force` is off.
        AccessDenied: a name does not fit into a SPIFFE URI.
        ValueError: edges with names need one tenant.
    """
    if names and len(tenants) != 1:
        raise ValueError(f"an edge with a name is of one tenant; there are {len(tenants)}")
    wanted = [Identity(PeerRole.EDGE, tenant, name) for tenant in tenants for name in (names or ("",))]
    edges = {identity: _pair(directory, _stem(identity)) for identity in wanted}
    if not force:
        for identity, pair in edges.items():
            for path in (pair.certificate, pair.key):
                if path.exists():
                    raise FileExistsError(f"{path} exists; --renew {_name_of(identity)} makes it anew")
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = certificates_in(directory)
    authority = _Authority.make(found.ca, authority_days, force)
    if force or not found.cloud.certificate.exists():
        authority.issue(found.cloud, CLOUD.uri, hosts, ExtendedKeyUsageOID.SERVER_AUTH, days, force)
    for identity, pair in edges.items():
        authority.issue(pair, identity.uri, (), ExtendedKeyUsageOID.CLIENT_AUTH, days, force)
    return certificates_in(directory)


def renew_certificate(
    directory: Path,
    name: str,
    hosts: Sequence[str] | None = None,
    days: int | None = None,
) -> KeyPair:
    """Make one certificate anew and touch no other.

    The authority keeps its key, so what it signed stays good, and both its certificates vouch for it. Any other gets a
    new key.

    Args:
        name: "authority", "cloud", a tenant, or tenant/edge.
        hosts: of the cloud; those that it has by default.

    Raises:
        FileNotFoundError: there is no such certificate, or the authority's key is not here.
    """
    found = certificates_in(directory)
    pairs = {AUTHORITY: found.ca, "cloud": found.cloud}
    pairs = {f"edge {edge}": pair for edge, pair in found.edges.items()} | found.edges | pairs
    pair = pairs.get(name)
    for path in (found.ca.key, found.ca.certificate, *([pair.certificate] if pair else [])):
        if not path.exists():
            raise FileNotFoundError(f"{path} is not there")
    if pair is None:
        known = ", ".join((AUTHORITY, "cloud", *found.edges))
        raise FileNotFoundError(f"{directory} has no certificate of {name}; there are {known}")
    authority = _Authority.make(found.ca, AUTHORITY_DAYS, force=False)
    if pair == found.ca:
        authority.signed_anew(days or AUTHORITY_DAYS).write(found.ca, force=True)
        return pair
    names = (
        x509.load_pem_x509_certificate(pair.certificate.read_bytes())
        .extensions.get_extension_for_class(x509.SubjectAlternativeName)
        .value
    )
    (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
    kept = names.get_values_for_type(x509.DNSName) + [
        str(address) for address in names.get_values_for_type(x509.IPAddress)
    ]
    usage = ExtendedKeyUsageOID.SERVER_AUTH if pair == found.cloud else ExtendedKeyUsageOID.CLIENT_AUTH
    authority.issue(pair, uri, hosts or kept, usage, days or LEAF_DAYS, force=True)
    return pair


def certificates_in(directory: Path) -> Certificates:
    """The paths that `make_certificates` uses in `directory`; edges, tenant or tenant/edge, are those found there."""
    stems = sorted(path.stem for path in directory.glob("edge-*.pem"))
    edges = {stem.removeprefix("edge-").replace("@", "/"): _pair(directory, stem) for stem in stems}
    return Certificates(ca=_pair(directory, "ca"), cloud=_pair(directory, "cloud"), edges=edges)


def _name_of(edge: Identity) -> str:
    return "/".join(filter(None, (edge.tenant, edge.name)))


def _stem(edge: Identity) -> str:
    """Of the files; a name has no "@", and a file's name no slash."""
    return f"edge-{_name_of(edge).replace('/', '@')}"


@dataclass(frozen=True, slots=True)
class _Authority:
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def make(cls, pair: KeyPair, days: int, force: bool) -> "_Authority":
        """Load the CA of `pair`, or make it where there is none (or with `force`)."""
        if pair.certificate.exists() and pair.key.exists() and not force:
            key = serialization.load_pem_private_key(pair.key.read_bytes(), password=None)
            if not isinstance(key, ec.EllipticCurvePrivateKey):
                raise ValueError(f"{pair.key} holds no EC private key")
            return cls(key, x509.load_pem_x509_certificate(pair.certificate.read_bytes()))
        authority = cls._signed(ec.generate_private_key(ec.SECP256R1()), days)
        authority.write(pair, force)
        return authority

    @classmethod
    def _signed(cls, key: ec.EllipticCurvePrivateKey, days: int) -> "_Authority":
        name = _name("KVWire development CA")
        builder = (
            _builder(name, name, key.public_key(), _after(days))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
        )
        return cls(key, builder.sign(key, hashes.SHA256()))

    def signed_anew(self, days: int) -> "_Authority":
        """The same key with a new certificate."""
        return self._signed(self.key, days)

    def write(self, pair: KeyPair, force: bool) -> None:
        """Write both files."""
        _write(pair, self.key, self.certificate, force)

    def issue(
        self,
        pair: KeyPair,
        uri: str,
        hosts: Sequence[str],
        usage: x509.ObjectIdentifier,
        days: int,
        force: bool,
    ) -> None:
        """Make a key and a certificate for `uri` that also answers to `hosts` (names or IP addresses)."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri), *map(_host_name, hosts)]
        ends = min(_after(days), self.certificate.not_valid_after_utc)
        authority_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = (
            _builder(_name(uri.removeprefix("spiffe://")), self.certificate.subject, key.public_key(), ends)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(authority_id, critical=False)
        )
        _write(pair, key, builder.sign(self.key, hashes.SHA256()), force)


def _pair(directory: Path, stem: str) -> KeyPair:
    return KeyPair(directory / f"{stem}.pem", directory / f"{stem}.key")


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, ends: datetime.datetime
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _after(days: int) -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)


def _key_usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _write(
    pair: KeyPair, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, force: bool
) -> None:
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for path, content, mode in (
        (pair.key, pem, 0o600),
        (pair.certificate, certificate.public_bytes(serialization.Encoding.PEM), 0o644),
    ):
        if force:  # in one step: a node that runs reads it
            fresh = path.with_name(f".{path.name}.{os.getpid()}")
            _create(fresh, content, mode)
            fresh.replace(path)
        else:
            _create(path, content, mode)


def _create(path: Path, content: bytes, mode: int) -> None:
    """Write a file that must not exist yet; its mode holds from the first byte on."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
