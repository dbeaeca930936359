"""The real pair and the bundle that ships, over real Ray, gRPC and TLS: bit for bit what one process computes.

Both sides compute in what the configuration takes by itself on this machine.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from kvwire.segment import Segment, SliceHeader, SliceKind
from ops.chaos.in_one_process import answer_in_one_process, cache_of
from ops.demo.samples import load_samples
from tests.cloud_fixture import CloudNode, start_cloud
from tests.e2e.prompts import DOCUMENTS, Prompt

if TYPE_CHECKING:
    from edge_node import EdgeConfig
    from fuser.heads.fusing import Intake
    from fuser.receiver import Prefilled, Receiver
    from fuser.sharer import Sharer
    from ops.certs import Certificates

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(300)]

RECORDS = {sample.id: sample.text for sample in load_samples()[:3]}
PROMPTS = [
    *(Prompt(sample.questions[0].text, sample.id, None) for sample in load_samples()[:3]),
    Prompt("谁有钥匙？", "chinese", None),
    Prompt("What is sold, and what does it cost?", "json", None),
    Prompt("?", "emoji", "The meeting is on Thursday."),
]
TOKENS = 8


@pytest.fixture(scope="module")
def bundle() -> Path:
    from ops.demo.pair import BUNDLE

    return BUNDLE


@pytest.fixture(scope="module")
def real_cloud(
    tmp_path_factory: pytest.TempPathFactory,
    real_pair: tuple[Path, Path],
    bundle: Path,
    certificates: "Certificates",
) -> Iterator[CloudNode]:
    from cloud_node.documents import Documents

    settings = {"sharer": {"max_prompt_tokens": 0, "dtype": "auto"}}
    node = start_cloud(tmp_path_factory.mktemp("real"), real_pair[0], bundle, certificates, settings)
    documents = Documents(f"sqlite:///{node.directory / 'documents.db'}")
    for document_id, text in (DOCUMENTS | RECORDS).items():
        documents.add("acme", document_id, text, None, replace=True)
    documents.close()
    yield node
    node.stop()


@pytest.fixture(scope="module")
def real_config(edge_config: "EdgeConfig", real_cloud: CloudNode) -> "EdgeConfig":
    return dataclasses.replace(
        edge_config,
        cloud=dataclasses.replace(edge_config.cloud, address=real_cloud.address),
        share=dataclasses.replace(edge_config.share, max_positions=16),
    )


@pytest.fixture(scope="module")
def sharer(real_pair: tuple[Path, Path], bundle: Path) -> "Sharer":
    from fuser.bundle.bundle import Bundle
    from fuser.models.load import dtype_of, load_model
    from fuser.sharer import Sharer

    return Sharer(*load_model(real_pair[0], dtype=dtype_of("auto")), Bundle.load(bundle))


@pytest.fixture(scope="module")
def receiver(real_pair: tuple[Path, Path], bundle: Path) -> "Receiver":
    from fuser.bundle.bundle import Bundle
    from fuser.models.load import dtype_of, load_model
    from fuser.receiver import Receiver

    return Receiver(*load_model(real_pair[1], dtype=dtype_of("auto")), Bundle.load(bundle))


def test_the_real_pair_over_the_wire_equals_one_process_bit_for_bit(
    real_config: "EdgeConfig", sharer: "Sharer", receiver: "Receiver"
) -> None:
    from edge_node import Client
    from fuser.slice_specs import SliceLayout

    texts = DOCUMENTS | RECORDS
    with Client(real_config) as client:
        for prompt in PROMPTS:
            local = answer_in_one_process(
                sharer, receiver, prompt.sections, texts, SliceKind.EXCERPT, 16, TOKENS
            )
            prefilled = receiver.begin(prompt.sections).prefill(SliceKind.EXCERPT)
            intake: Intake[Prefilled] | None = None
            arrived: list[Segment] = []
            for part in client.share(prompt.sections, receiver.bundle, kind=SliceKind.EXCERPT):
                if isinstance(part, SliceHeader):
                    intake = prefilled.take(SliceLayout.of(part))
                elif isinstance(part, Segment):
                    assert intake is not None
                    arrived.append(part)
                    intake.add(part)
            assert intake is not None and intake.done() is prefilled
            assert arrived and len(arrived) == len(local.segments)
            assert all(torch.equal(a.tensor, b.tensor) for a, b in zip(arrived, local.segments, strict=True))
            keys, values = cache_of(prefilled)
            assert all(torch.equal(a, b) for a, b in zip(keys, local.keys, strict=True))
            assert all(torch.equal(a, b) for a, b in zip(values, local.values, strict=True))
            assert "".join(prefilled.generate(TOKENS)) == local.text
            assert prefilled.tokens == local.prefilled.tokens


def test_the_slice_of_a_record_changes_what_the_real_receiver_answers(
    sharer: "Sharer", receiver: "Receiver"
) -> None:
    for prompt in PROMPTS[:3]:
        local = answer_in_one_process(
            sharer, receiver, prompt.sections, RECORDS, SliceKind.EXCERPT, 16, TOKENS
        )
        alone = receiver.begin(prompt.sections).prefill(None)
        assert "".join(alone.generate(TOKENS)) != local.text
