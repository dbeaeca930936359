"""A step of training makes its tensors where the Receiver is, whatever torch would choose by itself."""

import pytest
import torch
from torch import Tensor

from fuser.lab.train.document import DocumentTask
from fuser.lab.train.shared import SharedTask
from fuser.lab.train.task import Control, Setting


@pytest.mark.parametrize(
    ("make", "control"),
    [
        *((DocumentTask, control) for control in ("true", "mismatched", "alone", "text")),
        *((SharedTask, control) for control in ("true", "mismatched", "alone")),
    ],
)
def test_a_step_is_computed_where_the_model_is(
    setting: Setting, make: type[DocumentTask] | type[SharedTask], control: Control
) -> None:
    task = make(setting)
    (module,) = task.modules().values()
    module.train()

    def step() -> tuple[Tensor, Tensor]:
        torch.manual_seed(3)
        module.zero_grad()
        outcome = task.loss(task.epoch(4, 0)[0], control)  # type: ignore[arg-type]
        if outcome.loss.requires_grad:
            outcome.loss.backward()
        grads = [p.grad.flatten() for p in module.parameters() if p.grad is not None]
        return outcome.loss.detach(), torch.cat([outcome.loss.detach()[None], *grads])

    loss, gradient = step()
    with torch.device("meta"):
        again, same = step()
    assert torch.equal(loss, again) and torch.equal(gradient, same)
