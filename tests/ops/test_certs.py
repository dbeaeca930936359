"""Development certificates: what they say, who may read the keys, and that they work."""

import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtensionOID
from typer.testing import CliRunner

from kvwire.errors import AccessDenied
from kvwire.identity import Identity
from ops.certs import Certificates, certificates_in, make_certificates, renew_certificate
from ops.cli import app
from ops.finding import State
from ops.tls_check import tls_findings


def uris(path: Path) -> list[str]:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def test_every_certificate_names_one_identity(certificates: Certificates) -> None:
    assert uris(certificates.cloud.certificate) == ["spiffe://kvwire/cloud/main"]
    for tenant, pair in certificates.edges.items():
        assert uris(pair.certificate) == [f"spiffe://kvwire/edge/{tenant}"]
        assert Identity.parse(uris(pair.certificate)[0]).tenant == tenant


def test_keys_are_for_their_owner_alone(certificates: Certificates) -> None:
    for pair in (certificates.ca, certificates.cloud, *certificates.edges.values()):
        assert pair.key.stat().st_mode & 0o777 == 0o600


def test_a_key_belongs_to_its_certificate(certificates: Certificates) -> None:
    for pair in (certificates.cloud, *certificates.edges.values()):
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(pair.certificate, pair.key)


def test_nothing_is_overwritten_without_force(tmp_path: Path) -> None:
    first = make_certificates(tmp_path, ["acme"])
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(FileExistsError, match="--renew acme"):
        make_certificates(tmp_path, ["acme"])
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    forced = make_certificates(tmp_path, ["acme"], force=True)
    assert forced == first
    assert forced.ca.certificate.read_bytes() != before[first.ca.certificate]


def test_a_further_edge_gets_its_certificate_from_the_same_authority(tmp_path: Path) -> None:
    before = make_certificates(tmp_path, ["acme"]).ca.certificate.read_bytes()
    after = make_certificates(tmp_path, ["other"])
    assert sorted(after.edges) == ["acme", "other"]
    assert after.ca.certificate.read_bytes() == before
    authority = x509.load_pem_x509_certificate(before)
    other = x509.load_pem_x509_certificate(after.edges["other"].certificate.read_bytes())
    other.verify_directly_issued_by(authority)


def test_a_tenant_that_is_no_identity_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(AccessDenied):
        make_certificates(tmp_path / "tls", ["acme", "../cloud/main"])
    assert not (tmp_path / "tls").exists()
    assert certificates_in(tmp_path / "tls").edges == {}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def changed(folder: Path, before: dict[str, bytes]) -> set[str]:
    return {name for name, content in contents(folder).items() if before.get(name) != content}


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_a_tenant_may_have_edges_with_names_of_their_own(tmp_path: Path) -> None:
    make_certificates(tmp_path, ["acme"])
    before = contents(tmp_path)
    made = make_certificates(tmp_path, ["acme"], names=["kiosk-3", "kiosk-4"])
    assert sorted(made.edges) == ["acme", "acme/kiosk-3", "acme/kiosk-4"]
    assert uris(made.edges["acme/kiosk-3"].certificate) == ["spiffe://kvwire/edge/acme/kiosk-3"]
    assert changed(tmp_path, before) == {
        f"edge-acme@kiosk-{n}.{kind}" for n in (3, 4) for kind in ("pem", "key")
    }
    with pytest.raises(ValueError, match="one tenant"):
        make_certificates(tmp_path, ["acme", "other"], names=["kiosk-5"])


@pytest.mark.parametrize("name", ["cloud", "acme", "acme/kiosk-3"])
def test_renewing_one_touches_no_other_and_keeps_its_names(tmp_path: Path, name: str) -> None:
    make_certificates(tmp_path, ["acme"], hosts=["cloud.example", "127.0.0.1"])
    made = make_certificates(tmp_path, ["acme"], names=["kiosk-3"])
    pair = made.cloud if name == "cloud" else made.edges[name]
    names = certificate(pair.certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    before = contents(tmp_path)
    assert renew_certificate(tmp_path, name) == pair
    assert changed(tmp_path, before) == {pair.certificate.name, pair.key.name}
    new = certificate(pair.certificate)
    assert set(new.extensions.get_extension_for_class(x509.SubjectAlternativeName).value) == set(names.value)
    new.verify_directly_issued_by(certificate(made.ca.certificate))
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(pair.certificate, pair.key)
    assert pair.key.stat().st_mode & 0o777 == 0o600


def test_a_renewed_authority_vouches_for_what_it_signed_before(tmp_path: Path) -> None:
    made = make_certificates(tmp_path, ["acme"], authority_days=40)
    before = contents(tmp_path)
    renew_certificate(tmp_path, "authority")
    assert changed(tmp_path, before) == {"ca.pem"}
    for pair in (made.cloud, made.edges["acme"]):
        certificate(pair.certificate).verify_directly_issued_by(certificate(made.ca.certificate))


def test_a_leaf_lives_a_month_the_authority_five_years_and_no_leaf_outlives_it(tmp_path: Path) -> None:
    made = make_certificates(tmp_path / "a", ["acme"])
    now = datetime.datetime.now(datetime.UTC)
    assert (certificate(made.cloud.certificate).not_valid_after_utc - now).days in (29, 30)
    assert (certificate(made.ca.certificate).not_valid_after_utc - now).days in (1_824, 1_825)
    short = make_certificates(tmp_path / "b", ["acme"], authority_days=5)
    ends = certificate(short.ca.certificate).not_valid_after_utc
    assert certificate(short.edges["acme"].certificate).not_valid_after_utc == ends


def test_the_command_adds_and_renews(tmp_path: Path) -> None:
    def certs(*words: str) -> int:
        return CliRunner().invoke(app, ["certs", str(tmp_path / "tls"), *words, "--json"]).exit_code

    assert certs("--tenant", "acme") == 0
    before = contents(tmp_path / "tls")
    assert certs("--tenant", "acme", "--edge", "kiosk-3") == 0 and certs("--tenant", "other") == 0
    assert before.items() <= contents(tmp_path / "tls").items()
    assert certs("--renew", "cloud", "--renew", "acme/kiosk-3") == 0
    assert certs("--renew", "nobody") == 1
    assert certs() == certs("--renew", "cloud", "--tenant", "acme") == 2


def test_a_certificate_whose_names_cannot_be_read_is_for_nobody(tmp_path: Path) -> None:
    key, me, now = ec.generate_private_key(ec.SECP256R1()), x509.Name([]), datetime.datetime.now(datetime.UTC)
    # An X.400 address is a general name, but none of those that the library reads.
    x400 = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, bytes.fromhex("3004a3023000"))
    builder = x509.CertificateBuilder(me, me, key.public_key(), x509.random_serial_number(), now, now)
    signed = builder.add_extension(x400, critical=False).sign(key, hashes.SHA256())
    for name in ("certificate", "authority"):
        (tmp_path / name).write_bytes(signed.public_bytes(Encoding.PEM))
    (tmp_path / "key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    files = {name: str(tmp_path / name) for name in ("certificate", "key", "authority")}
    found = next(tls_findings(files, "spiffe://kvwire/edge/"))
    assert found.state is State.BAD and found.found.endswith("is for nobody")
