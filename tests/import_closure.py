"""How many of our files one answer imports, edge and cloud together: `python tests/import_closure.py [--files]`.

Lazy imports are counted, those for types alone are not. Of a package whose `__init__` loads names on first use, the
modules of the names asked for are counted. Generated files and those that hold no more than a docstring are not. The
number may fall and not rise: with more than `LIMIT` files the script fails, and `make check` with it.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ANSWER = ("edge_node.assistant", "cloud_node.node", "cloud_node.deployment", "cloud_node.replica")
LIMIT = 93
OURS = ("kvwire", "fuser", "cloud_node", "edge_node", "ops")


def file_of(module: str) -> Path | None:
    """Where a module of ours lies; None for another's, and for a name within a module."""
    top = module.partition(".")[0]
    base = (ROOT / "proto" if top == "kvwire" else ROOT) / module.replace(".", "/")
    candidates = (base.with_suffix(".py"), base / "__init__.py") if top in OURS else ()
    return next((path for path in candidates if path.is_file()), None)


def imported(path: Path, package: str) -> Iterator[str]:
    """Modules that a file imports anywhere in it, and names from modules, dotted; of a door only what is asked."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            for name in node.names:
                yield doors(base).get(name.name, f"{base}.{name.name}")


def doors(module: str) -> dict[str, str]:
    """The names that a package loads on first use, with their modules."""
    path = file_of(module)
    for node in ast.parse(path.read_text(encoding="utf-8")).body if path else ():
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOMES":
            found: dict[str, str] = ast.literal_eval(node.value)
            return found
    return {}


def closure(modules: tuple[str, ...]) -> list[Path]:
    """Files that importing the modules, and running all of them, reads; in order of their names."""
    seen: set[Path] = set()
    todo = list(modules)
    while todo:
        parts = todo.pop().split(".")
        for end in range(1, len(parts) + 1):
            module = ".".join(parts[:end])
            path = file_of(module)
            if path is not None and path not in seen:
                seen.add(path)
                package = module if path.name == "__init__.py" else module.rpartition(".")[0]
                todo += imported(path, package)
    return sorted(path for path in seen if "_pb2" not in path.name and holds_code(path))


def holds_code(path: Path) -> bool:
    """Whether there is more in a file than a docstring."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return any(not isinstance(node, ast.Expr) for node in body)


if __name__ == "__main__":
    files = closure(ANSWER)
    if "--files" in sys.argv:
        for file in files:
            print(file.relative_to(ROOT))
    lines = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)
    print(f"one answer imports {len(files)} of our files, {lines:,} lines")
    if len(files) > LIMIT:
        sys.exit(f"they may be {LIMIT} at most: keep what an answer does not need out of its imports")
