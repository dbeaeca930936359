"""Faults of processes: killed, stopped, out of disk, while edges go on asking; who ended is started again."""

from __future__ import annotations

import contextlib
import functools
import random
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Self

from cloud_node.config import RayConfig
from kvwire.telemetry import TelemetryConfig
from ops.chaos.asker import CheckedEdge
from ops.chaos.cluster import HEAD, SECOND, Cluster
from ops.chaos.history import GRACE_S, Checker, HistoryLine
from ops.chaos.outcome import Ending, Tally
from ops.chaos.process_faults import FAULTS
from ops.chaos.stage import REPLICA, Staged, members_of, send
from ops.chaos.trials import PROMPTS
from ops.demo.edge_api import AskFailed, EdgeApi
from ops.demo.process import NodeProcess
from ops.demo.stage import free_port
from ops.top import Page

PART: Final = "processes"
_WINDOW_S: Final = 6.0
_STOPPED_S: Final = 30.0
_FULL_S: Final = 3.0
_DEADLINE_S: Final = 2.0
_RECOVERY_S: Final = 150.0
_SETTLED_S: Final = 5.0
_LOST_S: Final = 20.0

EDGE: Final = ("edge killed", "edge stopped")
LOST: Final = "raylet of two lost"
BACK: Final = "raylet of two back"
MORE: Final = "replica added"
LESS: Final = "replica taken away"
RESTARTED: Final = ("each replica restarted", "a node restarted", "the other node restarted")
_CROWD: Final = 6
_PAIR: Final = 2
_PATIENT_S: Final = 20.0


class Processes:
    """One run over a stage of its own: a context manager. `history` has every ask of the edge in this process."""

    def __init__(self, folder: Path, seed: int, advance: Callable[[], None]) -> None:
        self._stage, self._open = Staged(folder), contextlib.ExitStack()
        self._began = False
        self._seed, self._advance = seed, advance
        self._checker, self._lock = Checker(self._stage.truth.expected), threading.Lock()
        self.tally, self.history = Tally(PART), list[HistoryLine]()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def run(self, indices: Iterable[int]) -> None:
        """The faults of these numbers."""
        names = (*FAULTS, *EDGE, LOST, MORE, RESTARTED[0])
        for index in indices:
            name, chance = names[index % len(names)], random.Random(f"{self._seed}/{index}")
            if name == LOST:
                self._cluster(chance, index)
            elif name == MORE:
                self._scaled(chance, index)
            elif name == RESTARTED[0]:
                self._restarted(chance, index)
            else:
                self._alone(chance, index, name)
            self._advance()

    def _alone(self, chance: random.Random, index: int, name: str) -> None:
        """With the cloud's own Ray, which is started for the first of these faults."""
        if not self._began:
            self._open.enter_context(self._stage)
            self._began = True
        with CheckedEdge(self._stage, self._stage.address, 20.0) as asker:
            if name in EDGE:
                self._edge(asker, chance, index, name)
            else:
                self._cloud(asker, chance, index, name)

    def _cluster(self, chance: random.Random, index: int) -> None:
        """Of two Ray nodes with a replica each, one goes, calls go on over the other, and it comes back."""
        with Cluster() as cluster, ThreadPoolExecutor(1) as starting:
            ray = RayConfig(address=cluster.address, token=str(cluster.token))
            stage, up = self._counted(index, {"replicas": 2}, ray=ray)
            with stage, CheckedEdge(stage, stage.address, 20.0) as asker:
                ask = functools.partial(self._ask, asker, chance, index)
                both = (HEAD, SECOND)
                _until(lambda: ask("none", 20.0) is Ending.FUSED and all(map(cluster.has_replica, both)))
                cluster.lose(SECOND)
                began = last = time.monotonic()
                while time.monotonic() - began < _LOST_S:
                    if ask(LOST, _DEADLINE_S) is not Ending.FUSED:
                        last = time.monotonic()
                    time.sleep(0.05)
                self.tally.recovered(LOST, last - began)
                began = time.monotonic()
                back = starting.submit(cluster.start, SECOND)

                def whole() -> bool:
                    ask(BACK, _DEADLINE_S)
                    return back.done() and up() == 2

                _until(whole)
                back.result()
                assert cluster.has_replica(SECOND)
                self.tally.recovered(BACK, time.monotonic() - began)

    def _scaled(self, chance: random.Random, index: int) -> None:
        """A crowd of callers has Ray Serve add a replica; when one caller is left, it takes one away."""
        scaling = {"max_replicas": 2, "max_ongoing": 4, "cpus": 0.5, "scale_up_s": 1.0, "scale_down_s": 5.0}
        stage, up = self._counted(index, scaling)
        with stage, contextlib.ExitStack() as edges, ThreadPoolExecutor(_CROWD) as crowd:
            askers = [edges.enter_context(CheckedEdge(stage, stage.address, 20.0)) for _ in range(_CROWD)]

            def until(number: int, name: str, asking: list[CheckedEdge]) -> None:
                self._under(crowd, asking, chance, index, name, lambda: _until(lambda: up() == number))

            until(2, MORE, askers)
            until(1, LESS, askers[:1])

    def _restarted(self, chance: random.Random, index: int) -> None:
        """Two nodes; each replica of the first, then each node, is told to end and is back before the next one."""
        stage, up = self._counted(index, {"replicas": 2, "cpus": 0.5})
        with contextlib.ExitStack() as edges, ThreadPoolExecutor(_PAIR) as crowd:
            edges.enter_context(stage)
            start = edges.enter_context(stage.second_node())
            second = start()
            askers = [
                edges.enter_context(CheckedEdge(stage, stage.address, _PATIENT_S)) for _ in range(_PAIR)
            ]

            def replicas() -> None:
                for pid in members_of(stage.cloud.pid, REPLICA):
                    send(pid, signal.SIGTERM)
                    _until(functools.partial(replaced, pid))

            def replaced(pid: int) -> bool:
                there = members_of(stage.cloud.pid, REPLICA)
                return pid not in there and len(there) == up() == 2

            def ended(node: NodeProcess) -> None:
                node.begin_to_stop()
                node.wait()

            def first_node() -> None:
                ended(stage.cloud)
                stage.start_cloud()

            def other_node() -> None:
                ended(second)
                start()

            for name, work in zip(RESTARTED, (replicas, first_node, other_node), strict=True):
                self._under(crowd, askers, chance, index, name, work)

    def _under(
        self,
        crowd: ThreadPoolExecutor,
        asking: list[CheckedEdge],
        chance: random.Random,
        index: int,
        name: str,
        work: Callable[[], None],
    ) -> None:
        """Do something while edges ask without pause; how long it took is what the tally calls recovered."""
        ended, began = threading.Event(), time.monotonic()

        def ask(asker: CheckedEdge) -> None:
            while not ended.is_set():
                self._ask(asker, chance, index, name, _PATIENT_S)

        calling = [crowd.submit(ask, asker) for asker in asking]
        try:
            work()
            self.tally.recovered(name, time.monotonic() - began)
        finally:
            ended.set()
        for one in calling:
            one.result()

    def _counted(
        self, index: int, sharer: Mapping[str, Any], **changes: Any
    ) -> tuple[Staged, Callable[[], float]]:
        """A stage of its own; and how many of its replicas take calls, as its numbers say."""
        folder, listen = self._stage.folder / f"stage-{index}", f"127.0.0.1:{free_port()}"
        folder.mkdir()
        telemetry = TelemetryConfig(listen=listen)
        stage = Staged(folder, self._stage.cast, sharer=sharer, telemetry=telemetry, **changes)
        return stage, lambda: Page.of(f"http://{listen}/metrics").value("kvwire_cloud_replicas_up")

    def _cloud(self, asker: CheckedEdge, chance: random.Random, index: int, name: str) -> None:
        self._supervise()
        self._ask(asker, chance, index, "none", 20.0)
        over = began = time.monotonic()
        back: float | None = None  # since when answers are fused again

        def ask() -> float | None:
            if self._ask(asker, chance, index, name, _DEADLINE_S) is not Ending.FUSED:
                return None
            return back or time.monotonic()

        with FAULTS[name](self._stage):
            held_s = _STOPPED_S if "stopped" in name else _FULL_S if "full" in name else _WINDOW_S
            while time.monotonic() - began < held_s:
                back = ask()
                time.sleep(0.05)
        ended = time.monotonic()
        if held_s != _WINDOW_S:
            over, back = ended, None
        # Not to the first fused answer alone: a node may end after it.
        while back is None or time.monotonic() - max(back, ended) < _SETTLED_S:
            self._supervise()
            back = ask()
            if back is None and time.monotonic() - over > _RECOVERY_S:
                self.tally.add(name, index, Ending.HANG, "no fused answer after it was over")
                return
            time.sleep(0.05)
        self.tally.recovered(name, back - over)

    def _supervise(self) -> None:
        """Start the cloud node again if it has ended."""
        if not self._stage.cloud.runs:
            self._stage.cloud.kill()
            self._stage.start_cloud()

    def _ask(
        self, asker: CheckedEdge, chance: random.Random, index: int, name: str, deadline_s: float
    ) -> Ending:
        asked = asker.ask(chance.choice(PROMPTS), deadline_s, index, name)
        with self._lock:
            self.history.append(asked)
            ending, why = self._checker.ending(asked)
            self.tally.add(name, index, ending, why, asked.seconds)
        return ending

    def _edge(self, asker: CheckedEdge, chance: random.Random, index: int, name: str) -> None:
        """An edge's process goes; another edge, and the cloud, do not notice; and it comes back."""
        if self._stage.edge_process is None or not self._stage.edge_process.runs:
            self._address = self._stage.start_edge()
        process = self._stage.edge_process
        assert process is not None
        self._over_http(index, name)
        killed = name == "edge killed"
        began = time.monotonic()
        send(process.pid, signal.SIGKILL if killed else signal.SIGSTOP)
        while time.monotonic() - began < (_WINDOW_S if killed else _STOPPED_S):
            self._ask(asker, chance, index, name, _DEADLINE_S)
            time.sleep(0.05)
        over = time.monotonic()
        if killed:
            process.kill()
            self._address = self._stage.start_edge()
        else:
            send(process.pid, signal.SIGCONT)
        self._over_http(index, name)
        self.tally.recovered(name, time.monotonic() - over)

    def _over_http(self, index: int, name: str) -> None:
        prompt = PROMPTS[index % 4]  # excerpts, as the edge is configured to ask
        began = time.monotonic()
        try:
            answer = EdgeApi(self._address, 30.0).ask(prompt.question, document=prompt.document, guess=True)
        except (AskFailed, OSError) as error:
            self.tally.add(name, index, Ending.CRASH, f"{type(error).__name__}: {error}"[:200])
            return
        expected = self._stage.truth.expected(prompt.name, self._stage.versions[str(prompt.document)])
        took = time.monotonic() - began
        if answer["source"] != "fused":
            self.tally.add(name, index, Ending.ALONE, str(answer["reason"]), took)
        elif answer["text"] != expected.text:
            self.tally.add(name, index, Ending.WRONG, "another answer", took)
        else:
            late = took > _DEADLINE_S + GRACE_S
            self.tally.add(name, index, Ending.HANG if late else Ending.FUSED, "late" if late else "", took)


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + _RECOVERY_S
    while not true():
        if time.monotonic() > end:
            raise TimeoutError("the cluster did not become whole")
        time.sleep(0.05)
