"""The meter: slices of held-out documents under attack, each attack beside its control; void where its checks fail.

The attacker is a curious edge. It has the bundle, both models with their weights, every slice that it asks for, and
texts of its own to learn from.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.progress import Progress

from fuser.bundle.plans import BadTable, PlanTable
from fuser.config import BadConfig, to_dict
from fuser.lab.data.document import Item, Question
from fuser.lab.data.load import load
from fuser.lab.evaluate.evaluation import Given, TimeLimit
from fuser.lab.evaluate.provenance import provenance
from fuser.lab.evaluate.questions import draw
from fuser.lab.evaluate.settings import Setup, plans_of
from fuser.lab.evaluate.sharer_cache import read_documents
from fuser.lab.leakage.attacks import Attack, Texts
from fuser.lab.leakage.probes import Prober, crossed
from fuser.lab.train.sharer_reading import document_sections
from fuser.reading import prompt_of
from kvwire.plan import Plan
from kvwire.segment import SliceKind

_SEED = 5_003
_CANARY = "The access code is {:04d}."
_VALUES = 10_000
_MOST_ASKED = 100


@dataclass(frozen=True, slots=True)
class LeakageConfig:
    """Settings of a measurement.

    data: documents that are asked about, with their questions, held out from the bundle's training. known: the
    attacker's own texts. documents, known_documents: how many of each. plans, drafts: of excerpts and of drafts, as in
    an evaluation. among: documents among which that of a slice is to be found. candidates: values that a secret may
    have, each of which is read in a document of its own; 256 find up to 8 bits, 0 leaves that attack out. secrets:
    documents with a secret. probed: documents that are asked instructions, and one question after the other; 0 leaves
    these attacks out. adaptive: after how many questions that is counted, 100 at most. crossed: questions asked of
    another question's slice. at_most: what the upper end of an attack's interval may be, by its name, in the report's
    unit (a share from 0 to 1, or tokens where the report says so).
    """

    data: str = "records:heldout"
    known: tuple[str, ...] = ("records:train",)
    documents: int = 80
    known_documents: int = 240
    max_document_chars: int = 900
    plans: tuple[str, ...] = ("transform-2:m8",)
    drafts: tuple[str, ...] = ()
    among: int = 100
    candidates: int = 16
    secrets: int = 12
    probed: int = 12
    adaptive: tuple[int, ...] = (1, 5, 20)
    crossed: int = 120
    at_most: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in ("documents", "known_documents", "max_document_chars", "among", "secrets"):
            if getattr(self, key) < 2:
                raise BadConfig(f"{key}: {getattr(self, key)} is not 2 or more")
        if not (self.candidates == 0 or 2 <= self.candidates <= _VALUES):
            raise BadConfig(f"candidates: {self.candidates} is neither 0 nor 2 to {_VALUES}")
        if self.probed < 0 or self.crossed < 0:
            raise BadConfig("probed and crossed start at 0")
        asked = list(self.adaptive)
        if not asked or asked != sorted(set(asked)) or asked[0] < 1 or asked[-1] > _MOST_ASKED:
            raise BadConfig(f"adaptive: numbers of questions, ascending from 1 to {_MOST_ASKED} at most")
        if not self.known:
            raise BadConfig("known is empty: the attacker learns from texts of its own")
        if not (self.plans or self.drafts):
            raise BadConfig("there is nothing to attack: give plans or drafts")


class LeakageRun:
    """One measurement of a bundle. Raises as `fuser.lab.evaluate.run.Run`."""

    def __init__(self, bundle: Path, config: LeakageConfig, setup: Setup) -> None:
        self._path, self._config = bundle, config
        self._given = replace(setup.given(bundle, "evaluate", 1), drafts=bool(config.drafts))
        self._given.bundle.require_translate()
        self._plans = [(SliceKind.EXCERPT, plan) for plan in plans_of(config.plans)]
        self._plans += [(SliceKind.DRAFT, plan) for plan in plans_of(config.drafts)]
        for kind, plan in self._plans:
            plan.check(kind)

    def measure(self, progress: Progress, argv: Sequence[str] = ()) -> dict[str, Any]:
        """Read, attack and report; what the Sharer reads is kept, so that another call finds it.

        Returns:
            Plain JSON values: `valid`, the `checks` that say so, under `slices` for each plan what attacks found, and
            the `bounds` of `at_most`, each `passed` or not.
        """
        config, given = self._config, self._given
        each = -(-config.known_documents // len(config.known))
        known = self._read([item for source in config.known for item in self._items(source, each)], progress)
        asked = self._read(self._items(config.data, config.documents), progress)
        secrets = self._secrets(asked, progress) if config.candidates else []
        embeddings = given.sharer.network.get_input_embeddings().weight.detach().float().cpu()
        checks, found = list[dict[str, Any]](), list[dict[str, Any]]()
        for kind, plan in progress.track(self._plans, description="attacking"):
            attack = Attack(
                given.bundle, kind, plan, known, asked, embeddings, given.sharer.tokenizer, config.among
            )
            named = {"kind": kind.value, "plan": str(plan)}
            checks += [named | check for check in attack.checks()]
            attacks = attack.found() | (
                {"secret never asked about": attack.secret(secrets)} if secrets else {}
            )
            attacks |= self._probed(asked, kind, plan, attack.common, progress)
            if config.crossed:
                some = asked.questions[: config.crossed]
                attacks["another question from the same slice"] = crossed(given, some, kind, plan)
            found.append(named | attack.sizes() | self._transfer(kind, plan) | {"attacks": attacks})
        data = {"known": list(config.known), "known_documents": len(known.prompts)}
        data |= {"asked": config.data, "documents": len(asked.prompts), "questions": len(asked.questions)}
        return {
            "valid": all(check["passed"] for check in checks),
            "checks": checks,
            "slices": found,
            "bounds": list(bounds(found, config.at_most)),
            "data": data,
            "bundle": {"sha256": given.bundle.hash, "sharer": str(given.bundle.config.sharer)}
            | {"receiver": str(given.bundle.config.receiver)},
            "command": list(argv),
            **provenance(given.sharer),
        }

    def _items(self, source: str, count: int) -> list[Item]:
        longest = self._config.max_document_chars
        return load(source, "document", count, _SEED, for_training=False, max_document_chars=longest)

    def _probed(
        self, asked: Texts, kind: SliceKind, plan: Plan, common: set[int], progress: Progress
    ) -> dict[str, Any]:
        """What questions of the attacker's own bring out; what the Sharer reads for them is not kept."""
        first = {question.document: question for question in reversed(asked.questions)}
        items = [
            Item(q.source, document, (Question(q.question, q.answers),))
            for document, q in list(first.items())[: self._config.probed]
        ]
        if not items:
            return {}
        given = replace(self._given, drafts=kind is SliceKind.DRAFT)

        def read(items: Sequence[Item]) -> Texts:  # a hundred questions would fill a disk
            with tempfile.TemporaryDirectory(dir=given.work) as work:
                return self._read(items, Progress(disable=True), replace(given, work=Path(work)))

        prober = Prober(read, given.bundle, kind, plan, given.sharer.tokenizer, common)
        told = prober.injected(items)
        return {"instructions in place of a question": told} | prober.adaptive(items, self._config.adaptive)

    def _read(self, items: Sequence[Item], progress: Progress, given: Given | None = None) -> Texts:
        given, questions = given or self._given, draw(items, None, _SEED)
        where = given.work, progress, TimeLimit()
        cache, _ = read_documents(questions, given.bundle, given.sharer, *where, given.drafts)
        style, tokenizer = given.bundle.config.sharer_prompt, given.sharer.tokenizer
        sections = [document_sections(document.text, "?") for document in cache.documents]
        return Texts(cache, questions, [prompt_of(tokenizer, style, some) for some in sections])

    def _secrets(self, asked: Texts, progress: Progress) -> list[tuple[int, Texts]]:
        """Documents that begin with a secret, with each value that it may have; and which one is its."""
        chance, made = random.Random(_SEED), list[tuple[int, Texts]]()
        first = {question.document: question for question in reversed(asked.questions)}
        for document, asks in list(first.items())[: self._config.secrets]:
            values = chance.sample(range(_VALUES), self._config.candidates)
            question = Question(asks.question, asks.answers)
            items = [Item(asks.source, f"{_CANARY.format(v)} {document}", (question,)) for v in values]
            made.append((chance.randrange(len(items)), self._read(items, progress)))
        return made

    def _transfer(self, kind: SliceKind, plan: Plan) -> dict[str, Any]:
        """What the plan is worth, where the bundle's table says it."""
        try:
            rows = PlanTable.load(self._path, self._given.bundle.hash).rows
        except BadTable:
            rows = ()
        worth = next((row.transfer for row in rows if row.kind is kind and row.plan == plan), None)
        return {"transfer": None if worth is None else to_dict(worth)}


def bounds(slices: Sequence[Mapping[str, Any]], at_most: Mapping[str, float]) -> Iterator[dict[str, Any]]:
    """Each bound for each plan: one of an attack that was not made is not kept; none where it has nothing to try."""
    for one in slices:
        for attack, most in at_most.items():
            found = one["attacks"].get(attack, {"high": None})
            if "high" in found:
                high = found["high"]
                told = {"attack": attack, "at_most": most, "found": high}
                kept = high is not None and high <= most
                yield {"kind": one["kind"], "plan": one["plan"]} | told | {"passed": kept}
