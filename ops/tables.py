"""The short table of an evaluation, and the places of tables in a Markdown file"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def short_table(report: Mapping[str, Any]) -> str:
    """Every row with its first metric and its interval, other metrics as points; transfer and gap closed below."""
    rows = report["rows"]
    metrics = list(dict.fromkeys(metric for row in rows for metric in row["metrics"]))
    if not metrics:
        raise ValueError("there is no table to write: no row has an answer")
    heads = [f"{metric.replace('_', ' ').replace('f1', 'F1')} %" for metric in metrics]
    heads[0] += " [95 %]"
    asked = f"{report['data']['questions']} questions, `{report['data']['source']}`"
    lines = [
        f"| {asked} | {' | '.join(heads)} | bytes a question |",
        "|---|" + "---|" * (len(metrics) + 1),
    ]
    for row in rows:
        found = row["metrics"]  # a row may have metrics of its own
        cells = [_shown(found[metrics[0]])]
        cells += [f"{100 * found[m]['point']:.1f}" if m in found else "" for m in metrics[1:]]
        label = f"**{row['label']}**" if row["row"] == "fused" else row["label"]
        lines.append(f"| {label} | {' | '.join(cells)} | {row['bytes_per_question']:,.0f} |")
    shown = {(row["row"], row["plan"]) for row in rows}
    for name, value in report["differences"].get(metrics[0], {}).items():
        if name.startswith(("transfer", "gap")) and (value["row"], value["plan"]) in shown:
            unit = "points" if name.startswith("transfer") else "%"
            lines += ["", f"{name[0].upper()}{name[1:]}: {_shown(value)} {unit} ({heads[0].split(' %')[0]})."]
    bundle, machine = report["bundle"], report["machine"]
    made = (
        report["time"][:10],
        f"bundle `{bundle['sha256'][:12]}` ({bundle['parameters']:,} parameters)",
        f"{bundle['sharer'].partition('@')[0]} to {bundle['receiver'].partition('@')[0]}",
        report["dtype"],
        f"{machine['cores']} cores",
        machine["accelerator"] or "no GPU",
    )
    lines += ["", f"{', '.join(made)}."]
    return "\n".join(lines)


def check_marks(path: Path, name: str = "", command: str = "eval") -> None:
    """Raise ValueError at once where `put` would: the file must have one place for a table of this name."""
    begin, end, place = _place(name, command)
    if len(place.findall(path.read_text(encoding="utf-8"))) != 1:
        raise ValueError(
            f"{path} must have one line {begin} and after it one line {end}: the table goes between"
        )


def put(table: str, path: Path, name: str = "", command: str = "eval") -> None:
    """Replace what stands between the two lines.

    Args:
        command: `kvwire` COMMAND made the table.

    Raises:
        ValueError: as `check_marks`.
    """
    check_marks(path, name, command)
    begin, end, place = _place(name, command)
    text = path.read_text(encoding="utf-8")
    path.write_text(place.sub(lambda _: f"{begin}\n{table}\n{end}", text), encoding="utf-8")


def _place(name: str, command: str) -> tuple[str, str, re.Pattern[str]]:
    """The lines around a table of this name, and the pattern of all that stands in its place."""
    begin = f"<!-- kvwire {command}{f' {name}' if name else ''} -->"
    end = f"<!-- end of kvwire {command} -->"
    return begin, end, re.compile(rf"^{re.escape(begin)}$.*?^{end}$", re.MULTILINE | re.DOTALL)


def _shown(value: Mapping[str, Any]) -> str:
    return f"{100 * value['point']:.1f} [{100 * value['low']:.1f}, {100 * value['high']:.1f}]"
