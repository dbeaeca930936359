"""Coverage-guided fuzzing of whatever takes bytes, in an environment that has atheris besides what the tests need.

    python tests/fuzz/guided.py FOLDER --seconds 600

The first byte of an input chooses the entry (`ops.chaos.fuzz.targets`), the rest is given to it. What it refuses by
name, or takes, is as it should be; anything else is a crash, and more than 5 s a hang: the input is kept in
FOLDER/found under its reason, and the run goes on. Inputs that reached code that no other had reached are in
FOLDER/corpus, from which the next run begins. Only Python is instrumented, so what C++ does of protobuf, zstd and
safetensors guides nothing.
"""

import argparse
import collections
import hashlib
import json
import logging
import random
import resource
import sys
import time
from pathlib import Path
from typing import Final

import atheris

_SLOW_S: Final = 5.0
_TELL_S: Final = 15.0
_MEMORY_MIB: Final = 6_144
_OURS: Final = ["kvwire", "fuser", "cloud_node", "edge_node"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Coverage-guided fuzzing.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    found, corpus, world = (asked.folder / name for name in ("found", "corpus", "world"))
    for folder in (found, corpus, world / "fuzz"):
        folder.mkdir(parents=True, exist_ok=True)
    logging.disable(logging.CRITICAL)

    with atheris.instrument_imports(include=_OURS, enable_loader_override=False):
        from ops.chaos import fuzz
        from ops.chaos.world import TinyWorld

        open_world = TinyWorld(world)
        open_world.__enter__()
        targets = fuzz.targets(open_world, world / "fuzz")
    names = list(targets)
    for place, name in enumerate(names):
        for sample in targets[name].samples:
            data = bytes([place]) + sample
            (corpus / hashlib.sha1(data).hexdigest()).write_bytes(data)

    counts: collections.Counter[str] = collections.Counter()
    began = told = time.monotonic()

    def tell() -> None:
        seconds = round(time.monotonic() - began, 1)
        mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        line = {"seconds": seconds, "peak_mib": mib, "executions": counts.total(), **counts}
        (asked.folder / "counts.json").write_text(json.dumps(line, indent=1), encoding="utf-8")

    def keep(name: str, why: str, data: bytes) -> None:
        path = found / hashlib.sha1(f"{name} {why}".encode()).hexdigest()[:16]
        if not path.exists():
            path.write_bytes(data)
            path.with_suffix(".why").write_text(f"{name}: {why}\n", encoding="utf-8")

    def one(data: bytes) -> None:
        nonlocal told
        if not data:
            return
        name = names[data[0] % len(names)]
        start = time.monotonic()
        try:
            targets[name].take(data[1:])
            ending = "taken"
        except targets[name].refuses:
            ending = "refused"
        except Exception as error:
            ending, where = "crash", error.__traceback__
            while where is not None and where.tb_next is not None:
                where = where.tb_next
            line = f"{where.tb_frame.f_code.co_filename}:{where.tb_lineno}" if where else "?"
            keep(name, f"{type(error).__name__} at {line}", data)
        now = time.monotonic()
        if now - start > _SLOW_S:
            ending = "hang"
            keep(name, "slow", data)
        counts[f"{name}: {ending}"] += 1
        if now - told > _TELL_S:
            told = now
            tell()

    random.seed(asked.seed)
    options = [f"-max_total_time={asked.seconds}", f"-seed={asked.seed}", "-max_len=16384", "-len_control=0"]
    options += [f"-rss_limit_mb={_MEMORY_MIB}", "-timeout=60", "-print_final_stats=1", str(corpus)]
    atheris.Setup([sys.argv[0], *options], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
