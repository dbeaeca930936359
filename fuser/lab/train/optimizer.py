"""The optimiser of a run: AdamW in single precision, no decay, a learning rate for each kind of parameter."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from fuser.lab.train.config import AnswerConfig


def new_optimizer(modules: Mapping[str, nn.Module], settings: AnswerConfig) -> torch.optim.Optimizer:
    """Over everything in the modules that takes a gradient, each parameter once.

    Groups keep their full rate as `initial_lr`, which the schedule scales.
    """
    rates = {
        "prefix": settings.prefix_learning_rate,
        "gate_logit": settings.gate_learning_rate,
        "": settings.learning_rate,
    }
    groups: dict[str, dict[nn.Parameter, None]] = {ending: {} for ending in rates}
    for module in modules.values():
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                ending = next(ending for ending in rates if name.endswith(ending))
                groups[ending][parameter] = None
    return torch.optim.AdamW(
        [
            {"params": list(group), "lr": rates[ending], "initial_lr": rates[ending]}
            for ending, group in groups.items()
            if group
        ],
        weight_decay=0.0,
    )
