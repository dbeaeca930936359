"""A node as a process of its own: started, waited for, and ended whatever happens."""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import IO

_STOP_S = 30.0
_TAIL_CHARS = 2_000


class NodeFailed(RuntimeError):
    """A node ended, or did not get ready in time; the message ends with what it logged last."""


class NodeProcess:
    """`kvwire cloud` or `kvwire edge` in a process group of its own, logging to a file.

    Its own group, so that Ctrl-C reaches only us, and we end it in order. Should we be killed, it ends too (Linux).

    Args:
        cores: that it and its children run on (Linux); None for all.
    """

    def __init__(self, name: str, config: Path, log: Path, cores: Collection[int] | None = None) -> None:
        self.name = name
        self._log = log
        self._address: str | None = None
        self._ready = threading.Event()
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ops.cli", name, "--config", str(config), "--json"],
                cwd=config.parent,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            )
        if cores is not None:
            os.sched_setaffinity(self._process.pid, cores)
        assert self._process.stdout is not None
        threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True).start()

    def address(self, timeout_s: float, check: Callable[[], None] = lambda: None) -> str:
        """Where it listens ("host:port"), once it can answer. `check` is called while waiting.

        Raises:
            NodeFailed: it ended, or took longer than `timeout_s`.
        """
        end = time.monotonic() + timeout_s
        while not self._ready.wait(0.1):
            check()
            if time.monotonic() > end:
                raise NodeFailed(f"the {self.name} node was not ready after {timeout_s:.0f} s{self._tail()}")
        if self._address is None:
            status = self._process.wait()
            raise NodeFailed(f"the {self.name} node ended with status {status}{self._tail()}")
        return self._address

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def begin_to_stop(self) -> None:
        """Ask it to end."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def wait(self) -> None:
        """Give it time to end by itself."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_S)

    def kill(self) -> None:
        """End what is left of it and of its process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _read(self, output: IO[bytes]) -> None:
        """Wait for the line that says where it listens; what else is printed belongs to the log."""
        with output, self._log.open("ab") as log:
            for line in output:
                if self._address is None and (address := _listening(line)) is not None:
                    self._address = address
                    self._ready.set()
                else:
                    log.write(line)
                    log.flush()
        self._ready.set()

    def _tail(self) -> str:
        text = self._log.read_text(encoding="utf-8", errors="replace").strip()
        return f"; its log ends:\n{text[-_TAIL_CHARS:]}" if text else ""


def _listening(line: bytes) -> str | None:
    with contextlib.suppress(ValueError):
        value = json.loads(line)
        if isinstance(value, dict) and isinstance(value.get("listening"), str):
            return str(value["listening"])
    return None


_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def _end_with_parent() -> None:
    """In the new process: ask the kernel to kill it when the thread that started it is gone.

    Nobody is left to wait for an orderly end; Ray's own processes watch the node and end after it.
    """
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def environment() -> dict[str, str]:
    """Ours, so that the packages are found from another working directory too."""
    roots = [str(Path(root).resolve()) for root in sys.path if root and Path(root).is_dir()]
    return os.environ | {"PYTHONPATH": os.pathsep.join(roots), "PYTHONUNBUFFERED": "1"}
