"""The shared task: the service's numbers in batches, and gradients where they belong."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from rich.progress import Progress
from torch import nn

from fuser.bundle.bundle import Bundle
from fuser.heads.fuse import FuseHead
from fuser.lab.train.batch import ExampleBatch
from fuser.lab.train.cached import CachedPrompt
from fuser.lab.train.fusing import GivenKv
from fuser.lab.train.shared import SharedTask
from fuser.lab.train.sources import AnyItem
from fuser.lab.train.task import Setting
from fuser.models.load import load_model
from fuser.prompts.prompt import reply_ids
from fuser.receiver import Prefilled, Receiver
from fuser.sharer import Sharer
from kvwire.plan import Plan
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind
from ops.chaos.in_one_process import answer_in_one_process
from tests.fuser.lab.train.tiny_setting import tiny_setting


def noisy(head: nn.Module) -> FuseHead:
    """Every gate open, every weight of noise, so that no path is an identity."""
    assert isinstance(head, FuseHead)
    generator = torch.Generator().manual_seed(22)
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
            if "gate_logit" in name:
                parameter.fill_(1.0)
    return head


def everything(task: SharedTask) -> ExampleBatch[CachedPrompt]:
    """All training prompts in one batch."""
    (batch,) = task.epoch(4, 0)
    return batch


@pytest.mark.parametrize("last", [0, 3, 7, 500])
def test_the_fused_cache_in_training_is_that_of_the_service(
    last: int,
    tiny_sharer: Path,
    tiny_receiver: Path,
    tmp_path: Path,
    items: tuple[AnyItem, ...],
) -> None:
    setting = tiny_setting(tiny_sharer, tiny_receiver, tmp_path, items, {"fuse": {"rank": 8, "inner": 12}})
    fuse = noisy(setting.heads["fuse"]).eval()
    bundle = Bundle(setting.bundle, fuse=fuse)
    sharer = Sharer(*load_model(tiny_sharer), bundle)
    receiver = Receiver(setting.reading.model, setting.reading.tokenizer, bundle)
    task = SharedTask(setting)
    batch = everything(task)
    own, fused = task.read(batch.own), task.read(batch.own)
    with torch.no_grad():
        task.slices.fuse(fused, [GivenKv(prompt, matched=True) for prompt in batch.own], last)
    for half in (0, 1):
        ours, other = (torch.stack([kv[half] for kv in prefilled.past.layers]) for prefilled in (own, fused))
        assert not torch.allclose(ours, other, atol=1e-2)
    for row, prompt in enumerate(batch.own):
        asked = (Section(Role.QUESTION, Visibility.SHARED, text=prompt.text),), {}, SliceKind.SHARED, 0, 1
        local = answer_in_one_process(sharer, receiver, *asked, Plan(codec="raw", last=last))
        for layer, (k, v) in enumerate(zip(local.keys, local.values, strict=True)):
            length = k.shape[2]
            assert length == fused.past.lengths[row]
            keys, values = fused.past.layers[layer]
            torch.testing.assert_close(keys[row, :, -length:], k[0], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(values[row, :, -length:], v[0], atol=1e-5, rtol=1e-5)


def test_in_training_every_step_draws_how_many_of_the_last_positions_it_fuses(
    tiny_sharer: Path, tiny_receiver: Path, tmp_path: Path, items: tuple[AnyItem, ...]
) -> None:
    tables = {"fuse": {"rank": 8, "inner": 12}, "dials": {"last": [2, 0]}}
    task = SharedTask(tiny_setting(tiny_sharer, tiny_receiver, tmp_path, items, tables))
    drawn: list[int] = []
    fuse = task.slices.fuse

    def noted(prefilled: Prefilled, given: Sequence[GivenKv], last: int) -> None:
        drawn.append(last)
        fuse(prefilled, given, last)

    task.slices.fuse = noted  # type: ignore[method-assign, assignment]
    head = noisy(task.modules()["fuse"])
    with torch.no_grad():
        for _ in range(12):
            task.loss(everything(task), "true")
        assert set(drawn) == {0, 2}
        head.eval()
        task.loss(everything(task), "true")
        assert drawn[12:] == [0]


@pytest.mark.parametrize("control", ["true", "mismatched", "alone"])
def test_a_batch_equals_single_examples(setting: Setting, control: str) -> None:
    noisy(setting.heads["fuse"]).eval()
    task = SharedTask(setting)
    batch = everything(task)
    with torch.no_grad():
        together = task.loss(batch, control)  # type: ignore[arg-type]
        single = [task.loss(batch.shard(rank, 4), control) for rank in range(4)]  # type: ignore[arg-type]
    losses = torch.stack([outcome.loss for outcome in single])
    assert float((together.loss - losses.mean()).abs()) < 1e-5
    assert together.exact.tolist() == [bool(outcome.exact) for outcome in single]


def test_the_slice_changes_the_loss_and_another_prompts_slice_changes_it_otherwise(setting: Setting) -> None:
    noisy(setting.heads["fuse"]).eval()
    task = SharedTask(setting)
    with torch.no_grad():
        true, mismatched, alone = (
            float(task.loss(everything(task), control).loss) for control in task.controls
        )
    assert abs(true - alone) > 1e-3
    assert abs(true - mismatched) > 1e-3


def test_closed_gates_in_evaluation_are_the_receiver_alone(setting: Setting) -> None:
    setting.heads["fuse"].eval()  # untrained: closed
    task = SharedTask(setting)
    with torch.no_grad():
        true, alone = (task.loss(everything(task), control).loss for control in ("true", "alone"))
    assert float((true - alone).abs()) < 1e-5


def test_the_loss_alone_is_that_of_the_plain_receiver(setting: Setting) -> None:
    task = SharedTask(setting)
    batch = everything(task).shard(0, 4)
    prompt = batch.own[0]
    asked = task.read([prompt]).prompts[0]
    reply = reply_ids(task.receiver.tokenizer, asked.rendered, prompt.response, setting.end)
    ids = torch.cat((asked.tokens.ids, reply))
    wanted = ids.clone()
    wanted[: len(asked.tokens.ids)] = -100
    with torch.no_grad():
        plain = setting.reading.model(input_ids=ids[None], labels=wanted[None]).loss
        assert float((task.loss(batch, "alone").loss - plain).abs()) < 1e-5


def test_training_reaches_every_parameter_and_nothing_of_the_receiver(setting: Setting) -> None:
    head = noisy(setting.heads["fuse"]).train()
    task = SharedTask(setting)
    torch.manual_seed(1)
    task.loss(everything(task), "true").loss.backward()
    missed = [
        name for name, p in head.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)
    ]
    assert missed == []
    assert all(p.grad is None for p in setting.reading.model.parameters())


def test_the_start_standardises_both_sides(setting: Setting) -> None:
    task = SharedTask(setting)
    with Progress(disable=True) as progress:
        counted = task.start(progress)["statistics_positions"]
    prompts = setting.train.prompts
    given, layers = (
        [GivenKv(prompt, matched=True) for prompt in prompts],
        range(task.receiver.geometry.layers),
    )
    fusing = task.slices.fusing(task.read(prompts), given)
    assert counted == int(fusing.fused.sum())
    head = setting.heads["fuse"]
    for side, halves in (
        ("source", task.slices.feeding(fusing, given, layers)),
        ("target", fusing.own(layers)),
    ):
        rows = torch.stack([half.transpose(2, 3)[:, fusing.fused].flatten(2) for half in halves])
        mean, scale = (
            head.get_buffer(f"{side}_{name}").reshape_as(rows[:, :, 0]) for name in ("mean", "scale")
        )
        torch.testing.assert_close(mean, rows.mean(2), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(scale, rows.std(2, correction=0), atol=1e-4, rtol=1e-3)


def test_a_control_that_means_nothing_here_is_refused(setting: Setting) -> None:
    task = SharedTask(setting)
    with pytest.raises(ValueError, match="no control text"):
        task.loss(everything(task), "text")
