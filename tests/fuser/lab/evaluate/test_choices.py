"""The rows of a multiple-choice table on the tiny pair, and proofs that the table cannot fool us."""

import dataclasses
import math
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from fuser.bundle.bundle import Bundle
from fuser.lab.evaluate.choices import ROWS, ChoiceTask, mismatched, with_answer
from fuser.lab.evaluate.evaluation import Given, OutOfTime, TimeLimit, bucketed
from fuser.lab.evaluate.models import Model
from fuser.lab.evaluate.plans import shared_plans
from fuser.lab.evaluate.prediction import Prediction
from fuser.lab.evaluate.shared_slices import SharerSlices
from fuser.lab.evaluate.speaker import Speaker, sections
from fuser.prompts.choice import ChoiceItem, choice_prompt
from fuser.receiver import Receiver
from fuser.sharer import Sharer
from fuser.slice_specs import MAX_WRITTEN, SliceLayout
from kvwire.errors import InvalidRequest, Unsupported
from kvwire.plan import WHOLE, Plan
from kvwire.segment import Segment, SegmentSpec, SliceKind
from ops.chaos.in_one_process import answer_in_one_process
from ops.chaos.tiny_bundle import save_tiny_bundle
from tests.fuser.lab.evaluate.asking import ask
from tests.fuser.lab.evaluate.choices import make_choices

Make = Callable[..., ChoiceTask]
EVERY = tuple(row.name for row in ROWS if not row.on_request and row.name != "random")  # of its batch


@pytest.fixture(scope="module")
def receiver(tiny_receiver: Path) -> Model:
    return Model(str(tiny_receiver))


@pytest.fixture(scope="module")
def sharer(tiny_sharer: Path) -> Model:
    return Model(str(tiny_sharer))


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle)


@pytest.fixture(scope="module")
def identical(tiny_receiver: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("identical") / "bundle"
    return Bundle.load(save_tiny_bundle(folder, tiny_receiver, tiny_receiver))


@pytest.fixture
def make(bundle: Bundle, sharer: Model, receiver: Model, tmp_path: Path) -> Make:
    """Makes a task over questions; what it reads and fits is kept in the folder, below tmp_path."""

    def made(items: list[ChoiceItem], *, folder: str = "work", **options: Any) -> ChoiceTask:
        work = tmp_path / folder
        work.mkdir(exist_ok=True)
        pair = {"bundle": bundle, "identical": None, "batch": 16}
        pair |= {name: options.pop(name) for name in pair if name in options}
        return ChoiceTask(Given(sharer=sharer, receiver=receiver, work=work, **pair), items, work, **options)

    return made


def told(predictions: dict[tuple[str, str], Prediction]) -> dict[tuple[str, str], tuple[Any, ...]]:
    return {at: (p.text, dict(p.right), p.bytes) for at, p in predictions.items()}


def test_a_batch_of_eight_says_what_one_at_a_time_says_in_every_row(
    make: Make, identical: Bundle, tmp_path: Path
) -> None:
    items, training = make_choices(9), make_choices(6, seed=2, prefix="training")
    found = []
    for batch in (1, 8):
        given: dict[str, Any] = {"identical": identical, "batch": batch, "max_new_tokens": 6}
        task = make(items, folder=str(batch), training=training, **given)
        found.append(told(ask(task, tmp_path / f"log {batch}", *EVERY)))
    assert len(found[0]) == len(EVERY) * len(items)
    assert found[0] == found[1]
    texts = {row: tuple(found[0][row, item.id][0] for item in items) for row in EVERY}
    assert len(set(texts.values())) == len(EVERY)


@pytest.mark.parametrize("plan", [WHOLE, Plan(codec="raw", last=9), Plan(codec="raw", layers=(0, 1))])
def test_the_fused_row_says_what_the_service_says(
    make: Make, bundle: Bundle, sharer: Model, receiver: Model, tmp_path: Path, plan: Plan
) -> None:
    items = make_choices(6, seed=3)
    found = ask(make(items, max_new_tokens=8), tmp_path, "fused", plans=[plan])
    texts = {item: (p.text, p.bytes) for (_, item), p in found.items()}
    cloud = Sharer(sharer.network, sharer.tokenizer, bundle)
    edge = Receiver(receiver.network, receiver.tokenizer, bundle)
    for item in items:
        cut = cloud.layout(sections(choice_prompt(item)), SliceKind.SHARED, 0, plan)
        prefilled = edge.begin(sections(choice_prompt(item))).prefill(SliceKind.SHARED)
        intake = prefilled.take(SliceLayout.of(cut), plan)
        sent: list[Segment] = []
        cloud.run(cut, partial(_collect, sent))
        for segment in sent:
            intake.add(segment)
        assert texts[item.id][0] == "".join(intake.done().generate(8)).strip()
        assert texts[item.id][1] == sum(2 * segment.tensor.numel() for segment in sent)


def test_a_plan_has_a_row_of_its_own_and_a_control_beside_it(
    make: Make, bundle: Bundle, tmp_path: Path
) -> None:
    items = make_choices(6, seed=3)
    plans = shared_plans(bundle, [Plan(codec="int8", last=9), Plan(codec="int4", bottleneck=True)])
    found = ask(make(items), tmp_path, "fused", "mismatched", plans=plans)
    ways = ("", " int8:last9", " int4:bottleneck")
    names = [f"{row}{way}" for row in ("fused", "mismatched") for way in ways]
    assert list(dict.fromkeys(name for name, _ in found)) == names
    for item in items:
        size = {name: found[name, item.id].bytes for name in names}
        assert size["fused int8:last9"] < size["fused"] / 2
        assert size["fused int4:bottleneck"] < size["fused"]
    texts = {name: [found[name, item.id].text for item in items] for name in names}
    assert texts["fused int4:bottleneck"] != texts["mismatched int4:bottleneck"]
    with pytest.raises(Unsupported, match="zip"):
        shared_plans(bundle, [Plan(codec="zip")])
    with pytest.raises(InvalidRequest, match="has no code_dim"):
        shared_plans(bundle, [Plan(codec="int8", code_dim=4)])


def _collect(sent: list[Segment], spec: SegmentSpec, tensor: torch.Tensor) -> None:
    sent.append(Segment(spec, tensor.bfloat16().float()))


def test_a_batch_of_slices_has_the_bits_of_the_service(bundle: Bundle, sharer: Model, tmp_path: Path) -> None:
    prompts = [sections(choice_prompt(item)) for item in make_choices(5, seed=4)]
    cloud = Sharer(sharer.network, sharer.tokenizer, bundle)
    for prompt, heard in zip(prompts, SharerSlices(bundle, sharer, tmp_path).hear(prompts), strict=True):
        sent: list[Segment] = []
        layout = cloud.layout(prompt, SliceKind.SHARED, 0)
        cloud.run(layout, partial(_collect, sent))
        assert (tuple(map(tuple, heard.spans.tolist())), heard.tail) == (layout.spans, layout.tail)
        assert len(sent) == len(heard.segments)
        for segment in sent:
            read = heard.segments[segment.spec.kind, segment.spec.layer]
            assert torch.equal(read.float(), segment.tensor)


def test_a_slice_is_read_from_disk_the_second_time_and_changes_nothing(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items, rows = make_choices(9), ["fused", "mismatched"]
    first = told(ask(make(items), tmp_path / "first", *rows))
    assert len(list((tmp_path / "work" / "slices").iterdir())) == len(items)

    def refuse(*_: Any) -> None:
        raise AssertionError("the Sharer reads a question once")

    monkeypatch.setattr(Sharer, "read", refuse)
    assert told(ask(make(items), tmp_path / "second", *rows)) == first


def test_a_run_in_parts_says_what_one_run_says(make: Make, tmp_path: Path) -> None:
    items, rows = make_choices(11), ["receiver", "fused", "mismatched"]
    whole = told(ask(make(items, batch=4), tmp_path / "whole", *rows))
    path = tmp_path / "parts" / "predictions.jsonl"
    path.parent.mkdir()
    lines = (tmp_path / "whole" / "predictions.jsonl").read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:14]), "utf-8")
    assert told(ask(make(items, batch=4), tmp_path / "parts", *rows)) == whole
    assert len(path.read_text("utf-8").splitlines()) == len(lines)


def test_closed_gates_leave_the_receivers_own_words(tiny_bundle: Path, make: Make, tmp_path: Path) -> None:
    closed = Bundle.load(tiny_bundle)
    with torch.no_grad():
        closed.require_fuse().get_parameter("gate_logit").fill_(-1.0)
    items = make_choices(5)
    found = told(ask(make(items, bundle=closed), tmp_path, "receiver", "fused"))
    assert all(found["receiver", item.id] == found["fused", item.id] for item in items)
    assert all(size == 0 for _, _, size in found.values())


def test_a_random_fuser_scores_as_its_mismatched_row(make: Make, tmp_path: Path) -> None:
    items = make_choices(150, seed=6)
    found = ask(make(items, max_new_tokens=1, batch=32), tmp_path, "fused", "mismatched")
    right = {at: p.right["letter"] for at, p in found.items()}
    paired = torch.tensor([right["fused", item.id] - right["mismatched", item.id] for item in items])
    error = float(paired.std()) / math.sqrt(len(items))
    assert error > 0 and abs(float(paired.mean())) < 3 * error
    assert any(found["fused", item.id].text != found["mismatched", item.id].text for item in items)


def test_shuffled_labels_score_at_chance(make: Make, tmp_path: Path) -> None:
    draw = random.Random(7)
    items = [
        dataclasses.replace(item, answer=draw.randrange(len(item.choices)))
        for item in make_choices(150, seed=8)
    ]
    rows = ["receiver", "calibrated", "sharer", "fused"]
    training = make_choices(30, seed=9, prefix="training")
    found = ask(make(items, training=training, max_new_tokens=1, batch=32), tmp_path, *rows)
    chance = sum(1 / len(item.choices) for item in items) / len(items)
    error = math.sqrt(sum((1 - 1 / len(i.choices)) / len(i.choices) for i in items)) / len(items)
    for row in rows:
        right = sum(found[row, item.id].right["letter"] for item in items) / len(items)
        assert abs(right - chance) < 3.5 * error, row


def test_the_calibrated_row_undoes_a_letter_bias(make: Make, tmp_path: Path) -> None:
    """Where B is always right, four numbers suffice."""
    training = [dataclasses.replace(item, answer=1) for item in make_choices(50, seed=10, prefix="training")]
    task = make(
        [dataclasses.replace(item, answer=1) for item in make_choices(20, seed=11)], training=training
    )
    found = ask(task, tmp_path, "calibrated")
    right = {"lenient": 1, "strict": 1, "letter": 1}
    assert all(p.text == "B" and p.right == right for p in found.values())
    assert max(range(10), key=lambda letter: task.notes["bias"][letter]) == 1


def test_a_fit_that_was_stopped_goes_on(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items, training = make_choices(3), make_choices(20, seed=2, prefix="training")
    asked: list[int] = []
    answer = Speaker.answer
    monkeypatch.setattr(
        Speaker, "answer", lambda self, texts: asked.append(len(texts)) or answer(self, texts)
    )

    class Second(TimeLimit):
        def check(self) -> None:
            if len(asked) == 2:
                raise OutOfTime

    def bias(folder: str, deadline: TimeLimit) -> Any:
        task = make(items, folder=folder, training=training, batch=4)
        ask(task, tmp_path / f"log {folder}", "calibrated", deadline=deadline)
        return task.notes["bias"]

    with pytest.raises(OutOfTime):
        bias("parts", Second())
    parts = bias("parts", TimeLimit())
    assert sum(asked) == len(training)
    assert parts == bias("whole", TimeLimit())


def test_relayed_text_is_cut_where_the_window_is_short(
    make: Make, receiver: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (item,) = make_choices(1)
    task = make([item])
    bare = task.receiver.tokens(with_answer(item, ""))
    monkeypatch.setattr(receiver, "window", len(bare) + task.receiver.max_new_tokens + 3)
    (found,) = ask(task, tmp_path, "relay-fair").values()
    assert found.bytes > 3


def test_a_row_that_lacks_something_says_what(make: Make) -> None:
    task = make(make_choices(3))
    for row, lacks in (("calibrated", "the key calibration"), ("identical", "the key identical")):
        assert lacks in str(ROWS[row].needs(task))
    assert ROWS["receiver"].needs(task) is None
    assert "two different questions" in str(ROWS["mismatched"].needs(make(make_choices(1))))


def test_training_questions_that_are_evaluated_are_left_out(make: Make) -> None:
    items = make_choices(4)
    shouted = dataclasses.replace(items[0], id="again", question=items[0].question.upper())
    task = make(items, training=[shouted, *items[1:]])
    assert task.notes["training also evaluated"] == 4
    assert ROWS["calibrated"].needs(task) is not None


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
    batches = bucketed([10, 900, 20, 30, 1000], 4, most=1000)
    assert batches == [[0, 2, 3], [1], [4]]


def test_every_row_asks_with_the_whole_prompt_last(bundle: Bundle, receiver: Model) -> None:
    (item,) = make_choices(1)
    text = with_answer(item, " B ")
    assert text.endswith(f"\n\n{choice_prompt(item)}") and len(text) > len(choice_prompt(item))
    speaker = Speaker(receiver, bundle.config.receiver_prompt, 1)
    ids = speaker.tokens("First <|im_end|>?").tolist()
    assert "First <|im_end|>?" in receiver.tokenizer.decode(ids)
    ends = [
        speaker.tokens(text).tolist().count(receiver.tokenizer.eos_token_id)
        for text in ("First", "<|im_end|>")
    ]
    assert ends[0] == ends[1], "control tokens in a text are spelt out"


def test_drafted_answers_are_those_behind_the_drafts_that_the_service_would_send(
    make: Make, bundle: Bundle, sharer: Model, receiver: Model, tmp_path: Path
) -> None:
    items, plans = make_choices(6), [WHOLE, Plan(codec="raw", positions=2, code_dim=10)]
    task = make(items)
    found = ask(task, tmp_path, "drafted", "drafted-mismatched", "receiver", plans=plans)
    pair = (
        Sharer(sharer.network, sharer.tokenizer, bundle),
        Receiver(receiver.network, receiver.tokenizer, bundle),
    )
    for plan in plans:
        name = "" if plan == WHOLE else f" {plan}"
        local = [
            answer_in_one_process(
                *pair, sections(choice_prompt(i)), {}, SliceKind.DRAFT, MAX_WRITTEN, 16, plan
            )
            for i in items
        ]
        for item, one in zip(items, local, strict=True):
            said = found[f"drafted{name}", item.id]
            assert said.text == one.text.strip()
            assert said.bytes == sum(segment.spec.raw_bytes for segment in one.segments)
        strangers = [items[other] for other in task.mismatched]
        for item, other in zip(items, strangers, strict=True):
            sizes = [
                found[row, i.id].bytes
                for row, i in ((f"drafted-mismatched{name}", item), (f"drafted{name}", other))
            ]
            assert sizes[0] == sizes[1], "the draft is the other's"
    rows = ("drafted", f"drafted {plans[1]}", "drafted-mismatched", "receiver")
    assert len({tuple(found[row, item.id].text for item in items) for row in rows}) == len(rows)
    bare = Bundle(dataclasses.replace(bundle.config, translate=None), fuse=bundle.fuse)
    assert "translate head" in str(ROWS["drafted-mismatched"].needs(make(items, bundle=bare)))
    assert "two different" in str(ROWS["drafted-mismatched"].needs(make(items[:1])))
