"""One run of `kvwire chaos`: the parts asked for, one after the other, each with its own tally."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rich.progress import Progress

    from ops.chaos.network import Network
    from ops.chaos.processes import Processes


class ChaosPart(StrEnum):
    """What can be run. PROCESSES, LOAD and SOAK start a cloud on Ray."""

    FRAMES = "frames"
    NETWORK = "network"
    POSTGRES = "postgres"
    PROCESSES = "processes"
    LOAD = "load"
    SOAK = "soak"
    FUZZ = "fuzz"


USUAL: Final[Mapping[ChaosPart, int]] = {
    ChaosPart.FRAMES: 20_000,
    ChaosPart.NETWORK: 54,
    ChaosPart.POSTGRES: 16,
    ChaosPart.PROCESSES: 22,
    ChaosPart.LOAD: 400,
    ChaosPart.SOAK: 10_000,
    ChaosPart.FUZZ: 20_000,
}
"""Faults, requests or inputs of a part where nobody says how many."""
_LIES: Final = 200


class InvariantBroken(RuntimeError):
    """Something happened that must never happen."""


@dataclass(frozen=True, slots=True)
class Chaos:
    """What to run. faults: for each part; None takes `USUAL`. index: only the fault of this number.

    seconds: a soak ends after so long, with what it has by then.
    """

    parts: tuple[ChaosPart, ...]
    seed: int
    faults: int | None = None
    index: int | None = None
    history: Path | None = None
    seconds: float = math.inf

    def indices(self, part: ChaosPart) -> range:
        """The numbers of a part's faults."""
        if self.index is not None:
            return range(self.index, self.index + 1)
        return range(USUAL[part] if self.faults is None else self.faults)


def measure(chaos: Chaos, progress: Progress) -> dict[str, Any]:
    """Run the parts. Returns what came of each, by its name, as plain JSON values."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="kvwire-chaos-") as name:
        folder = Path(name)
        for part in chaos.parts:
            indices = chaos.indices(part)
            bar = progress.add_task(str(part), total=len(indices))
            work = folder / str(part)
            work.mkdir()
            found[str(part)] = _RUN[part](chaos, work, indices, partial(progress.advance, bar))
    return found


def check(report: Mapping[str, Any]) -> None:
    """Nothing where nothing went wrong.

    Raises:
        InvariantBroken: says how to see it again.
    """
    broken = [one for part in report["results"].values() for one in part.get("violations", ())]
    if broken:
        first = broken[0]
        raise InvariantBroken(
            f"{len(broken)} times what must never happen; the first: {first['fault']} was {first['ending']}: "
            f"{first['why']}; again with kvwire chaos --part {first['part']} --seed {report['seed']} "
            f"--index {first['index']}"
        )


Advance = Callable[[], None]


def _frames(chaos: Chaos, folder: Path, indices: range, advance: Advance) -> dict[str, Any]:
    from ops.chaos import frames
    from ops.chaos.world import TinyWorld

    with TinyWorld(folder) as world:
        told = frames.run(world, chaos.seed, indices, advance).to_dict()
        return told | {"lies": {"told": _LIES, "believed": frames.believed(world, chaos.seed, _LIES)}}


def _network(chaos: Chaos, folder: Path, indices: range, advance: Advance) -> dict[str, Any]:
    from ops.chaos.network import Network
    from ops.chaos.world import TinyWorld

    with TinyWorld(folder) as world:
        return _asked(chaos, Network(world, chaos.seed, advance), indices)


def _postgres(chaos: Chaos, folder: Path, indices: range, advance: Advance) -> dict[str, Any]:
    from ops.chaos.network import Network, of_postgres
    from ops.chaos.postgres import running_postgres
    from ops.chaos.world import TinyWorld

    with running_postgres() as server, TinyWorld(folder, documents=server.new_store()) as world:
        network = Network(world, chaos.seed, advance, ChaosPart.POSTGRES, of_postgres(server))
        return _asked(chaos, network, indices)


def _fuzz(chaos: Chaos, folder: Path, indices: range, advance: Advance) -> dict[str, Any]:
    from ops.chaos import fuzz
    from ops.chaos.world import TinyWorld

    with TinyWorld(folder) as world:
        return fuzz.run(world, chaos.seed, indices, advance).to_dict()


def _processes(chaos: Chaos, folder: Path, indices: range, advance: Advance) -> dict[str, Any]:
    from ops.chaos.processes import Processes

    with Processes(folder, chaos.seed, advance) as processes:
        return _asked(chaos, processes, indices)


def _load(chaos: Chaos, folder: Path, indices: range, advance: Advance) -> dict[str, Any]:
    from ops.chaos import load

    return load.measure(folder, len(indices), advance)


def _soak(chaos: Chaos, folder: Path, indices: range, advance: Advance) -> dict[str, Any]:
    from ops.chaos import soak

    return soak.run(folder, chaos.seed, len(indices), chaos.seconds, advance)


_RUN: Final[Mapping[ChaosPart, Callable[[Chaos, Path, range, Advance], dict[str, Any]]]] = {
    ChaosPart.FRAMES: _frames,
    ChaosPart.NETWORK: _network,
    ChaosPart.POSTGRES: _postgres,
    ChaosPart.PROCESSES: _processes,
    ChaosPart.LOAD: _load,
    ChaosPart.SOAK: _soak,
    ChaosPart.FUZZ: _fuzz,
}


def _asked(chaos: Chaos, run: Network | Processes, indices: range) -> dict[str, Any]:
    run.run(indices)
    if chaos.history is not None:
        with chaos.history.open("a", encoding="utf-8") as file:
            file.writelines(asked.to_json() + "\n" for asked in run.history)
    return run.tally.to_dict() | {"asked": len(run.history)}
