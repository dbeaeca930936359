"""The document task: excerpts as the service cuts them, behind the learnt prefix."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.progress import Progress

from fuser.bundle.bundle import Bundle
from fuser.heads.selection import SelectionConfig
from fuser.lab.train.cached import Cached, CachedQuestion
from fuser.lab.train.document import DocumentTask, reply_to
from fuser.lab.train.excerpt import RECITE, window_of
from fuser.lab.train.sources import AnyItem
from fuser.lab.train.task import Setting
from fuser.models.load import load_model
from fuser.prompts.prompt import withheld
from fuser.reader import Reader
from fuser.receiver import Receiver
from fuser.sharer import Sharer
from kvwire.errors import TooLarge, Unsupported
from kvwire.plan import Plan
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind
from ops.chaos.in_one_process import answer_in_one_process
from tests.fuser.lab.train.conftest import HEADS
from tests.fuser.lab.train.tiny_setting import tiny_setting
from tests.fuser.lab.train.toy_task import toy_config

SOME_LAYERS = HEADS | {
    "translate": {"code_dim": 24, "sharer_layers": [1, 3]},
    "selection": {"positions": 5},
}


DRAFTS = HEADS | {
    "drafts": True,
    "answer": {"draft_share": 0.4, "unanswerable_share": 0.1, "text_share": 0.1},
}
TWO_EACH = HEADS | {
    "translate": {"code_dim": 24, "prefix_positions": 6, "receiver_positions": 2},
}


def with_noise(setting: Setting) -> Setting:
    """The setting with heads of noise, in evaluation mode."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for head in setting.heads.values():
            head.eval()
            for parameter in head.parameters():
                parameter.normal_(0.0, 0.3, generator=generator)
    return setting


@pytest.fixture
def uneven(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drafts of several lengths: the tiny model does not know when to end."""
    monkeypatch.setattr(Reader, "_ended", lambda _, said: said[-1] % 5 == 0)


@pytest.fixture
def noisy(setting: Setting) -> Setting:
    return with_noise(setting)


@pytest.mark.parametrize(
    "tables", [HEADS, SOME_LAYERS, TWO_EACH], ids=["all-layers", "some-layers", "two-each"]
)
def test_what_the_receiver_has_in_training_is_what_the_service_gives_it(
    tables: dict[str, Any],
    tiny_sharer: Path,
    tiny_receiver: Path,
    tmp_path: Path,
    items: tuple[AnyItem, ...],
) -> None:
    noisy = with_noise(tiny_setting(tiny_sharer, tiny_receiver, tmp_path, items, tables))
    bundle = Bundle(noisy.bundle, **noisy.heads)  # type: ignore[arg-type]
    sharer = Sharer(*load_model(tiny_sharer), bundle)
    receiver = Receiver(noisy.reading.model, noisy.reading.tokenizer, bundle)
    task = DocumentTask(noisy)
    for batch in task.epoch(2, 0)[:2]:
        with torch.no_grad():
            asked = (withheld(question.text) for _, question in batch.own)
            prefilled = task.receiver.begin(*asked).prefill(SliceKind.EXCERPT)
            prefilled.put(task.slice(batch.own))
        for row, (document, question) in enumerate(batch.own):
            sections = (
                Section(Role.DOCUMENT, Visibility.CLOUD, document_id="it"),
                Section(Role.QUESTION, Visibility.SHARED, text=question.text),
            )
            local = answer_in_one_process(
                sharer, receiver, sections, {"it": document.text}, SliceKind.EXCERPT, 99, 1
            )
            assert prefilled.past.lengths[row] == prefilled.past.slots == local.keys[0].shape[2]
            for layer, (k, v) in enumerate(zip(local.keys, local.values, strict=True)):
                keys, values = prefilled.past.layers[layer]
                torch.testing.assert_close(keys[row], k[0], atol=1e-4, rtol=1e-4)
                torch.testing.assert_close(values[row], v[0], atol=1e-4, rtol=1e-4)


def test_two_positions_a_code_count_twice_in_the_receiver_s_window(
    tiny_sharer: Path, tiny_receiver: Path, tmp_path: Path, items: tuple[AnyItem, ...]
) -> None:
    noisy = with_noise(tiny_setting(tiny_sharer, tiny_receiver, tmp_path, items, TWO_EACH))
    bundle = Bundle(noisy.bundle, **noisy.heads)  # type: ignore[arg-type]
    sharer = Sharer(*load_model(tiny_sharer), bundle)
    receiver = Receiver(noisy.reading.model, noisy.reading.tokenizer, bundle)
    document = noisy.train.documents[0]
    question = document.questions[0].text
    sections = (
        Section(Role.DOCUMENT, Visibility.CLOUD, document_id="it"),
        Section(Role.QUESTION, Visibility.SHARED, text=question),
    )
    asked = (sharer, receiver, sections, {"it": document.text}, SliceKind.EXCERPT, 99, 1)
    before = answer_in_one_process(*asked).keys[0].shape[2]
    (rest,) = receiver.begin(sections).prefill(SliceKind.EXCERPT).rest
    receiver.window = before + len(rest) + 1
    answer_in_one_process(*asked)
    receiver.window -= 1
    with pytest.raises(TooLarge, match="Receiver prompt positions"):
        answer_in_one_process(*asked)


@pytest.mark.usefixtures("uneven")
@pytest.mark.parametrize("quoted", [0, 3])
def test_what_the_receiver_has_of_drafts_in_training_is_what_the_service_gives_it(
    tiny_sharer: Path, tiny_receiver: Path, tmp_path: Path, items: tuple[AnyItem, ...], quoted: int
) -> None:
    tables = DRAFTS | {"translate": TWO_EACH["translate"], "dials": {"quoted": [quoted]}}
    noisy = with_noise(tiny_setting(tiny_sharer, tiny_receiver, tmp_path, items, tables))
    bundle = Bundle(noisy.bundle, **noisy.heads)  # type: ignore[arg-type]
    sharer = Sharer(*load_model(tiny_sharer), bundle)
    receiver = Receiver(noisy.reading.model, noisy.reading.tokenizer, bundle)
    task = DocumentTask(noisy)
    task.modules()["translate"].train()
    seen = set()
    for batch in task.epoch(4, 0)[:2]:
        with torch.no_grad():
            slices, posed = task.posed(batch, "draft")
            prefilled = task.receiver.begin(*(withheld(asked) for asked, _ in posed)).prefill(SliceKind.DRAFT)
            assert slices is not None
            prefilled.put(slices)
        for row, (document, question) in enumerate(batch.own):
            sections = (
                Section(Role.DOCUMENT, Visibility.CLOUD, document_id="it"),
                Section(Role.QUESTION, Visibility.SHARED, text=question.text),
            )
            asked = (sharer, receiver, sections, {"it": document.text}, SliceKind.DRAFT, 99, 1)
            local = answer_in_one_process(*asked, Plan(codec="raw", quoted=quoted))
            length = local.keys[0].shape[2]
            assert prefilled.past.lengths[row] == length
            seen.add(length)
            for layer, (k, v) in enumerate(zip(local.keys, local.values, strict=True)):
                keys, values = (half[row][:, -length:] for half in prefilled.past.layers[layer])
                torch.testing.assert_close(keys, k[0], atol=1e-4, rtol=1e-4)
                torch.testing.assert_close(values, v[0], atol=1e-4, rtol=1e-4)
    assert len(seen) > 1  # drafts of several lengths side by side


@pytest.mark.usefixtures("uneven")
@pytest.mark.parametrize("control", ["draft", "mismatched_draft", "unanswerable_draft"])
def test_a_batch_of_drafts_equals_single_ones(
    tiny_sharer: Path, tiny_receiver: Path, tmp_path: Path, items: tuple[AnyItem, ...], control: str
) -> None:
    task = DocumentTask(with_noise(tiny_setting(tiny_sharer, tiny_receiver, tmp_path, items, DRAFTS)))
    assert control in task.controls
    batch = task.epoch(4, 0)[0]
    with torch.no_grad():
        together = task.loss(batch, control)  # type: ignore[arg-type]
        single = [task.loss(batch.shard(rank, 4), control) for rank in range(4)]  # type: ignore[arg-type]
        excerpts = task.loss(batch, "true")
    losses = torch.stack([outcome.loss for outcome in single])
    assert float((together.loss - losses.mean()).abs()) < 1e-5
    assert not torch.equal(together.loss, excerpts.loss)


def test_a_fixed_share_of_the_steps_has_drafts_and_the_same_of_those_where_the_receiver_abstains(
    tiny_sharer: Path, tiny_receiver: Path, tmp_path: Path, items: tuple[AnyItem, ...]
) -> None:
    task = DocumentTask(with_noise(tiny_setting(tiny_sharer, tiny_receiver, tmp_path, items, DRAFTS)))
    asked = [task.control_at(step) for step in range(1000)]
    counts = {name: asked.count(name) for name in sorted(set(asked))}
    assert counts == {
        "draft": 400,
        "text": 100,
        "true": 400,
        "unanswerable": 60,
        "unanswerable_draft": 40,
    }
    (batch,) = task.epoch(8, 0)[:1]
    said = tuple((d, dataclasses.replace(q, answers=("not stated",))) for d, q in batch.own)
    with torch.no_grad():
        got = task.loss(batch, "unanswerable_draft").loss
        wanted = task.loss(dataclasses.replace(batch, own=said), "mismatched_draft").loss
    assert torch.equal(got, wanted)


def test_without_a_share_of_drafts_all_is_as_it_is_where_none_are_kept(
    tiny_sharer: Path, tiny_receiver: Path, tmp_path: Path, items: tuple[AnyItem, ...]
) -> None:
    answer = {"recite_share": 0.2, "unanswerable_share": 0.2, "text_share": 0.1}
    dials = {"positions": [2, 4, 8], "code_dims": [8, 24], "codecs": ["raw", "hadamard-2"]}
    tables = HEADS | {"answer": answer, "dials": dials}
    losses = []
    for own in ({}, {"drafts": True, "dials": dials | {"quoted": [0, 4]}}):
        setting = with_noise(tiny_setting(tiny_sharer, tiny_receiver, tmp_path, items, tables | own))
        cache = setting.cache  # standardised alike: what is fitted to drafts too would round otherwise
        cache.mean, cache.scale = torch.zeros_like(cache.mean), torch.ones_like(cache.scale)
        task = DocumentTask(setting)
        task.modules()["translate"].train()
        seen = []
        for step, batch in enumerate(task.epoch(2, 3)[:6]):
            torch.manual_seed(step)
            with torch.no_grad():
                seen.append((task.control_at(step), float(task.loss(batch, task.control_at(step)).loss)))
        losses.append((task.controls, seen))
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("written", "quoted", "reply"),
    [
        ("It is under the Third stone, by the door.", [], "third stone"),
        ("the second stone", [], "the second stone"),  # wrong: what it says is relayed, not guessed around
        ("thirds of a stone", [], "thirds of a stone"),
        ("the second stone", [0, 1], "the second stone"),
        ("the second stone", [1, 2], "third stone"),
        ("", [], "third stone"),
    ],
)
def test_the_right_reply_to_a_draft_is_in_what_was_sent(written: str, quoted: list[int], reply: str) -> None:
    spans = torch.tensor([[0, 5], [5, 11], [11, 17]])
    question = CachedQuestion("Where?", ("third stone", "3rd stone"), torch.zeros(3), written=written)
    document = Cached("boxes", "Under third stone", 0, 3, spans, (question,))
    assert reply_to(document, question, torch.tensor(quoted, dtype=torch.int64)) == reply


@pytest.mark.parametrize("control", ["true", "mismatched", "alone", "text"])
def test_a_batch_equals_single_examples(noisy: Setting, control: str) -> None:
    task = DocumentTask(noisy)
    batch = task.epoch(4, 0)[0]
    with torch.no_grad():
        together = task.loss(batch, control)  # type: ignore[arg-type]
        single = [task.loss(batch.shard(rank, 4), control) for rank in range(4)]  # type: ignore[arg-type]
    losses = torch.stack([outcome.loss for outcome in single])
    assert float((together.loss - losses.mean()).abs()) < 1e-5
    assert together.exact.tolist() == [bool(outcome.exact) for outcome in single]


def test_controls_differ_from_the_true_slice(noisy: Setting) -> None:
    task = DocumentTask(noisy)
    batch = task.epoch(4, 0)[0]
    with torch.no_grad():
        losses = [float(task.loss(batch, control).loss) for control in task.controls]
    assert len(set(losses)) == 4


def test_training_reaches_every_parameter_and_nothing_of_the_receiver(noisy: Setting) -> None:
    task = DocumentTask(noisy)
    head = task.modules()["translate"].train()
    task.loss(task.epoch(4, 0)[0], "true").loss.backward()
    missed = [
        name for name, p in head.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)
    ]
    assert [name for name in missed if "prefix" not in name] == []
    assert all(p.grad is None for p in noisy.reading.model.parameters())


def test_in_training_every_step_draws_a_plan_that_its_seed_repeats(
    tiny_sharer: Path, tiny_receiver: Path, tmp_path: Path, items: tuple[AnyItem, ...]
) -> None:
    dials = {"positions": [2, 3, 5], "code_dims": [4, 24], "bits": [0, 3]}
    tables = HEADS | {"selection": {"positions": 5}, "dials": dials}
    task = DocumentTask(with_noise(tiny_setting(tiny_sharer, tiny_receiver, tmp_path, items, tables)))
    own = task.epoch(4, 0)[0].own

    def slice_of(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        with torch.no_grad():
            return task.slice(own)

    whole = slice_of(0)
    assert whole.shape[1] == 5
    task.modules()["translate"].train()
    drawn = [slice_of(seed) for seed in range(30)]
    assert {flat.shape[1] for flat in drawn} == {2, 3, 5}
    assert torch.equal(drawn[7], slice_of(7))
    same_length = [flat for flat in drawn if flat.shape[1] == 5]
    assert any(torch.equal(flat, whole) for flat in same_length)
    assert len({float(flat.sum()) for flat in same_length}) > 2  # cut codes, noisy codes


def _whole_and_drawn(task: DocumentTask) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The slices of the first batch as validation has them, and as 16 steps of training do."""
    own = task.epoch(4, 0)[0].own
    with torch.no_grad():
        whole = task.slice(own)
        task.modules()["translate"].train()
        return whole, [task.slice(own) for _ in range(16)]


def test_in_training_codes_go_through_the_codecs_that_are_named(
    tiny_sharer: Path, tiny_receiver: Path, tmp_path: Path, items: tuple[AnyItem, ...]
) -> None:
    tables = HEADS | {"dials": {"codecs": ["raw", "hadamard-2"]}}
    task = DocumentTask(with_noise(tiny_setting(tiny_sharer, tiny_receiver, tmp_path, items, tables)))
    whole, drawn = _whole_and_drawn(task)
    assert {bool(torch.equal(flat, whole)) for flat in drawn} == {True, False}
    assert len({float(flat.sum()) for flat in drawn}) == 2


def test_a_codec_that_no_bundle_brings_is_refused_by_name(
    tiny_sharer: Path, tiny_receiver: Path, tmp_path: Path, items: tuple[AnyItem, ...]
) -> None:
    tables = HEADS | {"dials": {"codecs": ["transform-2"]}}
    with pytest.raises(Unsupported, match="'transform-2'; known are raw"):
        DocumentTask(tiny_setting(tiny_sharer, tiny_receiver, tmp_path, items, tables))


def test_codes_are_zero_on_average_once_started(setting: Setting) -> None:
    task = DocumentTask(setting)
    with Progress(disable=True) as progress:
        task.start(progress)
    head = task.modules()["translate"]
    with torch.no_grad():
        codes = torch.cat(
            [
                head.encode(setting.cache.raw(d, torch.arange(d.count)))  # type: ignore[operator]
                for d in setting.train.documents
            ]
        )
    assert float(codes.mean(0).abs().max()) < 1e-3 * float(codes.std())


def test_the_start_regresses_and_takes_the_lead_as_prefix(setting: Setting) -> None:
    task = DocumentTask(setting)
    with Progress(disable=True) as progress:
        found = task.start(progress)
    assert 0.1 < found["explained_value"] < 1  # of random models: far from all, and far from nothing
    assert 0.1 < found["explained_key"] < 1
    torch.testing.assert_close(
        setting.heads["translate"].prefix_kv(), setting.reading.prefix_kv(), atol=1e-4, rtol=1e-4
    )


def test_two_positions_of_a_code_start_as_the_receiver_s_own_two(
    tiny_sharer: Path, tiny_receiver: Path, tmp_path: Path, items: tuple[AnyItem, ...]
) -> None:
    setting = tiny_setting(tiny_sharer, tiny_receiver, tmp_path, items, TWO_EACH)
    task = DocumentTask(setting)
    with Progress(disable=True) as progress:
        found = task.start(progress)
    assert found["explained_key"] > 0.05  # of random models: as of one position
    head = task.modules()["translate"]
    assert head.get_parameter("widen.weight").shape[0] == 2 * setting.bundle.receiver_geometry.width
    (batch,) = task.epoch(2, 0)[:1]
    with torch.no_grad():
        assert task.slice(batch.own).shape[1] == 2 * setting.config.selection.positions


def test_a_fixed_share_of_the_steps_reads_text(setting: Setting) -> None:
    task = DocumentTask(setting)
    share = sum(task.control_at(step) == "text" for step in range(200)) / 200
    assert share == pytest.approx(setting.config.answer.text_share, abs=0.01)


def test_a_fixed_share_of_the_steps_wants_the_receiver_to_abstain(
    tiny_sharer: Path, tiny_receiver: Path, tmp_path: Path, items: tuple[AnyItem, ...]
) -> None:
    tables = HEADS | {"answer": {"unanswerable_share": 0.1, "text_share": 0.1, "abstain": "it is not said"}}
    setting = with_noise(tiny_setting(tiny_sharer, tiny_receiver, tmp_path, items, tables))
    task = DocumentTask(setting)
    asked = [task.control_at(step) for step in range(200)]
    assert asked.count("unanswerable") >= 10
    assert asked.count("text") == 20
    assert "unanswerable" in task.controls
    assert (
        "unanswerable" not in DocumentTask(dataclasses.replace(setting, config=toy_config("none"))).controls
    )
    (batch,) = task.epoch(8, 0)[:1]
    said = tuple((d, dataclasses.replace(q, answers=("it is not said",))) for d, q in batch.own)
    with torch.no_grad():
        got = task.loss(batch, "unanswerable").loss
        wanted = task.loss(dataclasses.replace(batch, own=said), "mismatched").loss
        other = task.loss(batch, "mismatched").loss
    assert torch.equal(got, wanted)
    assert not torch.equal(got, other)


def test_a_window_s_own_text_is_asked_of_its_slice(
    tiny_sharer: Path, tiny_receiver: Path, tmp_path: Path, items: tuple[AnyItem, ...]
) -> None:
    tables = HEADS | {"answer": {"recite_share": 0.25, "text_share": 0.1}}
    setting = with_noise(tiny_setting(tiny_sharer, tiny_receiver, tmp_path, items, tables))
    task = DocumentTask(setting)
    asked = [task.control_at(step) for step in range(200)]
    assert (asked.count("recite"), asked.count("text")) == (50, 20)
    (batch,) = task.epoch(8, 0)[:1]
    most = min(setting.config.selection.positions, *(document.count for document, _ in batch.own))
    examples = []
    for document, question in batch.own:
        window = window_of(document, most, 0.5)
        scores = torch.zeros(document.count).index_fill(0, window.positions, 1.0)  # so the rule chooses it
        told = dataclasses.replace(question, text=RECITE, answers=(window.text,), scores=scores)
        examples.append((document, told))
    with torch.no_grad():
        got = task.loss(batch, "recite")
        wanted = task.loss(dataclasses.replace(batch, own=tuple(examples)), "true")
        other = task.loss(batch, "true")
    assert torch.equal(got.loss, wanted.loss)
    assert not torch.equal(got.loss, other.loss)
    task.modules()["translate"].train()
    torch.manual_seed(3)
    first = task.loss(batch, "recite").loss
    assert not torch.equal(first, task.loss(batch, "recite").loss)  # another window
    torch.manual_seed(3)
    assert torch.equal(first, task.loss(batch, "recite").loss)


def test_a_control_that_is_none_is_refused(setting: Setting) -> None:
    task = DocumentTask(setting)
    with pytest.raises(ValueError, match="no control loud"):
        task.loss(task.epoch(2, 0)[0], "loud")  # type: ignore[arg-type]


def test_documents_that_are_all_shorter_than_an_excerpt_are_told(setting: Setting) -> None:
    config = dataclasses.replace(setting.config, selection=SelectionConfig(positions=500))
    with pytest.raises(ValueError, match="no training document of 500 positions"):
        DocumentTask(dataclasses.replace(setting, config=config))
