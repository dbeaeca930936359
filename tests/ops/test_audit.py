"""`kvwire audit` from the command line, on the tiny pair."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner, Result

from fuser.config import BadConfig
from fuser.lab.evaluate.settings import Setup, read_settings
from fuser.lab.leakage import attacks
from fuser.lab.leakage.held import Held, SliceReader
from fuser.lab.leakage.probes import INJECTIONS, _next
from fuser.lab.leakage.run import LeakageConfig, bounds
from ops.cli import app

EXAMPLE = Path(__file__).parents[2] / "ops" / "examples" / "audit.toml"
SMALL = (
    "documents=12",
    "known_documents=24",
    "candidates=3",
    "secrets=2",
    "plans=int4:m4",
    "drafts=raw",
    "probed=2",
    "adaptive=1,3",
    "crossed=6",
)
Audit = Callable[..., Result]


@pytest.fixture
def audit(tiny_bundle: Path, tiny_sharer: Path, tiny_receiver: Path, tmp_path: Path) -> Audit:
    """Runs `kvwire audit`; what the Sharer reads is kept in tmp_path / "work"."""

    def run(*options: str, fails: bool = False) -> Result:
        told = ("sharer=" + str(tiny_sharer), "receiver=" + str(tiny_receiver), f"work={tmp_path / 'work'}")
        words = [word for value in (*told, *SMALL) for word in ("--set", value)]
        return CliRunner().invoke(app, ["audit", str(tiny_bundle), *words, *options], catch_exceptions=fails)

    return run


def test_every_plan_is_attacked_and_every_attack_has_its_control(audit: Audit, tmp_path: Path) -> None:
    table, picture = tmp_path / "privacy.md", tmp_path / "privacy.svg"
    done = audit("--json", str(tmp_path / "report.json"), "--markdown", str(table), "--plot", str(picture))
    report: dict[str, Any] = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert (done.exit_code == 0) == report["valid"] == all(check["passed"] for check in report["checks"])
    planted = [check for check in report["checks"] if check["check"] == "a planted leak is found"]
    assert len(planted) == 2
    assert all(check["passed"] for check in planted)
    kinds = [(one["kind"], one["plan"]) for one in report["slices"]]
    assert kinds == [("excerpt", "int4:m4"), ("draft", "raw")]
    excerpt, draft = (one["attacks"] for one in report["slices"])
    # Who has a document has its codes, whatever the question was.
    assert excerpt["which document"]["point"] == 1.0
    assert 0 < excerpt["which document"]["control"] < 0.2
    assert excerpt["secret never asked about"]["cases"] == 2
    assert 0 <= excerpt["token at a position"]["low"] <= excerpt["token at a position"]["high"] <= 1
    assert draft["content tokens beyond answer and question"]["point"] == 0.0  # a draft quotes nothing
    assert draft["token before, not sent"] == {}
    for found in (excerpt, draft):
        one, three = (found[f"content of the document, {n} adaptive question{'s' * (n > 1)}"] for n in (1, 3))
        assert one["documents"] == 2 and 0 <= one["point"] <= three["point"] <= 1
        assert set(found["instructions in place of a question"]) >= {"point", "low", "high", "control"}
        assert set(found["another question from the same slice"]) >= {"point", "control", "own"}
    assert not list((tmp_path / "work").glob("**/tmp*")), (
        "what was read for the attacker's questions is not kept"
    )
    assert "excerpt, int4:m4" in table.read_text(encoding="utf-8")
    assert picture.stat().st_size > 1000


def test_codes_that_give_away_more_are_over_the_bound_and_a_run_that_misses_a_leak_is_void(
    audit: Audit, tiny_sharer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> tuple[int, dict[str, Any]]:
        few = ("candidates=0", "drafts=[]", "plans=raw:m6", "probed=0", "crossed=0")
        few += ("at_most.token before, not sent=0.5",)
        done = audit(*(word for value in few for word in ("--set", value)), "--json", "-")
        report = json.loads(done.stdout)
        return done.exit_code, report | report["bounds"][0]

    status, honest = run()
    assert (status, honest["valid"], honest["passed"]) == (0, True, True)
    assert [bound["passed"] for bound in bounds(honest["slices"], {"no attack": 1.0})] == [False]

    network = AutoModelForCausalLM.from_pretrained(tiny_sharer)
    embeddings, cut = network.get_input_embeddings().weight.detach().float(), SliceReader._held
    mixed = embeddings @ torch.randn(embeddings.shape[1], 24, generator=torch.Generator().manual_seed(1))

    def leaky(reader: SliceReader, number: int, at: torch.Tensor, *rest: Any) -> Held:
        held = cut(reader, number, at, *rest)
        return replace(held, codes=held.codes + 100 * mixed[reader.tokens[number][at - 1]])

    with monkeypatch.context() as patch:
        patch.setattr(SliceReader, "_held", leaky)
        status, leaking = run()
    assert (status, leaking["valid"], leaking["passed"]) == (1, True, False)
    monkeypatch.setattr(attacks, "_STRENGTH", 0.0)
    status, void = run()
    assert (status, void["valid"]) == (1, False)


def test_the_example_has_every_key(tmp_path: Path) -> None:
    config, setup = read_settings(LeakageConfig, EXAMPLE, ())
    assert config.drafts == ("transform-2",)
    assert setup == Setup(dtype="bfloat16")


@pytest.mark.parametrize(
    ("value", "said"),
    [("candidates=1", "candidates: 1"), ("known=[]", "known is empty"), ("documents=1", "documents: 1")],
)
def test_settings_that_measure_nothing_are_refused_by_name(audit: Audit, value: str, said: str) -> None:
    assert said in str(audit("--set", value, fails=True).exception)


def test_a_hundred_questions_and_256_candidates_may_be_asked_for_and_no_more_questions() -> None:
    wide = LeakageConfig(candidates=256, adaptive=(1, 20, 100))
    assert (wide.candidates, wide.adaptive[-1]) == (256, 100)
    with pytest.raises(BadConfig, match="from 1 to 100 at most"):
        LeakageConfig(adaptive=(1, 101))


def test_an_attacker_who_has_asked_all_about_the_last_slice_goes_on_with_those_before() -> None:
    said, asked = ["key hangs", "behind the old clock"], list[str]()
    while len(asked) < 40 and (question := _next(said, asked)) not in asked:
        asked.append(question)
    assert asked[0] == 'What comes right after "key hangs" in the document?'
    assert asked[1:3] == [f'What does the document say about "{word}"?' for word in ("key", "hangs")]
    assert tuple(asked[3:8]) == INJECTIONS
    assert asked[8] == 'What comes right after "the old clock" in the document?'
    assert len(asked) == 3 + 5 + 5 + 1 and _next([""], INJECTIONS) == asked[-1]
