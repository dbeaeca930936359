"""On which machine, with which versions: what a number about speed or quality means nothing without."""

from __future__ import annotations

import hashlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch


def machine() -> dict[str, Any]:
    """Processor, cores, threads and accelerator; plain JSON values."""
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": gpu,
        "system": platform.platform(),
    }


def versions(*more: str) -> dict[str, str]:
    """Python and the packages that numbers depend on, and `more` of them."""
    found = {"python": platform.python_version()}
    for name in ("kvwire", "torch", "transformers", "tokenizers", *more):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def file_hash(source: str) -> str | None:
    """SHA-256 of a data file as it lies there; None where the source is no file."""
    path = Path(source)
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
