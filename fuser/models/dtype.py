"""Where a model computes, and in what: the one place that turns names of devices and dtypes into torch's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from fuser.models.errors import NoSuchDevice

if TYPE_CHECKING:
    import torch

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
DtypeName = Literal["auto", "float32", "bfloat16", "float16"]

_NATIVE: Final = ("avx512_bf16", "amx_bf16", "sve_bf16", "bf16")
"""What `torch.cpu.get_capabilities` calls processors' instructions that multiply bfloat16."""


def find_device(name: DeviceName = "auto") -> torch.device:
    """The device that a configuration names; "auto" is a GPU where there is one, else the CPU.

    Raises:
        NoSuchDevice: it is not there. Nothing else is taken in its place.
    """
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    found = [kind for kind, available in there.items() if available]
    if name == "auto":
        return torch.device(found[0])
    if name not in found:
        raise NoSuchDevice(
            f"device {name} is not there: torch {torch.__version__} finds {' and '.join(found)} here; "
            f"take {found[0]}, or auto"
        )
    return torch.device(name)


def device_text(device: torch.device) -> str:
    """A device for people: "cuda (NVIDIA L4)", "mps" or "cpu (8 threads)"."""
    import torch

    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.get_num_threads()} threads)" if device.type == "cpu" else device.type


def computes(model: Any) -> str:
    """Where and in what a loaded model computes, for people: "cpu (8 threads) in bfloat16"."""
    return f"{device_text(model.device)} in {str(model.dtype).removeprefix('torch.')}"


def dtype_of(name: DtypeName, device: str | torch.device = "cpu") -> torch.dtype:
    """The dtype that a configuration names, for a model on `device`.

    "auto" is bfloat16 where the device multiplies it (a GPU since Ampere; AVX512-BF16, AMX, Arm BF16), which is several
    times faster than float32 there and slower elsewhere; else float32.

    Raises:
        ValueError: float16 on a CPU, where it is neither fast nor safe from overflow.
    """
    import torch

    kind = torch.device(device).type
    if name == "auto":
        return torch.bfloat16 if _multiplies_bfloat16(kind) else torch.float32
    if name == "float16" and kind == "cpu":
        raise ValueError("dtype float16 needs a GPU; on a CPU take auto, bfloat16 or float32")
    named: torch.dtype = getattr(torch, name)
    return named


def _multiplies_bfloat16(kind: str) -> bool:
    import torch

    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind == "cpu":
        found = torch.cpu.get_capabilities()
        return any(found.get(name, False) for name in _NATIVE)
    return False
