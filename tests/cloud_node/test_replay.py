import pytest

from cloud_node.admission import RecentRequests
from kvwire.errors import InvalidRequest


def test_an_id_is_good_for_one_request_of_a_tenant() -> None:
    recent = RecentRequests()
    recent.enter("acme", b"1")
    with pytest.raises(InvalidRequest):
        recent.enter("acme", b"1")
    recent.enter("acme", b"2")
    recent.enter("other", b"1")


def test_a_request_of_which_nothing_was_sent_may_come_again() -> None:
    recent = RecentRequests()
    recent.enter("acme", b"1")
    recent.forget("acme", b"1")
    recent.enter("acme", b"1")


def test_old_ids_make_room() -> None:
    recent = RecentRequests(max_ids=2)
    for i in range(3):
        recent.enter("acme", bytes([i]))
    recent.enter("acme", bytes([0]))
    brief = RecentRequests(window_s=0.0)
    brief.enter("acme", b"1")
    brief.enter("acme", b"1")
