"""What a fresh interpreter does, and the command line; `tests/conftest.py` puts this tree on every child's path."""

import io
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock


def python(
    *arguments: str, cwd: Path | None = None, timeout_s: float = 120.0
) -> "subprocess.CompletedProcess[str]":
    """Run `python <arguments>` to its end, whatever its status, and keep what it writes."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout_s, check=False)


def kvwire(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `kvwire <arguments>` to its end in this process, its errors turned into a line and a status as ever."""
    from ops.cli import main

    status, err = 0, io.StringIO()
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="")  # some commands write bytes
    with mock.patch.object(sys, "argv", ["kvwire", *arguments]), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
    out.seek(0)
    return subprocess.CompletedProcess(arguments, status, out.read(), err.getvalue())


def modules_after(statement: str) -> set[str]:
    """Every module, and its top package, that a fresh interpreter has loaded after a statement."""
    done = python("-c", f"import sys\n{statement}\nprint(*sys.modules)")
    assert done.returncode == 0, done.stderr
    names = done.stdout.split()
    return {*names, *(name.partition(".")[0] for name in names)}
