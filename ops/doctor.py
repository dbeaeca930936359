"""What `kvwire doctor` looks at. Every finding is one line; nothing is changed, fetched or started."""

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from kvwire.identity import PeerRole
from ops.extras import EXTRAS
from ops.finding import Finding, State, looked
from ops.node_check import node_findings, role_of

GIB = 1 << 30
CPU_TORCH = "https://download.pytorch.org/whl/cpu"
_NEEDED = ("torch", "transformers", "safetensors", "tokenizers", "grpcio", "protobuf", "zstandard", "xxhash")


def examine(config: Path | None = None) -> list[Finding]:
    """Look at everything; a look that fails is itself a finding, never an exception.

    `config`: a cloud.toml or an edge.toml; what it names is looked at too, and its node's packages must be there.
    """
    findings: list[Finding] = []
    role: PeerRole | None = None
    if config is not None:
        try:
            role = role_of(config)
        except (ValueError, OSError) as error:
            findings.append(Finding(State.BAD, "config", str(error), "name a cloud.toml or an edge.toml"))
    looks: dict[str, Callable[[], Iterator[Finding]]] = {
        "python": _python,
        "packages": lambda: _packages(role),
        "device": _device,
        "models": _models,
        "demo bundle": _bundle,
        "room": _room,
    }
    for what, look in looks.items():
        findings.extend(looked(what, look))
    if config is not None and role is not None:
        findings.extend(node_findings(config, role))
    return findings


def _python() -> Iterator[Finding]:
    state = State.GOOD if sys.version_info >= (3, 11) else State.BAD
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    yield Finding(state, "python", found, "" if state is State.GOOD else "install Python 3.11 or later")


def _packages(role: PeerRole | None) -> Iterator[Finding]:
    for name in ("kvwire", *_NEEDED):
        yield _package(name, State.BAD, "pip install kvwire")
    told: set[str] = set()
    for extra, names in sorted(EXTRAS.items(), key=lambda of: of[0] != str(role)):  # what is needed first
        needed = role is not None and extra == str(role)
        use = _USES.get(extra, f"this machine if it is to be a {extra} node")
        for name in (one for one in names if one not in told):
            told.add(name)
            then = f"pip install 'kvwire[{extra}]'" + ("" if needed else f", for {use}")
            yield _package(name, State.BAD if needed else State.NOTE, then)


_USES = {
    "train": "training",
    "documents": "documents in PDF and Word files",
    "postgres": "documents in PostgreSQL",
    "otlp": "traces to a collector",
}


def _package(name: str, missing: State, then: str) -> Finding:
    version = _version(name)
    return Finding(State.GOOD, name, version) if version else Finding(missing, name, "not installed", then)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _device() -> Iterator[Finding]:
    import torch

    from fuser.models.load import device_text, dtype_of, find_device

    device = find_device("auto")
    dtype = str(dtype_of("auto", device)).removeprefix("torch.")
    found = f"auto is {device_text(device)} in {dtype} (torch {torch.__version__})"
    yield Finding(State.GOOD, "device", found)
    if device.type == "cpu" and torch.version.cuda is not None:
        then = f"if there is no GPU to use: pip install --force-reinstall torch --index-url {CPU_TORCH}, 5 GB smaller"
        yield Finding(
            State.NOTE, "torch", f"a build for CUDA {torch.version.cuda}, and no GPU is found", then
        )


def _models() -> Iterator[Finding]:
    from fuser.models.directory import model_directory
    from ops.models.convert import is_converted
    from ops.models.registry import KNOWN_MODELS

    for name, model in KNOWN_MODELS.items():
        ready = is_converted(model_directory(name), model)
        if ready:
            yield Finding(State.GOOD, name, "in the cache")
        else:
            yield Finding(
                State.NOTE, name, "not in the cache", f"kvwire models fetch {name}, where it is wanted"
            )


def _bundle() -> Iterator[Finding]:
    from fuser.bundle.bundle import Bundle
    from ops.demo.pair import BUNDLE

    if not BUNDLE.is_dir():
        yield Finding(
            State.NOTE, "demo bundle", "not shipped with this installation", "train one: docs/training.md"
        )
        return
    bundle = Bundle.load(BUNDLE)
    slices = ", ".join(sorted(bundle.kinds))
    yield Finding(
        State.GOOD, "demo bundle", f"{bundle.hash[:12]}, {slices}, {bundle.parameter_count:,} parameters"
    )


def _room() -> Iterator[Finding]:
    from fuser.models.directory import cache_directory, model_directory
    from fuser.models.load import free_memory
    from ops.demo.pair import RECEIVER, SHARER
    from ops.models.convert import is_converted
    from ops.models.registry import KNOWN_MODELS

    memory = free_memory()
    if memory is not None:
        found = f"{memory / GIB:.1f} GiB (the demo takes about 6)"
        yield _enough("free memory", memory >= 6 * GIB, found, "end other programs")
    place = cache_directory()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    missing = [
        model for model in (SHARER, RECEIVER) if not is_converted(model_directory(model), KNOWN_MODELS[model])
    ]
    found = f"{free / GIB:.1f} GiB under {place}"
    if missing:
        found += f" (the demo fetches {' and '.join(missing)}, about 3 with the files that they are made of)"
    enough = not missing or free >= 4 * GIB
    yield _enough("free disk", enough, found, "make room, or set KVWIRE_CACHE to another place")


def _enough(what: str, enough: bool, found: str, then: str) -> Finding:
    return Finding(State.GOOD, what, found) if enough else Finding(State.NOTE, what, found, then)
