import pytest

from kvwire.errors import DeadlineExceeded, InvalidRequest, MissingDeadline, TooLarge
from kvwire.limits import Limits
from kvwire.section import Role, Section, Visibility
from tests.kvwire.samples import header_of


def test_too_long_a_question_is_named_with_both_numbers() -> None:
    question = Section(Role.QUESTION, Visibility.SHARED, text="x" * 9)
    with pytest.raises(TooLarge, match="question characters: 9 is over the limit of 8"):
        Limits(max_question_chars=8).check_sections([question])
    Limits(max_question_chars=9).check_sections([question])


def test_too_many_sections_long_sections_and_long_ids_are_refused() -> None:
    limits = Limits(max_sections=1, max_section_chars=4, max_document_id_chars=4)
    system = Section(Role.SYSTEM, Visibility.SHARED, text="1234")
    limits.check_sections([system])
    with pytest.raises(TooLarge):
        limits.check_sections([system, system])
    with pytest.raises(TooLarge):
        limits.check_sections([Section(Role.SYSTEM, Visibility.SHARED, text="12345")])
    with pytest.raises(TooLarge):
        limits.check_sections([Section(Role.DOCUMENT, Visibility.CLOUD, document_id="12345")])


def test_a_slice_over_any_limit_is_refused() -> None:
    header = header_of(positions=3, layers=2)
    Limits(max_segments=4, max_positions=3, max_slice_bytes=4 * 96).check_slice(header)
    for limits in (Limits(max_segments=3), Limits(max_positions=2), Limits(max_slice_bytes=4 * 96 - 1)):
        with pytest.raises(TooLarge):
            limits.check_slice(header)


@pytest.mark.parametrize("remaining", [None, 1e12, float("inf")])
def test_a_call_without_a_deadline_is_refused(remaining: float | None) -> None:
    with pytest.raises(MissingDeadline):
        Limits().checked_deadline(remaining)


@pytest.mark.parametrize("remaining", [0.0, -1.0, 0.049])
def test_a_deadline_that_is_over_or_nearly_so_has_passed(remaining: float) -> None:
    with pytest.raises(DeadlineExceeded):
        Limits().checked_deadline(remaining)


def test_a_deadline_that_is_no_number_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        Limits().checked_deadline(float("nan"))


def test_a_long_deadline_is_cut() -> None:
    assert Limits(max_deadline_s=10).checked_deadline(99.0) == 10
    assert Limits(max_deadline_s=10).checked_deadline(99_999_999 * 3_600.0) == 10
    assert Limits(max_deadline_s=10).checked_deadline(9.0) == 9.0


@pytest.mark.parametrize(
    "change",
    [
        {"max_sections": 0},
        {"max_deadline_s": float("nan")},
        {"max_frame_bytes": 8 << 20},
        {"min_deadline_s": 200.0},
        {"min_ping_interval_s": 31.0},
    ],
)
def test_limits_that_cannot_hold_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        Limits(**change)  # type: ignore[arg-type]
