"""The recipe of a pair of one's own, as plain values and as TOML."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fuser.config import to_dict
from fuser.heads.translate import TranslateConfig
from fuser.lab.pair.models import LEAD, PairModels
from fuser.lab.pair.sizes import PLANS, Sizes
from fuser.lab.pair.texts import MOST

TRAIN, DRAFTED, CHOOSING, HELD_OUT = "train.jsonl", "drafted.jsonl", "plans.jsonl", "heldout.jsonl"
POSITIONS, SENT = 32, 16
"""Of an excerpt, at most; and those that the example configurations let a plan send."""
DRAFTS_STAGE, CODECS_STAGE = "drafts", "codecs"
_CODECS = ["raw", "transform-4", "transform-2"]
_RATES = [4.0, 2.0, 1.0, 0.5]


def recipe_of(
    models: PairModels,
    names: tuple[str, str],
    folder: Path,
    output: Path,
    sizes: Sizes,
    translate: TranslateConfig,
    *,
    drafts: bool,
    device: str,
    dtype: str,
    batch: int,
    seed: int,
) -> dict[str, Any]:
    """A recipe for `fuser.lab.train.recipe.Recipe.of`, whose texts are in `folder`/data.

    Args:
        names: of Sharer and Receiver, as `fuser.models.directory.find_model` finds them.
    """
    selection: dict[str, Any] = {"positions": POSITIONS}
    if sizes.fit:
        selection |= {"rule": "learnt", "heads": models.heads}
    code = translate.code_dim
    head = {k: v for k, v in to_dict(translate).items() if v != []}
    steps = sizes.steps
    table: dict[str, Any] = {
        "sharer": names[0],
        "receiver": names[1],
        "work": str(folder / "stages"),
        "output": str(output),
        "cache": str(folder / "cache"),
        "device": device,
        "dtype": dtype,
        "seed": seed,
        "regression_positions": max(1, sizes.regression),
        "lead": LEAD,
        "translate": head,
        "selection": selection,
        "sharer_prompt": models.sharer_prompt.to_dict(),
        "receiver_prompt": models.receiver_prompt.to_dict(),
        "answer": {
            "steps": steps,
            "batch": batch,
            "learning_rate": 3e-4,
            "prefix_learning_rate": 2e-3,
            "warmup": min(30, max(1, steps // 10)),
            "text_share": 0.04,
            "unanswerable_share": 0.04,
            "recite_share": 0.3,
            "evaluate_every": max(1, steps if steps < 200 else -(-steps // 4)),
            "checkpoint_every": 10,
            "validation": 3 * batch,
        },
        "dials": {
            "positions": [8, 16, 16, POSITIONS],
            "code_dims": [max(1, code // 2), code, code],
            "bits": [0, 4, 8],
        },
        "fit": {"questions": max(50, sizes.fit)},
        "calibrate": {"rates": _RATES},
        "sources": {
            "texts": _source(folder, TRAIN, sizes.pieces),
            "drafted": _source(folder, DRAFTED, 0),
            "plans": _source(folder, CHOOSING, sizes.validation) | {"validation": True},
        },
    }
    stages: list[dict[str, Any]] = [{"name": "selection", "kind": "fit"}] if sizes.fit else []
    stages += [{"name": "answers", "kind": "train"}, {"name": CODECS_STAGE, "kind": "calibrate"}]
    through: dict[str, Any] = {
        "name": "through_codecs",
        "kind": "train",
        "seed": seed + 1,
        "answer": {
            "steps": sizes.draft_steps,
            "learning_rate": 1e-4,
            "prefix_learning_rate": 5e-4,
            "warmup": min(30, max(1, sizes.draft_steps // 10)),
            "evaluate_every": max(
                1, sizes.draft_steps if sizes.draft_steps < 200 else -(-sizes.draft_steps // 4)
            ),
        },
        "dials": {"bits": [], "codecs": _CODECS},
    }
    if drafts:
        through["name"] = DRAFTS_STAGE
        through["answer"] |= {"draft_share": 0.4, "unanswerable_share": 0.1, "recite_share": 0.15}
        through["dials"] |= {"quoted": [0, 0, 8]}
        through |= _of_drafts(sizes)
    final: dict[str, Any] = {"name": "final_codecs", "kind": "calibrate"} | (
        _of_drafts(sizes) if drafts else {}
    )
    profile = {
        "data": str(folder / "data" / CHOOSING),
        "questions": sizes.plans,
        "screened": max(1, min(sizes.plans // 2, 48)),
        "plans": PLANS,
        "max_document_chars": MOST,
        "dials": {
            "codecs": ["transform-4", "transform-2", "transform-1"],
            "positions": [SENT, SENT // 2],
            "code_dims": [code, max(1, code // 2)],
        },
    }
    profiles = [{"name": "plans", "kind": "profile", "profile": profile}]
    if drafts:
        profiles.append({"name": "draft_plans", "kind": "profile", "profile": profile | {"drafts": True}})
    return table | {"stage": [*stages, through, final, *profiles]}


def _source(folder: Path, name: str, documents: int) -> dict[str, Any]:
    return {"source": str(folder / "data" / name), "documents": documents, "max_document_chars": MOST}


def _of_drafts(sizes: Sizes) -> dict[str, Any]:
    """Keys of a stage that reads drafts: fewer pieces, as each question's takes a second or more."""
    return {
        "drafts": True,
        "sources": {
            "texts": {"documents": 0},
            "drafted": {"documents": sizes.drafted},
            "plans": {"documents": sizes.drafted_validation},
        },
    }


def to_toml(table: Mapping[str, Any]) -> str:
    """A table as TOML: its own values first, then the tables in it, then the lists of tables."""
    return "\n".join(_lines(table, ())) + "\n"


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    values = {k: v for k, v in table.items() if not isinstance(v, Mapping) and not _tables(v)}
    lines = [f"{key} = {_value(value)}" for key, value in values.items()]
    for key, value in table.items():
        name = ".".join((*path, key))
        if isinstance(value, Mapping):
            lines += ["", f"[{name}]", *_lines(value, (*path, key))]
        elif _tables(value):
            for one in value:
                lines += ["", f"[[{name}]]", *_lines(one, (*path, key))]
    return lines


def _tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def _value(value: Any) -> str:
    """JSON's way of writing text, numbers and lists is TOML's, but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
