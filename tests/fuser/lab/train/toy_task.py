"""A task without models: a linear map learns a linear map, with noise from torch's generator as gates would draw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor, nn

from fuser.lab.train.config import AnswerConfig, TrainConfig
from fuser.lab.train.task import Control, Outcome

WIDTH = 5


@dataclass(frozen=True)
class ToyBatch:
    """inputs (batch, WIDTH)."""

    inputs: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def shard(self, rank: int, world: int) -> "ToyBatch":
        return ToyBatch(self.inputs[rank::world])


class ToyTask:
    """See the module. noise: standard deviation of what training adds to the inputs."""

    controls: tuple[Control, ...] = ("true", "mismatched", "text")

    def __init__(self, name: str, module: nn.Module, noise: float = 0.1, examples: int = 22) -> None:
        self.name = name
        self.module = module
        self.noise = noise
        generator = torch.Generator().manual_seed(len(name))
        self.inputs = torch.randn(examples, WIDTH, generator=generator)
        self.truth = torch.randn(WIDTH, WIDTH, generator=generator)
        self.starts = 0
        self.asked: list[tuple[Control, bool]] = []

    def modules(self) -> Mapping[str, nn.Module]:
        return {self.name: self.module}

    def start(self, progress: Progress) -> Mapping[str, Any]:
        self.starts += 1
        with torch.no_grad():
            self.module.get_parameter("weight").normal_()
        return {"norm": float(self.module.get_parameter("weight").detach().norm())}

    def epoch(self, batch: int, seed: int) -> Sequence[ToyBatch]:
        order = torch.randperm(len(self.inputs), generator=torch.Generator().manual_seed(seed))
        count = len(order) // batch
        return [ToyBatch(self.inputs[part]) for part in order[: count * batch].split(batch)] if count else []

    def validation(self, batch: int) -> Sequence[ToyBatch]:
        return [ToyBatch(part) for part in self.inputs[:7].split(batch)]

    def control_at(self, step: int) -> Control:
        return "text" if step % 5 == 4 else "true"

    def loss(self, batch: ToyBatch, control: Control) -> Outcome:
        self.asked.append((control, self.module.training))
        inputs = batch.inputs
        if self.module.training:
            inputs = inputs + self.noise * torch.randn_like(inputs)
        truth = self.truth if control == "true" else -self.truth
        each = (self.module(inputs) - batch.inputs @ truth).square().mean(1)
        return Outcome(each, each < 0.5)


def toy_config(work: str, **values: Any) -> TrainConfig:
    """A run of 12 steps; `values` replace keys of `[answer]`, or of the run."""
    from fuser.heads.translate import TranslateConfig
    from fuser.lab.train.config import SourceConfig
    from fuser.prompts.prompt import PromptStyle

    answer = {"steps": 12, "batch": 4, "warmup": 2, "evaluate_every": 4, "checkpoint_every": 5}
    own = {name: values.pop(name) for name in list(values) if name in AnswerConfig.__dataclass_fields__}
    style = PromptStyle("", {}, "")
    run: dict[str, Any] = {
        "sharer": "none",
        "receiver": "none",
        "sharer_prompt": style,
        "receiver_prompt": style,
        "sources": (SourceConfig("none", 1),),
        "work": work,
        "output": "none",
        "translate": TranslateConfig(code_dim=1),
        "answer": AnswerConfig(**(answer | {"learning_rate": 0.05} | own)),
    }
    return TrainConfig(**(run | values))
