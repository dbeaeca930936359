"""A model is named by its content."""

import shutil
from pathlib import Path

from fuser.models.directory import model_ref
from ops.models.convert import convert
from ops.models.progress import Progress
from tests.ops.models.tiny_gguf import write_tiny_gguf


def test_a_converted_model_has_its_registry_name_and_the_hash_of_its_file(tmp_path: Path) -> None:
    tiny = write_tiny_gguf(tmp_path)
    convert(tiny.path, tmp_path / "elsewhere", tiny.known, Progress(False))
    reference = model_ref(tmp_path / "elsewhere")
    assert (reference.name, reference.revision) == (tiny.known.name, tiny.known.sha256)


def test_any_other_directory_is_named_by_its_weights(tiny_receiver: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_receiver, copy)
    first = model_ref(tiny_receiver)
    assert first.name == tiny_receiver.name
    assert len(first.revision) == 64
    assert model_ref(copy).revision == first.revision
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert model_ref(copy).revision != first.revision


def test_the_hash_is_kept(tiny_receiver: Path, cache: Path) -> None:
    first = model_ref(tiny_receiver)
    (kept,) = (cache / "revisions").iterdir()
    assert kept.read_text() == first.revision
    assert model_ref(tiny_receiver) == first


def test_a_snapshot_of_the_hub_has_its_id(tiny_receiver: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--owner--a-model" / "snapshots" / ("c" * 40)
    shutil.copytree(tiny_receiver, snapshot)
    assert model_ref(snapshot).name == "owner/a-model"
