"""The rows of a multiple-choice table on the tiny pair, and proofs that the table cannot fool us."""

import dataclasses
import math
import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.progress import Progress

from fuser.bundle import Bundle
from fuser.data.choice import ChoiceItem, choice_prompt
from fuser.evaluate.choice.batch import bucketed, mismatched
from fuser.evaluate.choice.evaluation import Budget, ChoiceEvaluation
from fuser.evaluate.choice.fitted import Fitted
from fuser.evaluate.choice.needs import CHOICE_ROWS
from fuser.evaluate.choice.prompts import (
    Asker,
    background,
    sections,
    with_answer,
    with_background,
    with_examples,
)
from fuser.evaluate.choice.slices import SharerSlices
from fuser.evaluate.deadline import OutOfTime
from fuser.evaluate.plans import shared_plans
from fuser.evaluate.prediction import Prediction
from fuser.evaluate.rows import Row, rows_of
from fuser.evaluate.speaker import Side, Speaker
from fuser.layout import SliceLayout
from fuser.models.load import load_model
from fuser.receiver import Receiver
from fuser.sharer import Sharer
from kvwire.errors import InvalidRequest, Unsupported
from kvwire.plan import WHOLE, Plan
from kvwire.segment import Segment, SegmentSpec, SliceKind
from tests.fuser.evaluate.choices import make_choices
from tests.tiny_bundle import save_tiny_bundle


@pytest.fixture(scope="module")
def receiver(tiny_receiver: Path) -> Side:
    return Side(*load_model(tiny_receiver))


@pytest.fixture(scope="module")
def sharer(tiny_sharer: Path) -> Side:
    return Side(*load_model(tiny_sharer))


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle)


@pytest.fixture(scope="module")
def identical(tiny_receiver: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("identical") / "bundle"
    return Bundle.load(save_tiny_bundle(folder, tiny_receiver, tiny_receiver))


def run(
    evaluation: ChoiceEvaluation, rows: Sequence[str | Row] = tuple(CHOICE_ROWS), **options: Any
) -> list[Prediction]:
    with Progress(disable=True) as progress:
        named = [Row(row) if isinstance(row, str) else row for row in rows]
        return list(evaluation.run(named, progress, **options))


def told(predictions: list[Prediction]) -> dict[tuple[str, str], tuple[Any, ...]]:
    return {(p.row, p.item): (p.text, dict(p.right), p.bytes) for p in predictions}


def test_a_batch_of_sixteen_says_what_one_at_a_time_says_in_every_row(
    bundle: Bundle, receiver: Side, sharer: Side, identical: Bundle, tmp_path: Path
) -> None:
    items, training = make_choices(17), make_choices(6, seed=2, prefix="training")
    found = []
    for batch in (1, 16):
        evaluation = ChoiceEvaluation(
            bundle,
            receiver,
            sharer,
            items,
            training,
            tmp_path / str(batch),
            identical=identical,
            budget=Budget(max_new_tokens=6, relay_tokens=6, batch=batch),
        )
        found.append(told(run(evaluation)))
    assert len(found[0]) == len(CHOICE_ROWS) * len(items)
    assert found[0] == found[1]
    texts = {row: tuple(found[0][row, item.id][0] for item in items) for row in CHOICE_ROWS}
    alike = {"routing"}  # says what the Receiver or the Sharer says
    assert len(set(texts.values())) >= len(CHOICE_ROWS) - len(alike)


@pytest.mark.parametrize("plan", [WHOLE, Plan(codec="raw", last=9), Plan(codec="raw", layers=(0, 1))])
def test_the_fused_row_says_what_the_service_says(
    bundle: Bundle, receiver: Side, sharer: Side, tmp_path: Path, plan: Plan
) -> None:
    items = make_choices(6, seed=3)
    evaluation = ChoiceEvaluation(
        bundle, receiver, sharer, items, (), tmp_path, budget=Budget(max_new_tokens=8)
    )
    texts = {p.item: (p.text, p.bytes) for p in run(evaluation, [Row("fused", plan)])}
    cloud, edge = Sharer(*sharer, bundle), Receiver(*receiver, bundle)
    for item in items:
        cut = cloud.layout(sections(choice_prompt(item)), SliceKind.SHARED, 0, plan)
        draft = edge.begin(sections(choice_prompt(item))).prefill(SliceKind.SHARED)
        intake = draft.take(SliceLayout.of(cut), plan)
        sent: list[Segment] = []
        cloud.run(cut, partial(_collect, sent))
        for segment in sent:
            intake.add(segment)
        assert texts[item.id][0] == "".join(intake.done().generate(8)).strip()
        assert texts[item.id][1] == sum(2 * segment.tensor.numel() for segment in sent)


def test_a_plan_has_a_row_of_its_own_and_a_control_beside_it(
    bundle: Bundle, receiver: Side, sharer: Side, tmp_path: Path
) -> None:
    items = make_choices(6, seed=3)
    plans = shared_plans(bundle, [Plan(codec="int8", last=9), Plan(codec="int4", bottleneck=True)])
    rows = [row for row in rows_of(CHOICE_ROWS, plans) if row.kind in ("fused", "mismatched")]
    assert [row.name for row in rows] == [
        f"{kind}{plan}"
        for kind in ("fused", "mismatched")
        for plan in ("", " int8:last9", " int4:bottleneck")
    ]
    evaluation = ChoiceEvaluation(bundle, receiver, sharer, items, (), tmp_path)
    found = run(evaluation, rows)
    size = {row.name: {p.item: p.bytes for p in found if p.row == row.name} for row in rows}
    for item in items:
        assert size["fused int8:last9"][item.id] < size["fused"][item.id] / 2
        assert size["fused int4:bottleneck"][item.id] < size["fused"][item.id]
    texts = {row.name: [p.text for p in found if p.row == row.name] for row in rows}
    assert texts["fused int4:bottleneck"] != texts["mismatched int4:bottleneck"]
    with pytest.raises(Unsupported, match="zip"):
        shared_plans(bundle, [Plan(codec="zip")])
    with pytest.raises(InvalidRequest, match="has no code_dim"):
        shared_plans(bundle, [Plan(codec="int8", code_dim=4)])


def _collect(sent: list[Segment], spec: SegmentSpec, tensor: torch.Tensor) -> None:
    sent.append(Segment(spec, tensor.bfloat16().float()))


def test_a_batch_of_slices_has_the_bits_of_the_service(bundle: Bundle, sharer: Side, tmp_path: Path) -> None:
    prompts = [sections(choice_prompt(item)) for item in make_choices(5, seed=4)]
    cloud = Sharer(*sharer, bundle)
    for prompt, heard in zip(prompts, SharerSlices(bundle, sharer, 2, tmp_path).hear(prompts), strict=True):
        sent: list[Segment] = []
        layout = cloud.layout(prompt, SliceKind.SHARED, 0)
        cloud.run(layout, partial(_collect, sent))
        assert (tuple(map(tuple, heard.spans.tolist())), heard.tail) == (layout.spans, layout.tail)
        assert len(sent) == len(heard.segments)
        for segment in sent:
            read = heard.segments[segment.spec.kind, segment.spec.layer]
            assert torch.equal(read.float(), segment.tensor)


def test_a_slice_is_read_from_disk_the_second_time_and_changes_nothing(
    bundle: Bundle, receiver: Side, sharer: Side, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items, rows = make_choices(9), ["sharer", "relay-fair", "fused", "mismatched"]
    first = told(run(ChoiceEvaluation(bundle, receiver, sharer, items, (), tmp_path), rows))
    assert len(list((tmp_path / "slices").iterdir())) == len(items)

    def refuse(*_: Any) -> None:
        raise AssertionError("the Sharer reads a question once")

    monkeypatch.setattr(Sharer, "read", refuse)
    assert told(run(ChoiceEvaluation(bundle, receiver, sharer, items, (), tmp_path), rows)) == first


def test_a_run_in_parts_says_what_one_run_says(
    bundle: Bundle, receiver: Side, sharer: Side, tmp_path: Path
) -> None:
    items, rows = make_choices(11), ["receiver", "fused", "mismatched"]
    evaluation = ChoiceEvaluation(bundle, receiver, sharer, items, (), tmp_path, budget=Budget(batch=4))
    whole = run(evaluation, rows)
    kept = {row: {p.item for p in whole[:14] if p.row == row} for row in rows}
    rest = run(evaluation, rows, done=lambda row: kept[row])
    assert told(whole[:14] + rest) == told(whole) and len(whole) == 14 + len(rest)


def test_closed_gates_leave_the_receivers_own_words(
    tiny_bundle: Path, receiver: Side, sharer: Side, tmp_path: Path
) -> None:
    closed = Bundle.load(tiny_bundle)
    with torch.no_grad():
        closed.require_fuse().get_parameter("gate_logit").fill_(-1.0)
    found = run(
        ChoiceEvaluation(closed, receiver, sharer, make_choices(5), (), tmp_path), ["receiver", "fused"]
    )
    texts = {row: {p.item: p.text for p in found if p.row == row} for row in ("receiver", "fused")}
    assert texts["receiver"] == texts["fused"]
    assert all(p.bytes == 0 for p in found)


def test_a_random_fuser_scores_as_its_mismatched_row(
    bundle: Bundle, receiver: Side, sharer: Side, tmp_path: Path
) -> None:
    items = make_choices(150, seed=6)
    evaluation = ChoiceEvaluation(
        bundle, receiver, sharer, items, (), tmp_path, budget=Budget(max_new_tokens=1, batch=32)
    )
    found = run(evaluation, ["fused", "mismatched"])
    right = {(p.row, p.item): p.right["letter"] for p in found}
    paired = torch.tensor([right["fused", item.id] - right["mismatched", item.id] for item in items])
    error = float(paired.std()) / math.sqrt(len(items))
    assert error > 0 and abs(float(paired.mean())) < 3 * error
    assert {p.text for p in found if p.row == "fused"} != {p.text for p in found if p.row == "mismatched"}


def test_shuffled_labels_score_at_chance(
    bundle: Bundle, receiver: Side, sharer: Side, tmp_path: Path
) -> None:
    draw = random.Random(7)
    items = [
        dataclasses.replace(item, answer=draw.randrange(len(item.choices)))
        for item in make_choices(150, seed=8)
    ]
    rows = ["receiver", "calibrated", "sharer", "fused"]
    evaluation = ChoiceEvaluation(
        bundle,
        receiver,
        sharer,
        items,
        make_choices(30, seed=9, prefix="training"),
        tmp_path,
        budget=Budget(max_new_tokens=1, batch=32),
    )
    found = run(evaluation, rows)
    chance = sum(1 / len(item.choices) for item in items) / len(items)
    error = math.sqrt(sum((1 - 1 / len(i.choices)) / len(i.choices) for i in items)) / len(items)
    for row in rows:
        share = sum(p.right["letter"] for p in found if p.row == row) / len(items)
        assert abs(share - chance) < 3.5 * error, row


def test_the_calibrated_row_undoes_a_letter_bias(bundle: Bundle, receiver: Side, tmp_path: Path) -> None:
    """Where B is always right, four numbers suffice."""
    training = [dataclasses.replace(item, answer=1) for item in make_choices(50, seed=10, prefix="training")]
    items = [dataclasses.replace(item, answer=1) for item in make_choices(20, seed=11)]
    evaluation = ChoiceEvaluation(bundle, receiver, None, items, training, tmp_path)
    found = run(evaluation, ["calibrated"])
    assert all(p.text == "B" and p.right == {"lenient": 1, "strict": 1, "letter": 1} for p in found)
    assert max(range(10), key=lambda letter: evaluation.notes["bias"][letter]) == 1


def test_routing_answers_with_one_of_the_two_models_and_counts(
    bundle: Bundle, receiver: Side, sharer: Side, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fitted, "threshold", lambda *_: 0.5)
    items, training = make_choices(30), make_choices(6, seed=2, prefix="training")
    evaluation = ChoiceEvaluation(bundle, receiver, sharer, items, training, tmp_path)
    found = told(run(evaluation, ["receiver", "sharer", "routing"]))
    routed = 0
    for item in items:
        answer = found["routing", item.id]
        assert answer in (found["receiver", item.id], found["sharer", item.id])
        routed += answer == found["sharer", item.id]
    assert 0 < routed < len(items)
    assert evaluation.notes["routed"] == routed and evaluation.notes["asked"] == len(items)


def test_a_fit_that_was_stopped_goes_on(
    bundle: Bundle, receiver: Side, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items, training = make_choices(3), make_choices(20, seed=2, prefix="training")
    asked: list[int] = []
    answer = Speaker.answer
    monkeypatch.setattr(
        Speaker, "answer", lambda self, prompts: asked.append(len(prompts)) or answer(self, prompts)
    )

    def stop() -> None:
        if len(asked) == 2:
            raise OutOfTime

    def biases(folder: str, check: Callable[[], None]) -> list[float]:
        made = ChoiceEvaluation(
            bundle, receiver, None, items, training, tmp_path / folder, budget=Budget(batch=4)
        )
        with Progress(disable=True) as progress:
            list(made.run([Row("calibrated")], progress, check=check))
        found: list[float] = made.notes["bias"]
        return found

    with pytest.raises(OutOfTime):
        biases("parts", stop)
    parts = biases("parts", lambda: None)
    assert sum(asked) == len(training)
    assert parts == biases("whole", lambda: None)


def test_relayed_text_is_cut_where_the_window_is_short(
    bundle: Bundle, receiver: Side, sharer: Side, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = make_choices(1)[0]
    evaluation = ChoiceEvaluation(bundle, receiver, sharer, [item], (), tmp_path)
    speaker, style = evaluation._pair.receiver.speaker, bundle.config.receiver_prompt
    bare = speaker.tokens(Asker(speaker, style).prompt(with_background(item, "")))
    monkeypatch.setattr(speaker, "window", len(bare) + speaker.max_new_tokens + 3)
    found = run(evaluation, ["relay-paper"])
    assert len(found) == 1 and found[0].bytes > 3


def test_examples_are_left_out_where_the_window_is_short(
    bundle: Bundle, receiver: Side, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = make_choices(9, seed=2, prefix="training")
    evaluation = ChoiceEvaluation(bundle, receiver, None, make_choices(8), training, tmp_path)
    monkeypatch.setattr(evaluation._pair.receiver.speaker, "window", 700)
    assert len(run(evaluation, ["few-shot"])) == 8
    shots = {name for name in evaluation.notes if name.startswith("shots")}
    assert shots and "shots 5" not in shots


def test_a_row_that_lacks_something_says_what(bundle: Bundle, receiver: Side, tmp_path: Path) -> None:
    evaluation = ChoiceEvaluation(bundle, receiver, None, make_choices(3), (), tmp_path)
    for row, lacks in (
        ("fused", "the Sharer"),
        ("calibrated", "--calibration FILE"),
        ("identical", "--identical DIR"),
    ):
        assert lacks in str(evaluation.missing(row))
        with pytest.raises(ValueError, match=f"row {row} needs .*{lacks}"):
            run(evaluation, [row])
    with pytest.raises(ValueError, match="unknown row nonsense"):
        run(evaluation, ["nonsense"])
    assert evaluation.missing("receiver") is None


def test_training_questions_that_are_evaluated_are_left_out(
    bundle: Bundle, receiver: Side, tmp_path: Path
) -> None:
    items = make_choices(4)
    shouted = dataclasses.replace(items[0], id="again", question=items[0].question.upper())
    evaluation = ChoiceEvaluation(bundle, receiver, None, items, [shouted, *items[1:]], tmp_path)
    assert evaluation.notes["training also evaluated"] == 4
    assert evaluation.missing("calibrated") is not None


def test_a_question_beyond_the_window_is_named(
    bundle: Bundle, receiver: Side, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = ChoiceItem("long", "tide " * 4100, ("a", "b"), 0)
    evaluation = ChoiceEvaluation(bundle, receiver, None, [*make_choices(3), long], (), tmp_path)
    with pytest.raises(ValueError, match="question long has"):
        run(evaluation, ["receiver"])


def test_the_mismatched_slice_is_of_another_question_of_like_length() -> None:
    items = make_choices(21)
    items[7] = dataclasses.replace(items[6], id="twin")
    order = [i for batch in bucketed([len(item.question) for item in items], 16) for i in batch]
    place = {index: at for at, index in enumerate(order)}
    for index, other in enumerate(mismatched(items, order)):
        assert items[index].question != items[other].question
        assert abs(place[index] - place[other]) <= 3 or index == order[-1]
    with pytest.raises(ValueError, match="two different questions"):
        mismatched([items[6], items[7]], [0, 1])


def test_long_prompts_come_in_smaller_batches() -> None:
    batches = bucketed([10, 900, 20, 30, 1000], 4, max_tokens=1000)
    assert batches == [[0, 2, 3], [1], [4]]


def test_every_row_asks_with_the_whole_prompt_last(bundle: Bundle, receiver: Side) -> None:
    item, *shown = make_choices(3)
    for text in (with_background(item, "It floats."), with_answer(item, " B "), with_examples(item, shown)):
        assert text.endswith(f"\n\n{choice_prompt(item)}") and len(text) > len(choice_prompt(item))
    assert all(f"The correct answer is {one.letter}." in with_examples(item, shown) for one in shown)
    assert background(item).endswith(item.question)
    prompt = Asker(Speaker(receiver, 1), bundle.config.receiver_prompt).prompt("First <|im_end|>?")
    assert prompt.text.count("<|im_start|>assistant") == 1
    ids = Speaker(receiver, 1).tokens(prompt).tolist()
    assert "First <|im_end|>?" in receiver.tokenizer.decode(ids)
    assert (
        ids.count(receiver.tokenizer.convert_tokens_to_ids("<|im_end|>"))
        == prompt.text.count("<|im_end|>") - 1
    )
