"""The pins are whole: nothing that a mirror says is trusted beyond them."""

import re

import pytest

from fuser.models.directory import UnknownModel
from ops.models.registry import GEMMA_3_270M, KNOWN_MODELS, QWEN_CODER_1_5B, KnownModel, known_model

ALL = pytest.mark.parametrize("model", KNOWN_MODELS.values(), ids=lambda model: model.name)


@ALL
def test_every_file_and_wheel_is_pinned_by_sha256(model: KnownModel) -> None:
    hashes = [model.sha256, *(wheel.sha256 for wheel in model.wheels)]
    assert all(re.fullmatch(r"[0-9a-f]{64}", sha256) for sha256 in hashes)
    assert len(set(hashes)) == len(hashes)


@ALL
def test_every_wheel_is_pinned_to_one_version_and_one_part(model: KnownModel) -> None:
    assert model.wheels
    for wheel in model.wheels:
        project, version = wheel.requirement.split("==")
        assert wheel.filename == f"{project.replace('-', '_')}-{version}-py3-none-any.whl"
        assert wheel.member.startswith(f"{project.replace('-', '_')}/")
    assert len({wheel.member for wheel in model.wheels}) == len(model.wheels)


@ALL
def test_a_hub_file_is_pinned_to_a_commit(model: KnownModel) -> None:
    if model.hub is not None:
        assert re.fullmatch(r"[0-9a-f]{40}", model.hub.revision)
        assert model.hub.filename == model.filename


def test_parts_are_in_the_order_of_their_numbers() -> None:
    assert [wheel.member.rsplit("/", 1)[1] for wheel in GEMMA_3_270M.wheels] == [
        f"gemma-3-270m-q4_k_m.gguf.part{number:02d}" for number in range(4)
    ]
    numbers = [int(re.findall(r"part(\d+)==", wheel.requirement)[0]) for wheel in QWEN_CODER_1_5B.wheels]
    assert numbers == list(range(1, 23))


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownModel, match=r"'gpt-9' is no known model") as caught:
        known_model("gpt-9")
    assert all(name in str(caught.value) for name in KNOWN_MODELS)
