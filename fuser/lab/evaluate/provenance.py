"""On which machine, with which versions: what a number about speed or quality means nothing without."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from fuser.lab.evaluate.models import Model

METHOD = "one run, with signals"
"""How slices are made where neither bundle nor plan says it: part of the names of answers that are kept, so that none
of another way is taken for this one's."""


def provenance(model: Model) -> dict[str, Any]:
    """Where and when something is measured with a model; plain JSON values."""
    return {
        "dtype": model.dtype,
        "device": model.device.type,
        "machine": machine(),
        "versions": versions(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def data_of(source: str, digest: str, questions: int, groups: Mapping[str, str]) -> dict[str, Any]:
    """Which questions something is measured on; plain JSON values."""
    return {
        "source": Path(source).name if Path(source).is_file() else source,
        "sha256": file_hash(source),
        "questions": questions,
        "questions_sha256": digest,
        "documents": len(set(groups.values())),
    }


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
