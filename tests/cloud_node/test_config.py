from pathlib import Path

import pytest

from cloud_node import CloudConfig
from fuser.config import BadConfig
from fuser.models.directory import SHIPPED
from kvwire.segment import SliceKind

MINIMAL = """
[tls]
certificate = "tls/cloud.pem"
key = "tls/cloud.key"
authority = "/etc/kvwire/ca.pem"
[sharer]
model = "qwen2.5-coder-0.5b-instruct"
bundles = ["bundles/demo"]
"""


def load(directory: Path, text: str) -> CloudConfig:
    path = directory / "cloud.toml"
    path.write_text(text, encoding="utf-8")
    return CloudConfig.load(path)


def test_relative_paths_count_from_the_file(tmp_path: Path) -> None:
    config = load(tmp_path, MINIMAL)
    assert config.tls.certificate == str(tmp_path / "tls/cloud.pem")
    assert config.tls.authority == "/etc/kvwire/ca.pem"
    assert config.sharer.bundles == (str(tmp_path / "bundles/demo"),)
    assert config.documents == f"sqlite:///{tmp_path / 'documents.db'}"
    assert config.audit == str(tmp_path / "audit.jsonl")


def test_a_shipped_bundle_is_named_without_a_path(tmp_path: Path) -> None:
    shipped = "qwen2.5-coder-0.5b--smollm2-135m"
    (found,) = load(tmp_path, MINIMAL.replace("bundles/demo", shipped)).sharer.bundles
    assert Path(found) == SHIPPED / shipped


def test_a_known_model_stays_a_name_and_a_directory_becomes_a_path(tmp_path: Path) -> None:
    assert load(tmp_path, MINIMAL).sharer.model == "qwen2.5-coder-0.5b-instruct"
    (tmp_path / "mine").mkdir()
    mine = load(tmp_path, MINIMAL.replace("qwen2.5-coder-0.5b-instruct", "mine"))
    assert mine.sharer.model == str(tmp_path / "mine")


def test_what_is_not_said_is_safe(tmp_path: Path) -> None:
    config = load(tmp_path, MINIMAL)
    assert config.listen.startswith("127.0.0.1:")
    assert not config.export.allow_relay
    assert config.export.kinds == tuple(SliceKind)
    assert not config.ray.insecure_dev


def test_other_databases_are_left_as_they_are(tmp_path: Path) -> None:
    url = "postgresql+psycopg://kvwire@db.internal/kvwire"
    assert load(tmp_path, f'documents = "{url}"\n' + MINIMAL).documents == url


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('lisen = "0.0.0.0:1"\n' + MINIMAL, "lisen"),
        (MINIMAL + "replcias = 2\n", "sharer.replcias"),
        (MINIMAL + 'dtype = "int8"\n', "sharer.dtype"),
        (MINIMAL + 'dtype = "float16"\n', "needs a GPU"),
        (MINIMAL + 'device = "tpu"\n', "sharer.device"),
        (MINIMAL + 'device = "cuda"\n', "gpus above 0"),
        (MINIMAL + 'gpus = 1.0\ndevice = "cpu"\n', "reserved for nothing"),
        (MINIMAL + "gpus = 2.0\n", "gpus is at most 1"),
        (MINIMAL + "max_batch = 0\n", "max_batch"),
        (MINIMAL + "[export]\nmax_position = 2\n", "export.max_position"),
        (MINIMAL + "[export]\nkinds = ['whole']\n", "export.kinds"),
        (MINIMAL + '[export]\nprofile = "answers"\n', "export.profile"),
        (
            MINIMAL + "[export]\nmax_quoted = 9\n",
            'export: max_quoted: profile "short-quote" allows no more than 8',
        ),
        (MINIMAL + "replicas = 0\n", "replicas"),
        (MINIMAL + "replicas = '2'\n", "sharer.replicas"),
        (MINIMAL + "replicas = 2\nmax_replicas = 1\n", "max_replicas is below replicas"),
        (MINIMAL + "max_replicas = 1001\n", "replicas and max_replicas are at most 1,000"),
        (MINIMAL + "replicas = 1001\n", "replicas and max_replicas are at most 1,000"),
        (MINIMAL + "max_replicas = 2\nscale_up_s = -1\n", "scale_up_s"),
        (MINIMAL.replace("bundles", "# bundles"), "bundles"),
        (MINIMAL.replace("qwen2.5-coder-0.5b-instruct", "a" * 5_000), "cloud.toml: a path .* too long"),
        ('audit = "~nobody-of-that-name/log"\n' + MINIMAL, "cloud.toml: a path .* home directory"),
        ('audit = "~a\\u0000b"\n' + MINIMAL, "audit: a text with a NUL"),
        ('audit = "a\\u0000b"\n' + MINIMAL, "audit: a text with a NUL"),
        (MINIMAL.replace('["bundles/demo"]', "[]"), "bundles"),
        (MINIMAL + "[ray]\naddress = '10.0.0.1:6379'\n", "token"),
        (MINIMAL + "[ray]\nstart_timeout_s = 0\n", "start_timeout_s"),
        ('documents = "sqlite:///:memory:"\n' + MINIMAL, "documents"),
        ('documents = "mysql://host/documents"\n' + MINIMAL, "documents"),
        ("[tls\n", "cloud.toml"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(BadConfig, match=named):
        load(tmp_path, text)
