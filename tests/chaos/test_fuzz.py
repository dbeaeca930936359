"""Whatever bytes come: a refusal by name."""

from pathlib import Path

from ops.chaos import fuzz
from ops.chaos.world import TinyWorld


def test_every_entry_refuses_by_name_what_it_does_not_take(world: TinyWorld) -> None:
    told = fuzz.run(world, 5, range(1_500), lambda: None).to_dict()
    assert told["violations"] == []
    assert len(told["rows"]) > 30


def test_what_is_changed_is_true_before_it_is_changed(world: TinyWorld, tmp_path: Path) -> None:
    found = fuzz.targets(world, tmp_path)
    del found["reply to a share"]  # one message of several
    for target in found.values():
        for sample in target.samples:
            target.take(sample)
