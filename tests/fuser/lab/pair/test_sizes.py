"""Minutes are shared out over all that is to be done."""

from dataclasses import replace

import pytest

from fuser.lab.pair.sizes import Counts, Pace, sizes_of

PACE = Pace(read=1.0, draft=3.0, step=2.0, stage=10.0, answer=0.1, solve=0.6, product=10.0, positions=200.0)
THERE = Counts(train=5000, plans=500, held_out=700, fitting=4000, outputs=20_000, layer=256, layers=24)


@pytest.mark.parametrize("drafts", [True, False])
@pytest.mark.parametrize("minutes", [20, 60, 600])
def test_all_together_takes_the_minutes_that_there_are(minutes: float, drafts: bool) -> None:
    sizes = sizes_of(minutes, PACE, THERE, drafts)
    assert sizes.total == pytest.approx(60 * minutes, rel=0.01)
    assert (sizes.drafted > 0) == drafts
    assert sizes.drafted <= sizes.pieces and sizes.drafted_validation <= sizes.validation


def test_more_minutes_make_more_of_everything_up_to_what_there_is() -> None:
    few, many, all_day = (sizes_of(minutes, PACE, THERE, True) for minutes in (20, 120, 1440))
    for name in ("fit", "pieces", "drafted", "inputs", "steps", "draft_steps", "plans", "held_out"):
        assert getattr(few, name) <= getattr(many, name) <= getattr(all_day, name)
    assert few.steps < many.steps < all_day.steps
    assert all_day.pieces == THERE.train
    assert all_day.inputs == THERE.layer * THERE.layers
    assert (all_day.fit, all_day.plans, all_day.held_out) == (400, 120, 200)


def test_too_few_minutes_still_make_a_little_of_everything_and_say_what_it_takes() -> None:
    sizes = sizes_of(0.1, PACE, THERE, True)
    assert (sizes.pieces, sizes.drafted, sizes.steps + sizes.draft_steps) == (16, 8, 16)
    assert (sizes.plans, sizes.held_out, sizes.fit, sizes.inputs) == (8, 8, 0, 256)
    assert sizes.total > 60


def test_the_selection_is_fitted_only_where_enough_questions_have_their_answer_in_the_text() -> None:
    assert sizes_of(60, PACE, THERE, True).fit > 0
    assert sizes_of(60, PACE, replace(THERE, fitting=59), True).fit == 0


def test_what_there_is_too_little_of_is_taken_whole_and_its_time_goes_to_training() -> None:
    small = replace(THERE, train=20, plans=4, held_out=6)
    sizes, others = sizes_of(60, PACE, small, True), sizes_of(60, PACE, THERE, True)
    assert (sizes.pieces, sizes.validation, sizes.held_out) == (20, 4, 6)
    assert sizes.steps > others.steps
