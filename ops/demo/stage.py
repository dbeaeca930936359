"""The stage of the demo: a folder with certificates, two configurations, documents, and the two nodes."""

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fuser.models.load import DeviceName, DtypeName
from ops.certs import make_certificates
from ops.demo.process import NodeFailed, NodeProcess, environment
from ops.demo.samples import DemoSample

TENANT = "demo"
CLOUD_START_S = 180.0
EDGE_START_S = 120.0
_READ_S = 600.0


@dataclass(frozen=True, slots=True)
class Cast:
    """Who plays: models by name, id or directory, the bundle's directory, how slices are asked for, and where and
    in what both models compute."""

    sharer: str
    receiver: str
    bundle: Path
    codec: str
    positions: int = 8
    device: DeviceName = "auto"
    dtype: DtypeName = "auto"

    @property
    def gpus(self) -> float:
        """GPUs that the Sharer's replica is handed: one where the device is CUDA. The edge's process asks nobody."""
        from fuser.models.load import find_device

        return 1.0 if find_device(self.device).type == "cuda" else 0.0


class DemoStage:
    """Both nodes, in one folder with one subfolder each. A context manager: leaving it ends both.

    The cloud's folder holds the documents. The edge's holds its own certificate and key, the authority's
    certificate and the bundle's path: nothing it is told names a document.

    Args:
        way: from the address where the cloud will listen to the one where the edge finds it: a link's, to go through.
        allow_relay: the cloud may answer as text.
        record: keep what crosses the wire, in `capture`.
        edge_runs: start the edge too; else `edge` is not there, and its folder is for a client of one's own.
        sharer: further settings of `cloud_node.config.SharerConfig`.
        cores: of each node by its name, as many as torch has threads there; a node that is not named has all.
    """

    def __init__(
        self,
        folder: Path,
        cast: Cast,
        samples: Iterable[DemoSample],
        *,
        way: Callable[[str], str] = lambda address: address,
        allow_relay: bool = False,
        record: bool = True,
        edge_runs: bool = True,
        sharer: Mapping[str, Any] | None = None,
        cores: Mapping[str, Collection[int]] | None = None,
    ) -> None:
        self.folder = folder
        self.capture = folder / "edge" / "capture"
        self._nodes: list[NodeProcess] = []
        self._address = f"127.0.0.1:{free_port()}"
        self._found_at = way(self._address)
        self._allow_relay, self._record, self._edge_runs = allow_relay, record, edge_runs
        self._cast, self._sharer, self._cores = cast, sharer or {}, cores or {}
        self._certify()
        self._configure_cloud(samples)
        self._configure_edge()

    def __enter__(self) -> Self:
        try:
            if self._edge_runs:
                self.edge = self._start("edge")
            self.cloud = self._start("cloud")
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def read_documents(self) -> None:
        """Have the cloud's documents read onto its disk, before the nodes start: `kvwire documents warm`.

        A process of its own, so that its model and threads go with it.

        Raises:
            NodeFailed: they could not all be read.
        """
        command = [sys.executable, "-m", "ops.cli", "documents", "warm", "--json", "--config"]
        config = self.folder / "cloud" / "cloud.toml"
        done = subprocess.run(
            [*command, str(config)], env=environment(), capture_output=True, text=True, timeout=_READ_S
        )
        if done.returncode:
            raise NodeFailed(f"the documents could not be read: {done.stderr.strip()}")
        told = json.loads(done.stdout)
        if {name for name, number in told.items() if number} != {"read", "bytes"}:
            raise NodeFailed(f"not all of the documents were read: {told}")

    def _start(self, name: str) -> NodeProcess:
        config, log = self.folder / name / f"{name}.toml", self.folder / f"{name}.log"
        node = NodeProcess(name, config, log, self._cores.get(name))
        self._nodes.append(node)
        return node

    def _stop(self) -> None:
        """End both, whatever happens meanwhile: a second Ctrl-C only makes it quicker."""
        try:
            for node in self._nodes:
                node.begin_to_stop()
            for node in self._nodes:
                node.wait()
        finally:
            for node in self._nodes:
                node.kill()

    def _certify(self) -> None:
        made = make_certificates(self.folder / "authority", [TENANT], hosts=["127.0.0.1"], days=2)
        for name, pair in (("cloud", made.cloud), ("edge", made.edges[TENANT])):
            folder = self.folder / name
            folder.mkdir(mode=0o700)
            pair.certificate.replace(folder / "node.pem")
            pair.key.replace(folder / "node.key")
            shutil.copy(made.ca.certificate, folder / "ca.pem")

    def _configure_cloud(self, samples: Iterable[DemoSample]) -> None:
        from cloud_node.documents import Documents

        folder = self.folder / "cloud"
        sharer = {
            "model": self._cast.sharer,
            "bundles": [str(self._cast.bundle)],
            "cpus": float(len(self._cores.get("cloud", ())) or min(os.cpu_count() or 1, 8)),
            "gpus": self._cast.gpus,
            "device": self._cast.device,
            "dtype": self._cast.dtype,
            **self._sharer,
        }
        export = {"profile": "quote", "allow_relay": self._allow_relay}
        tables: dict[str, dict[str, Any]] = {"tls": _TLS, "sharer": sharer, "export": export}
        write_toml(folder / "cloud.toml", {"listen": self._address}, tables)
        documents = Documents(f"sqlite:///{folder / 'documents.db'}")
        try:
            for sample in samples:
                documents.add(TENANT, sample.id, sample.text)
        finally:
            documents.close()

    def _configure_edge(self) -> None:
        tables: dict[str, dict[str, Any]] = {
            "tls": _TLS,
            "cloud": {"address": self._found_at},
            "receiver": {
                "model": self._cast.receiver,
                "bundle": str(self._cast.bundle),
                "threads": len(self._cores.get("edge", ())),
                "device": self._cast.device,
                "dtype": self._cast.dtype,
            },
            "share": {
                "codec": self._cast.codec,
                "max_positions": self._cast.positions,
                "deadline_s": 90.0,
            },
            "api": {"listen": "127.0.0.1:0"},
        }
        top = {"capture": self.capture.name} if self._record else {}
        write_toml(self.folder / "edge" / "edge.toml", top, tables)


_TLS = {"certificate": "node.pem", "key": "node.key", "authority": "ca.pem"}


def write_toml(path: Path, top: Mapping[str, Any], tables: Mapping[str, Mapping[str, Any]]) -> None:
    """Strings, numbers, truth values and lists of strings only; JSON spells those as TOML does."""
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in top.items()]
    for name, values in tables.items():
        lines += ["", f"[{name}]"]
        lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def free_port() -> int:
    """A port that is free, below those that systems hand out by themselves and above those of Ray's workers.

    The node binds it many seconds later, and by then Ray has taken some hundred of the others.
    """
    for port in random.sample(range(20_000, 32_768), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port between 20,000 and 32,767")
