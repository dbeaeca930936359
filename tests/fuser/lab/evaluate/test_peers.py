"""The closed form alone, and AVP's expected embeddings, on models small enough to know what must come out."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fuser.bundle.bundle import Bundle
from fuser.heads.answerable import Answerable, AnswerableConfig
from fuser.lab.evaluate import peers
from fuser.lab.evaluate.documents import DocumentEvaluation
from fuser.lab.evaluate.evaluation import Given
from fuser.lab.evaluate.models import Model
from fuser.lab.evaluate.questions import DocumentQuestion
from fuser.lab.train.sharer_reading import document_sections
from fuser.prompts.prompt import tokenise
from fuser.reading import prompt_of
from kvwire.plan import WHOLE, Plan
from kvwire.segment import SliceKind
from tests.fuser.lab.evaluate.asking import ask
from tests.identity import save_identity_bundle


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_TEXTS", 12)


@pytest.mark.usefixtures("few")
def test_between_two_of_the_same_model_the_closed_form_nearly_gives_the_receivers_own_kv(
    given: Callable[..., Given], documents: list[DocumentQuestion], tiny_receiver: Path, tmp_path: Path
) -> None:
    identity = Bundle.load(save_identity_bundle(tmp_path / "identity", tiny_receiver))
    same = given(bundle=identity, sharer=Model(str(tiny_receiver)))
    task = DocumentEvaluation(same, documents)
    made = task.transfer.closed_form()
    features = task.transfer.excerpts(WHOLE).features([0])
    own, guessed = (b.require_translate() for b in (identity, made))
    with torch.inference_mode():
        wanted, found = own.expand(own.encode(features)), guessed.expand(guessed.encode(features))
    assert float((found - wanted).square().mean() / wanted.var()) < 0.3
    assert not torch.equal(found, wanted)


@pytest.mark.usefixtures("few")
def test_the_closed_form_sends_all_positions_behind_the_bundles_own_prefix(
    given: Callable[..., Given], documents: list[DocumentQuestion], tmp_path: Path
) -> None:
    plain = given().bundle
    withholding = plain.with_answerable(
        Answerable(AnswerableConfig((0,)), 2 * plain.config.sharer_geometry.layer_width)
    )
    task = DocumentEvaluation(given(bundle=withholding), documents)
    bundle, made = task.given.bundle, task.transfer.closed_form()
    for one, other in zip(*(b.prefix_kv(SliceKind.EXCERPT) for b in (bundle, made)), strict=True):
        torch.testing.assert_close(one, other)
    found = ask(task, tmp_path, "ridge", "receiver", "fused")
    positions = [
        len(task.transfer.excerpts(Plan(codec="raw", positions=1 << 20)).positions(i))
        for i in range(len(documents))
    ]
    sizes = [found["ridge", q.id].bytes for q in documents]
    assert sizes == [4 * bundle.require_translate().code_dim * count for count in positions]
    said = {row: [found[row, q.id].text for q in documents] for row in ("ridge", "receiver", "fused")}
    assert said["ridge"] not in (said["receiver"], said["fused"])


def test_a_tokens_embedding_is_its_own_in_one_vocabulary_and_is_read_as_the_token_is(
    given: Callable[..., Given], documents: list[DocumentQuestion], tiny_receiver: Path, tmp_path: Path
) -> None:
    identity = Bundle.load(save_identity_bundle(tmp_path / "identity", tiny_receiver))
    task = DocumentEvaluation(given(bundle=identity, sharer=Model(str(tiny_receiver))), documents)
    receiver, projected = task.transfer.receiver, task.transfer.projected(WHOLE)
    table = receiver.model.get_input_embeddings().weight
    ids = tokenise(receiver.tokenizer, "bay 14 of the depot").ids
    torch.testing.assert_close(projected.embeddings[ids], table[ids])
    reading, before = task.transfer._reading
    torch.testing.assert_close(
        projected.read(projected.embeddings[ids]), reading.read(ids, before)[1], atol=1e-4, rtol=1e-4
    )


def test_what_is_expected_at_a_position_is_what_the_sharer_would_say_next(
    given: Callable[..., Given], documents: list[DocumentQuestion], tmp_path: Path
) -> None:
    task = DocumentEvaluation(given(), documents)
    sharer, plan = task.given.sharer, Plan(codec="raw", positions=4)
    projected = task.transfer.projected(plan)
    asked, at = documents[0], task.transfer.excerpts(plan).positions(0)
    prompt = prompt_of(
        sharer.tokenizer,
        task.given.bundle.config.sharer_prompt,
        document_sections(asked.document, asked.question),
    )
    with torch.inference_mode():
        chances = sharer.network(prompt.tokens.ids[None]).logits[0, prompt.document[at]].softmax(1)
    written = len(projected.embeddings)
    torch.testing.assert_close(
        projected.projected(0), chances[:, :written] @ projected.embeddings, atol=1e-5, rtol=1e-4
    )
    found = ask(task, tmp_path, "avp", "receiver", "own", plans=[plan])
    width = task.transfer.receiver.model.config.hidden_size
    assert {found["avp raw:m4", q.id].bytes for q in documents if q.document != "Bay 14."} == {2 * 4 * width}
    said = [
        [p.text for (row, _), p in found.items() if row == name]
        for name in ("avp raw:m4", "receiver", "own raw:m4")
    ]
    assert len(set(map(tuple, said))) == 3
