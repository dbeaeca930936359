"""Whatever bytes come: a refusal by name."""

from ops.chaos import fuzz
from ops.chaos.world import TinyWorld


def test_every_entry_refuses_by_name_what_it_does_not_take(world: TinyWorld) -> None:
    told = fuzz.run(world, 5, range(1_500), lambda: None).to_dict()
    assert told["violations"] == []
    assert len(told["rows"]) > 30
