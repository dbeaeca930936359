"""From a directory to a model in memory: what loads it, where it computes and in what."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from fuser.models.directory import BadModelDirectory, NoSuchDevice, checked, without_code

if TYPE_CHECKING:
    import torch


DeviceName = Literal["auto", "cpu", "cuda", "mps"]
DtypeName = Literal["auto", "float32", "bfloat16", "float16"]

_NATIVE: Final = ("avx512_bf16", "amx_bf16", "sve_bf16", "bf16")
"""What `torch.cpu.get_capabilities` calls processors' instructions that multiply bfloat16."""


def load_model(
    path: str | Path, *, device: str = "cpu", dtype: torch.dtype | None = None, attention: str = "sdpa"
) -> tuple[Any, Any]:
    """(model, tokenizer) of the directory `path`: frozen, in eval mode, float32 unless `dtype` is given."""
    return load_weights(path, device=device, dtype=dtype, attention=attention), load_tokenizer(path)


def load_weights(
    path: str | Path, *, device: str = "cpu", dtype: torch.dtype | None = None, attention: str = "sdpa"
) -> Any:
    """The model alone, as in `load_model`; the directory may lack a tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM

    directory = checked(Path(path))
    config = load_config(directory)
    with _no_bars(), torch.device("cpu"):
        model = AutoModelForCausalLM.from_pretrained(
            directory,
            config=config,
            dtype=dtype or torch.float32,
            attn_implementation=attention,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    return model.to(device).eval().requires_grad_(False)


def load_config(path: str | Path) -> Any:
    """The Hugging Face config of the directory `path`, which may lack weights. Raises `BadModelDirectory`."""
    from transformers import AutoConfig

    file = Path(path) / "config.json"
    if not file.is_file():
        raise BadModelDirectory(f"{path} has no config.json: it is not a model in the Hugging Face format")
    without_code(Path(path))
    try:
        return AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except ValueError as error:
        raise BadModelDirectory(f"{file}: {error}") from error


def has_tokenizer(path: str | Path) -> bool:
    """Whether a tokenizer lies in the directory `path`."""
    names = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
    return any((Path(path) / name).is_file() for name in names)


def load_tokenizer(path: str | Path) -> Any:
    """The tokenizer of the directory `path`, always a fast one (it gives offsets)."""
    from transformers import AutoTokenizer

    if not has_tokenizer(checked(Path(path))):  # or the library would make an empty one up
        raise BadModelDirectory(f"{path} has no tokenizer.json")
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    if not tokenizer.is_fast:
        raise BadModelDirectory(f"{path} has a tokenizer without offsets; a tokenizer.json is needed")
    return tokenizer


@contextmanager
def _no_bars() -> Iterator[None]:
    """Loading from disk takes a second or two; the library's bar would go over the caller's own."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


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


def free_memory(device: str | torch.device = "cpu") -> int | None:
    """Bytes that a device has free; of a CPU those of the machine, or fewer where a control group allows fewer.

    None: this system does not tell.
    """
    import torch

    where = torch.device(device)
    if where.type == "cuda":
        return int(torch.cuda.mem_get_info(where)[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
    if free is None:  # an old kernel, or one that a container imitates
        return None
    return min((free, *_free_in_groups(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))))


def _free_in_groups(own: Path, root: Path) -> Iterator[int]:
    """Bytes left in each control group of this process that bounds memory, of either version."""
    named = {"": ("memory.max", "memory.current", "inactive_file"), "memory": _V1}
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for controllers, path in (line.split(":", 2)[1:] for line in lines):
        if (names := named.get(controllers)) is None:
            continue
        top = root / controllers
        # In a container the path may be that of the host, and its own group is mounted as the top.
        within = top / path.lstrip("/")
        for folder in (within, *within.parents):
            if not folder.is_relative_to(top):
                break
            with suppress(OSError, ValueError):  # none such, or "max"
                most, used = (int((folder / name).read_text()) for name in names[:2])
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                yield max(0, most - used + int(stat.get(names[2], 0)))


_V1: Final = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


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
