"""Slices at every dial: those of the service, with the bytes that travel; and the ceilings without a Fuser."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fuser.bundle.bundle import Bundle
from fuser.heads.translate import features_of
from fuser.kv.rope import Rope
from fuser.lab.evaluate.documents import ANSWER_TOKENS, DocumentEvaluation
from fuser.lab.evaluate.evaluation import Given, TimeLimit
from fuser.lab.evaluate.excerpts import QuestionSlices, ReceiversOwn
from fuser.lab.evaluate.models import Dtype, Model
from fuser.lab.evaluate.prediction import Prediction
from fuser.lab.evaluate.questions import DocumentQuestion
from fuser.lab.evaluate.score import first_line
from fuser.lab.evaluate.sharer_cache import read_documents
from fuser.lab.train.reading import FrozenReceiver
from fuser.models.load import load_model
from fuser.prompts.prompt import Rendered, tokenise
from fuser.prompts.shared import read_as
from fuser.receiver import Receiver
from fuser.sharer import Sharer
from kvwire.codec import CodecRegistry
from kvwire.plan import WHOLE, Plan
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SegmentKind, SegmentSpec, SliceKind
from ops.chaos.in_one_process import answer_in_one_process
from tests.fuser.lab.evaluate.asking import QUIET
from tests.fuser.lab.evaluate.asking import ask as ask_rows
from tests.identity import save_identity_bundle

SHORT = Plan(codec="raw", positions=4, code_dim=10)
SMALL = Plan(codec="int8", code_dim=16, padded=True)
LEAD = "Read what follows.\n"
Answers = dict[str, dict[str, Prediction]]


@pytest.fixture
def asked(documents: list[DocumentQuestion]) -> list[DocumentQuestion]:
    """A few of the questions, one of them over a document that is shorter than an excerpt."""
    return [*documents[:7], next(q for q in documents if q.document == "Bay 14.")]


@pytest.fixture
def ask(tmp_path: Path, asked: list[DocumentQuestion], given: Callable[..., Given]) -> Callable[..., Answers]:
    """Answers of rows, by line and question."""

    def run(
        bundle: Path, sharer: Path, receiver: Path, plans: list[Plan], *rows: str, dtype: Dtype = "float32"
    ) -> Answers:
        models = Model(str(sharer), dtype), Model(str(receiver), dtype)
        task = DocumentEvaluation(
            given(bundle=Bundle.load(bundle), sharer=models[0], receiver=models[1]), asked
        )
        found: Answers = {}
        for (line, item), one in ask_rows(task, tmp_path / f"{len(rows)}{dtype}", *rows, plans=plans).items():
            found.setdefault(line, {})[item] = one
        return found

    return run


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_fewer_positions_and_shorter_codes_answer_as_the_service_does(
    dtype: Dtype,
    ask: Callable[..., Answers],
    asked: list[DocumentQuestion],
    tiny_bundle: Path,
    tiny_sharer: Path,
    tiny_receiver: Path,
) -> None:
    found = ask(tiny_bundle, tiny_sharer, tiny_receiver, [WHOLE, SHORT], "fused", dtype=dtype)
    bundle = Bundle.load(tiny_bundle)
    sharer, receiver = Model(str(tiny_sharer), dtype), Model(str(tiny_receiver), dtype)
    pair = (
        Sharer(sharer.network, sharer.tokenizer, bundle),
        Receiver(receiver.network, receiver.tokenizer, bundle),
    )
    same = 0
    for question in asked:
        sections = (
            Section(Role.DOCUMENT, Visibility.CLOUD, document_id="note"),
            Section(Role.QUESTION, Visibility.SHARED, text=question.question),
        )
        local = answer_in_one_process(
            *pair, sections, {"note": question.document}, SliceKind.EXCERPT, 12, ANSWER_TOKENS, SHORT
        )
        said = found["fused raw:m4:10"][question.id]
        same += said.text == first_line(local.text)
        assert said.bytes == sum(segment.spec.raw_bytes for segment in local.segments)
    assert same >= len(asked) - 2  # the cache holds features in half precision: near-ties may tip over
    texts = [[p.text for p in found[row].values()] for row in ("fused", "fused raw:m4:10")]
    assert texts[0] != texts[1]


def test_bytes_are_those_of_the_codec(
    ask: Callable[..., Answers],
    tiny_bundle: Path,
    tiny_sharer: Path,
    tiny_receiver: Path,
) -> None:
    found = ask(tiny_bundle, tiny_sharer, tiny_receiver, [SMALL], "fused", "excerpt-text", "own")
    most = CodecRegistry().get("int8").max_bytes(SegmentSpec(0, SegmentKind.CODE, -1, (12, 16), "float32"))
    sizes = {p.bytes for p in found["fused int8:16:padded"].values()}
    assert max(sizes) == most + 4, "padding adds its length"
    assert found.keys() == {"fused int8:16:padded", "excerpt-text", "own"}
    assert {p.bytes for p in found["own"].values()} == {0}


def test_without_a_loss_in_translation_the_slice_reads_as_the_receivers_own(
    ask: Callable[..., Answers], asked: list[DocumentQuestion], tiny_receiver: Path, tmp_path: Path
) -> None:
    identity = save_identity_bundle(tmp_path / "identity", tiny_receiver)
    rows = ("own", "fused", "receiver")
    found = ask(identity, tiny_receiver, tiny_receiver, [Plan(codec="raw", positions=6)], *rows)

    def alike(one: str, other: str) -> int:
        return sum(found[one][q.id].text == found[other][q.id].text for q in asked)

    nearly = len(asked) - 1  # half precision in the cache
    assert alike("own raw:m6", "fused raw:m6") >= nearly
    assert alike("own raw:m6", "receiver") < nearly


def read_plainly(receiver: Path, before: str, text: str) -> tuple[Tensor, Tensor]:
    """KV of a text's tokens behind another text, from one pass over both, keys re-based; and the tokens' characters."""
    network, tokenizer = load_model(receiver)
    lead, tokens = tokenise(tokenizer, Rendered(before, (), 0)).ids, tokenise(tokenizer, text)
    ids = torch.cat((lead, tokens.ids))
    with torch.inference_mode():
        layers = network(ids[None], use_cache=True).past_key_values.layers
    keys, values = (torch.stack([getattr(layer, half)[0] for layer in layers]) for half in ("keys", "values"))
    keys = Rope(network).unrotate_all(keys, torch.arange(len(ids)))
    return features_of(keys, values)[len(lead) :], tokens.offsets


@pytest.mark.parametrize("each", [1, 2])
def test_the_receivers_own_rows_are_what_it_reads_at_the_tokens_that_the_sharer_chose(
    each: int,
    documents: list[DocumentQuestion],
    tiny_bundle: Path,
    tiny_sharer: Path,
    tiny_receiver: Path,
    tmp_path: Path,
) -> None:
    bundle, receiver = Bundle.load(tiny_bundle), Model(str(tiny_receiver))
    sharer = Model(str(tiny_sharer))
    cache, _ = read_documents(documents, bundle, sharer, tmp_path, QUIET, TimeLimit())
    excerpts = QuestionSlices(bundle, cache, documents, SliceKind.EXCERPT, WHOLE)
    style = bundle.config.receiver_prompt
    reading = FrozenReceiver(receiver.network, receiver.tokenizer, style, "")
    lead = tokenise(receiver.tokenizer, Rendered(style.opening + LEAD, (), 0)).ids
    own = ReceiversOwn(reading, reading.read(lead, [])[0], excerpts, each)
    longest = [i for i in range(len(documents)) if own.count(i) == bundle.config.selection.positions]
    others = [i for i in range(len(documents)) if i not in longest]
    assert len(longest) > 10 and len(others) > 1
    apart: set[bool] = set()
    for indices in (longest[:1], others, longest[:0:-1]):
        taken, sent = own.take(indices)
        assert sent == [0] * len(indices)
        assert taken.shape == (len(indices), each * own.count(indices[0]), reading.geometry.width)
        for index, rows in zip(indices, taken, strict=True):
            kv, offsets = read_plainly(tiny_receiver, style.opening + LEAD, documents[index].document)
            spans = excerpts.document(index)[1][excerpts.positions(index)]
            at = read_as(spans, offsets, each)
            torch.testing.assert_close(rows, kv[at.flatten()], atol=1e-4, rtol=1e-4)
            if each == 1:
                shared = torch.minimum(spans[:, 1:], offsets[:, 1]) - torch.maximum(
                    spans[:, :1], offsets[:, 0]
                )
                assert torch.equal(shared.gather(1, at)[:, 0], shared.amax(1))
            else:
                starts, ends = offsets[at].unbind(2)
                first_and_last = torch.stack((spans[:, 0], spans[:, 1] - 1), 1)
                assert bool(((starts <= first_and_last) & (first_and_last < ends)).all())
                apart |= set((at[:, 0] != at[:, 1]).tolist())
    assert each == 1 or apart == {False, True}, "tokens that the Receiver reads as one, and as several"
