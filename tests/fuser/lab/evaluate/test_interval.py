"""Intervals, each with a case where the answer is known."""

import math

import pytest
import torch

from fuser.lab.interval import difference, gap_closed, mean, wilson


def test_wilson_agrees_with_the_published_example() -> None:
    found = wilson(81, 263)  # Newcombe 1998, table I, method 3: 0.2553 to 0.3662
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)
    assert wilson(0, 10).low == 0.0
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0.0, 1.0)


def test_a_paired_difference_of_equal_rows_is_exactly_nothing() -> None:
    row = torch.randint(0, 2, (200,))
    found = difference(row, row)
    assert (found.point, found.low, found.high) == (0.0, 0.0, 0.0)


def test_the_bootstrap_of_independent_marks_agrees_with_the_normal_interval() -> None:
    marks = (torch.arange(400) % 2).float()
    found = mean(marks)
    half = 1.96 * 0.5 / math.sqrt(400)
    assert found.low == pytest.approx(0.5 - half, abs=0.005)
    assert found.high == pytest.approx(0.5 + half, abs=0.005)


def test_questions_over_one_document_count_as_one_draw() -> None:
    marks = (torch.arange(40) % 2).repeat_interleave(10).float()
    groups = torch.arange(40).repeat_interleave(10)
    apart, together = mean(marks), mean(marks, groups)
    assert together.point == apart.point
    ratio = (together.high - together.low) / (apart.high - apart.low)
    assert ratio == pytest.approx(math.sqrt(10), rel=0.1)


def test_the_gap_closed_is_one_at_the_ceiling_and_undefined_without_a_gap() -> None:
    floor, ceiling = torch.zeros(100), torch.cat((torch.ones(60), torch.zeros(40)))
    assert gap_closed(ceiling, floor, ceiling).point == 1.0
    assert gap_closed(floor, floor, ceiling).point == 0.0
    assert math.isnan(gap_closed(floor, ceiling, floor).point)
