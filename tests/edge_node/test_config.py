"""The configuration is read strictly."""

import dataclasses
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from edge_node import EdgeConfig
from edge_node.config import ApiConfig, ReceiverConfig, TlsConfig
from fuser.config import BadConfig
from fuser.models.directory import SHIPPED
from ops.certs import Certificates

TEXT = """
[tls]
certificate = "tls/edge.pem"
key = "tls/edge.key"
authority = "/etc/ca.pem"
[receiver]
model = "{model}"
bundle = "bundle"
"""


def _load(tmp_path: Path, text: str) -> EdgeConfig:
    path = tmp_path / "edge.toml"
    path.write_text(text, encoding="utf-8")
    return EdgeConfig.load(path)


def test_paths_count_from_the_files_own_directory(tmp_path: Path) -> None:
    (tmp_path / "local-model").mkdir()
    api = '[api]\nkeys_file = "api.keys"\n'
    config = _load(tmp_path, 'capture = "wire.bin"\n' + TEXT.format(model="local-model") + api)
    assert config.tls.certificate == str(tmp_path / "tls/edge.pem")
    assert config.tls.authority == "/etc/ca.pem"
    assert config.receiver.bundle == str(tmp_path / "bundle")
    assert config.receiver.model == str(tmp_path / "local-model")
    assert config.capture == str(tmp_path / "wire.bin")
    assert config.api.keys_file == str(tmp_path / "api.keys")


def test_a_shipped_bundle_is_named_without_a_path(tmp_path: Path) -> None:
    shipped = "qwen2.5-coder-1.5b--smollm2-135m"
    config = _load(tmp_path, TEXT.format(model="m").replace('"bundle"', f'"{shipped}"'))
    assert Path(config.receiver.bundle) == SHIPPED / shipped


def test_a_models_name_stays_a_name(tmp_path: Path) -> None:
    assert (
        _load(tmp_path, TEXT.format(model="smollm2-135m-instruct")).receiver.model == "smollm2-135m-instruct"
    )


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ("colour = 1\n", "colour"),
        (f'capture = "~nobody-of-that-name/{"a" * 5_000}"\n', "a path"),
        ('[cloud]\nadress = "x:1"\n', "cloud.adress"),
        ("[share]\ndeadline_s = true\n", "share.deadline_s"),
        ("[share]\ndeadline_s = 0\n", "deadline_s"),
        ('[cloud]\naddress = "nowhere"\n', "nowhere"),
        ('[cloud]\nidentity = "spiffe://kvwire/edge/acme"\n', "not a cloud's"),
        ('[cloud]\nidentity = "cloud"\n', "not an identity"),
        ('[api]\nlisten = "0.0.0.0:80"\n', "loopback"),
        ('[api]\nlisten = "[::]:80"\n', "loopback"),
        ('[api]\nlisten = "0.0.0.0:80"\nhosts = ["edge.example"]\n', "keys_file"),
        ('[api]\nhosts = ["edge.example:80"]\n', "without a port"),
        ('[cloud]\naddress = "a:1"\nfallbacks = ["a:1"]\n', "twice"),
        ("[api\n", "edge.toml"),
    ],
)
def test_what_is_wrong_is_refused_by_name(tmp_path: Path, extra: str, named: str) -> None:
    lines = TEXT.format(model="m")
    text = lines + extra if extra.startswith("[") else extra + lines
    with pytest.raises(BadConfig, match=named) as refused:
        _load(tmp_path, text)
    assert str(refused.value).startswith(f"{tmp_path / 'edge.toml'}: ")


@pytest.mark.parametrize("listen", ["127.0.0.1:7480", "localhost:7480", "[::1]:7480"])
def test_every_loopback_address_can_be_listened_on(tmp_path: Path, listen: str) -> None:
    text = TEXT.format(model="m") + f'[api]\nlisten = "{listen}"\n'
    assert _load(tmp_path, text).api.listen == listen


@pytest.fixture
def tls(certificates: Certificates) -> TlsConfig:
    """The files of an edge, as they should be."""
    edge = certificates.edges["acme"]
    return TlsConfig(str(edge.certificate), str(edge.key), str(certificates.ca.certificate))


def test_files_that_can_be_used_are_taken(tls: TlsConfig) -> None:
    EdgeConfig(tls, ReceiverConfig("m", "b")).check_files()


@pytest.mark.parametrize("key", ["certificate", "key", "authority"])
@pytest.mark.parametrize(
    "content",
    [None, b"", b"no PEM", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"],
)
def test_a_file_that_cannot_be_used_is_refused_by_its_key(
    tls: TlsConfig, tmp_path: Path, key: str, content: bytes | None
) -> None:
    path = tmp_path / "broken.pem"
    if content is not None:
        path.write_bytes(content)
    broken = dataclasses.replace(tls, **{key: str(path)})
    with pytest.raises(BadConfig, match=rf"tls\.(certificate|{key}): .*broken\.pem"):
        EdgeConfig(broken, ReceiverConfig("m", "b")).check_files()


def test_a_key_of_another_certificate_or_behind_a_password_is_refused(
    tls: TlsConfig, certificates: Certificates, tmp_path: Path
) -> None:
    other = dataclasses.replace(tls, key=str(certificates.edges["other"].key))
    key = load_pem_private_key(Path(tls.key).read_bytes(), None)
    path = tmp_path / "locked.key"
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"not told"))
    )
    locked = dataclasses.replace(tls, key=str(path))
    for broken, said in (
        (other, r"tls\.key: .* is not the key of"),
        (locked, r"tls\.certificate: .* with the key "),
    ):
        with pytest.raises(BadConfig, match=said):
            EdgeConfig(broken, ReceiverConfig("m", "b")).check_files()


def test_a_file_of_api_keys_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "api.keys"
    path.write_text("\ufefffirst-key\r\n second-key\t\n", encoding="utf-8", newline="")
    assert ApiConfig(keys_file=str(path)).keys() == ("first-key", "second-key")


@pytest.mark.parametrize("key", ["clé-x", "a\x00b", "a\x0bb", "a\u2028b", "a\x7f"])
def test_an_api_key_that_no_caller_can_show_is_refused_by_its_line_and_not_told(
    tls: TlsConfig, tmp_path: Path, key: str
) -> None:
    path = tmp_path / "api.keys"
    path.write_text(f"good\n\n{key}\n", encoding="utf-8")
    config = EdgeConfig(tls, ReceiverConfig("m", "b"), api=ApiConfig(keys_file=str(path)))
    with pytest.raises(BadConfig, match=r"api\.keys_file: .*line 3 is not printable ASCII") as refused:
        config.check_files()
    assert key not in str(refused.value)


def test_a_missing_key_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"receiver\.bundle"):
        _load(tmp_path, TEXT.format(model="m").replace('bundle = "bundle"', ""))
