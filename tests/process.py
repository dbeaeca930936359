"""What a fresh interpreter does; `tests/conftest.py` puts this tree on the path of every child."""

import subprocess
import sys
from pathlib import Path


def python(
    *arguments: str, cwd: Path | None = None, timeout_s: float = 120.0
) -> "subprocess.CompletedProcess[str]":
    """Run `python <arguments>` to its end, whatever its status, and keep what it writes."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout_s, check=False)


def modules_after(statement: str) -> set[str]:
    """Every module, and its top package, that a fresh interpreter has loaded after a statement."""
    done = python("-c", f"import sys\n{statement}\nprint(*sys.modules)")
    assert done.returncode == 0, done.stderr
    names = done.stdout.split()
    return {*names, *(name.partition(".")[0] for name in names)}
