import logging
from pathlib import Path

import pytest
import torch

from fuser import BadBundle, load_pair
from fuser.models.directory import NoSuchDevice, bundle_directory, shipped_bundles


def test_a_pair_is_loaded_from_its_bundle_and_says_where_it_computes(
    tiny_bundle: Path, tiny_sharer: Path, tiny_receiver: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "fuser"):
        sharer, receiver = load_pair(
            tiny_bundle, sharer=tiny_sharer, receiver=tiny_receiver, device="cpu", dtype="float32"
        )
    assert sharer.bundle.hash == receiver.bundle.hash
    assert sharer.model.device.type == receiver.model.device.type == "cpu"
    assert receiver.model.dtype is torch.float32
    said = [record.getMessage() for record in caplog.records]
    assert [("Sharer" in line, "on cpu (" in line, "in float32" in line) for line in said] == [
        (True, True, True),
        (False, True, True),
    ]


def test_a_pair_on_a_device_that_is_not_there_is_refused_before_a_model_is_read(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NoSuchDevice, match="device cuda is not there"):
        load_pair(tiny_bundle, sharer="no-such-model", receiver="no-such-model", device="cuda")


def test_models_that_a_bundle_is_not_for_are_refused(
    tiny_bundle: Path, tiny_sharer: Path, tiny_receiver: Path
) -> None:
    with pytest.raises(BadBundle, match="is for the Sharer"):
        load_pair(tiny_bundle, sharer=tiny_receiver, receiver=tiny_receiver)
    with pytest.raises(BadBundle, match="is for the Receiver"):
        load_pair(tiny_bundle, sharer=tiny_sharer, receiver=tiny_sharer)


def test_a_bundle_that_is_not_there_names_those_that_ship(tmp_path: Path) -> None:
    with pytest.raises(BadBundle, match=r"no bundle that ships \(qwen2.5-coder-0.5b--smollm2-135m, "):
        load_pair(tmp_path / "mine")


def test_a_shipped_bundle_is_found_by_name_unless_a_directory_has_it(tmp_path: Path) -> None:
    name = "qwen2.5-coder-0.5b--smollm2-135m"
    assert (bundle_directory(name, tmp_path) / "config.json").is_file()
    assert set(shipped_bundles()) >= {name, "qwen2.5-coder-1.5b--smollm2-135m"}
    (tmp_path / name).mkdir()
    assert bundle_directory(name, tmp_path) == tmp_path / name
    assert bundle_directory("mine", tmp_path) == tmp_path / "mine"
