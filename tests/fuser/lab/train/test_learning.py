"""Every task can learn: a few steps on one batch make the right reply likelier, and only with the right slice."""

from typing import Any

import pytest
import torch
from rich.progress import Progress

from fuser.lab.train.document import DocumentTask
from fuser.lab.train.shared import SharedTask
from fuser.lab.train.task import Setting


@pytest.mark.parametrize("make", [DocumentTask, SharedTask])
def test_a_few_steps_lower_the_loss_with_the_right_slice_and_less_with_another(
    setting: Setting, make: Any
) -> None:
    torch.manual_seed(2)
    task = make(setting)
    with Progress(disable=True) as progress:
        task.start(progress)
    (head, *_) = task.modules().values()
    batch = task.epoch(4, 0)[0]
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2, weight_decay=0.0)

    def losses() -> dict[str, float]:
        head.eval()
        with torch.no_grad():
            return {control: float(task.loss(batch, control).loss) for control in ("true", "mismatched")}

    before = losses()
    for _ in range(60):
        head.train()
        optimizer.zero_grad()
        task.loss(batch, "true").loss.backward()
        optimizer.step()
    after = losses()
    assert after["true"] < before["true"] - 1.5
    assert after["true"] < after["mismatched"] - 0.5
