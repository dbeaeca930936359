"""With the `raw` codec, Ray, gRPC and TLS in between change no bit: segments, cache and greedy tokens are equal."""

from collections.abc import Iterator

import pytest
import torch

from edge_node import Ask, Assistant, Client, EdgeConfig
from fuser.heads.fusing import Intake
from fuser.receiver import Prefilled, Receiver
from fuser.sharer import Sharer
from fuser.slice_specs import SliceLayout
from kvwire.plan import Plan
from kvwire.section import Visibility
from kvwire.segment import Segment, SliceHeader, SliceKind, SliceTrailer
from ops.chaos.in_one_process import LocalAnswer, answer_in_one_process, cache_of, first_line
from tests.e2e.prompts import DOCUMENTS, PROMPTS, Prompt

TOKENS = 12
CASES = [
    (number, prompt, kind)
    for number, prompt in enumerate(PROMPTS)
    for kind in SliceKind
    if kind is SliceKind.SHARED or prompt.document is not None
]
PLANS: list[tuple[SliceKind, Plan]] = [
    *(
        (SliceKind.SHARED, Plan(codec="raw", **dials))
        for dials in (
            {"layers": (1, 2)},
            {"padded": True},
            {"last": 1},
            {"last": 8},
            {"bottleneck": True},
            {"bottleneck": True, "layers": (0, 2), "last": 9, "padded": True},
        )
    ),
    (SliceKind.EXCERPT, Plan(codec="raw", positions=5, code_dim=9)),
    (SliceKind.EXCERPT, Plan(codec="lossless", padded=True)),
    (SliceKind.EXCERPT, Plan(codec="raw", positions=16, fit=True)),
    (SliceKind.DRAFT, Plan(codec="raw", positions=3, code_dim=9)),
    (SliceKind.DRAFT, Plan(codec="lossless", quoted=4, padded=True)),
]

PLANNED = [prompt for prompt in PROMPTS if prompt.document is not None][::6]


@pytest.fixture(scope="module")
def client(edge_config: EdgeConfig) -> Iterator[Client]:
    with Client(edge_config) as made:
        yield made


@pytest.fixture(scope="module")
def assistant(edge_config: EdgeConfig, local_receiver: Receiver) -> Iterator[Assistant]:
    with Assistant(edge_config, local_receiver, Client(edge_config)) as made:
        yield made


def test_the_prompts_are_fifty_and_reach_two_thousand_tokens(
    local_sharer: Sharer, local_receiver: Receiver
) -> None:
    assert len(set(PROMPTS)) == 50
    assert len(local_sharer.tokenizer(DOCUMENTS["long"])["input_ids"]) >= 2_000
    assert any(len(local_receiver.tokenizer(p.question)["input_ids"]) == 1 for p in PROMPTS)
    used = {prompt.document for prompt in PROMPTS}
    assert used == {*DOCUMENTS, None}


def taken_in(
    client: Client, receiver: Receiver, prompt: Prompt, kind: SliceKind, plan: Plan, local: LocalAnswer
) -> Prefilled:
    """The prompt with the cloud's slice in it; every bit of slice and cache is that of the local answer."""
    prefilled = receiver.begin(prompt.sections).prefill(kind)
    intake: Intake[Prefilled] | None = None
    segments: list[Segment] = []
    for part in client.share(prompt.sections, receiver.bundle, kind=kind, plan=plan):
        if isinstance(part, SliceHeader):
            intake = prefilled.take(SliceLayout.of(part), plan)
        elif isinstance(part, Segment):
            assert intake is not None
            segments.append(part)
            intake.add(part)
        else:
            assert isinstance(part, SliceTrailer) and part.positions == local.cut.positions
    assert intake is not None and intake.done() is prefilled
    assert [s.spec for s in segments] == [s.spec for s in local.segments]
    for arrived, cut in zip(segments, local.segments, strict=True):
        assert torch.equal(arrived.tensor, cut.tensor), arrived.spec
    keys, values = cache_of(prefilled)
    for mine, theirs in ((keys, local.keys), (values, local.values)):
        assert len(mine) == len(theirs)
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    return prefilled


@pytest.mark.parametrize(
    ("prompt", "kind"), [pytest.param(prompt, kind, id=f"{number}-{kind}") for number, prompt, kind in CASES]
)
def test_every_bit_and_token_is_the_same(
    prompt: Prompt,
    kind: SliceKind,
    client: Client,
    assistant: Assistant,
    local_sharer: Sharer,
    local_receiver: Receiver,
) -> None:
    plan = assistant.config.share.configured(kind)
    local = answer_in_one_process(
        local_sharer, local_receiver, prompt.sections, DOCUMENTS, kind, 32, TOKENS, plan
    )
    prefilled = taken_in(client, local_receiver, prompt, kind, plan, local)
    text = "".join(prefilled.generate(TOKENS))
    assert (prefilled.tokens, text) == (local.prefilled.tokens, local.text)

    answer = assistant.ask(
        Ask(prompt.question, document=prompt.document, notes=prompt.notes, kind=kind, max_new_tokens=TOKENS)
    )
    # A prompt that fills the window leaves no room for a draft.
    if not local.cut.positions and kind is not SliceKind.SHARED:
        assert (answer.source, answer.answered, answer.reason) == ("receiver-only", False, "EMPTY")
        return
    assert (answer.source, answer.text) == ("fused", first_line(text))
    assert answer.tokens <= len(prefilled.tokens) and (
        answer.tokens == len(prefilled.tokens) or "\n" in text.strip()
    )
    assert answer.positions == local.cut.positions


@pytest.mark.parametrize(("kind", "plan"), PLANS, ids=lambda value: value if isinstance(value, str) else "")
def test_every_bit_is_the_same_whatever_the_plan(
    kind: SliceKind, plan: Plan, client: Client, local_sharer: Sharer, local_receiver: Receiver
) -> None:
    for prompt in PLANNED:
        local = answer_in_one_process(
            local_sharer, local_receiver, prompt.sections, DOCUMENTS, kind, 32, TOKENS, plan
        )
        prefilled = taken_in(client, local_receiver, prompt, kind, plan, local)
        assert "".join(prefilled.generate(TOKENS)) == local.text


def test_a_slice_changes_the_answer(local_sharer: Sharer, local_receiver: Receiver) -> None:
    """The comparison above would hold for slices that do nothing; these do something."""
    for kind in SliceKind:
        changed = 0
        for prompt in PROMPTS[:6]:
            local = answer_in_one_process(
                local_sharer, local_receiver, prompt.sections, DOCUMENTS, kind, 12, TOKENS
            )
            alone = local_receiver.begin(prompt.sections).prefill(None)
            "".join(alone.generate(TOKENS))
            changed += alone.tokens != local.prefilled.tokens
        assert changed > 0, kind
    assert any(s.visibility is Visibility.EDGE for prompt in PROMPTS for s in prompt.sections)
