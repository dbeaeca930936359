"""A checkpoint: trained modules and optimiser state after some steps, in one file that is never half-written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fuser.atomic import atomic_write


def save_checkpoint(
    path: Path, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, step: int
) -> None:
    """Write it beside `path` and move it there, so that a kill leaves the old one or the new one.

    Stored are the numbers that training changes and all buffers; what is frozen stays out.
    """
    tensors = {name: value.detach().clone().contiguous() for name, value in _numbers(modules).items()}
    for name, parameter in _parameters(modules).items():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{name}.{key}"] = torch.as_tensor(value).clone().contiguous()
    with atomic_write(path) as partial:
        save_file(tensors, partial, metadata={"step": str(step)})


def checkpoint_step(path: Path) -> int:
    """Steps that were done when a checkpoint was written.

    Raises:
        ValueError: the file is damaged.
    """
    with _opened(path) as file:
        return int(file.metadata()["step"])


def load_checkpoint(path: Path, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> int:
    """Put modules and optimiser back, bit for bit; returns the steps that were done.

    Raises:
        ValueError: the checkpoint is of other modules; the first name that differs is told. Or the file is damaged.
    """
    with _opened(path) as file:
        step = int(file.metadata()["step"])
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    numbers = _numbers(modules)
    kept = {name for name in stored if not name.startswith("optimizer.")}
    if odd := sorted(kept ^ numbers.keys()):
        raise ValueError(f"{path} is a checkpoint of other heads: {odd[0]} is in one of them alone")
    with torch.no_grad():
        for name, value in numbers.items():
            if value.shape != stored[name].shape:
                raise ValueError(
                    f"{path}: {name} has shape {tuple(stored[name].shape)}, not {tuple(value.shape)}"
                )
            value.copy_(stored[name])
    for name, parameter in _parameters(modules).items():
        prefix = f"optimizer.{name}."
        state = {key.removeprefix(prefix): stored[key] for key in stored if key.startswith(prefix)}
        if state:
            optimizer.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device) for key, value in state.items()
            }
    return step


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, "pt") as file:
            yield file
    except (SafetensorError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({error}): remove {path.parent} and start again") from error


def _parameters(modules: Mapping[str, nn.Module]) -> dict[str, nn.Parameter]:
    """Trained parameters by module and name; one that two modules share has the first name."""
    named: dict[str, nn.Parameter] = {}
    seen: set[int] = set()
    for module_name, module in modules.items():
        for name, parameter in module.named_parameters():
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                named[f"{module_name}.{name}"] = parameter
    return named


def _numbers(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    buffers = {
        f"{module_name}.{name}": buffer
        for module_name, module in modules.items()
        for name, buffer in module.named_buffers()
    }
    return {**_parameters(modules), **buffers}
