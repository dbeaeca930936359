"""Layer maps: which Sharer layer feeds which Receiver layer."""

import pytest

from fuser.kv.geometry import LayerMap


def test_terminal_lets_the_last_layers_meet() -> None:
    assert LayerMap.terminal(3, 5).sources == (2, 3, 4)


def test_terminal_feeds_the_bottom_of_a_deeper_receiver_from_layer_0() -> None:
    assert LayerMap.terminal(28, 24).sources == (0, 0, 0, 0, *range(24))


def test_nearest_stretches_both_depths_to_the_same_length() -> None:
    assert LayerMap.nearest(5, 3).sources == (0, 0, 1, 1, 2)
    assert LayerMap.nearest(3, 5).sources == (0, 2, 4)


def test_nearest_takes_the_lower_layer_on_a_tie() -> None:
    assert LayerMap.nearest(3, 2).sources == (0, 0, 1)


def test_both_are_the_identity_for_equal_depths() -> None:
    assert LayerMap.terminal(6, 6).sources == LayerMap.nearest(6, 6).sources == tuple(range(6))


def test_one_layer_models_are_mapped() -> None:
    assert LayerMap.nearest(1, 1).sources == LayerMap.terminal(1, 1).sources == (0,)
    assert LayerMap.terminal(1, 9).sources == (8,)


def test_a_custom_map_may_leave_layers_out() -> None:
    chosen = LayerMap.custom({1: 3, 2: 0}, receiver_layers=4, sharer_layers=4)
    assert chosen.sources == (None, 3, 0, None)
    assert chosen.mapped == ((1, 3), (2, 0))
    assert (chosen[0], chosen[1], len(chosen)) == (None, 3, 4)


@pytest.mark.parametrize("pairs", [{4: 0}, {-1: 0}, {0: 4}, {0: -1}])
def test_layers_a_model_does_not_have_are_refused(pairs: dict[int, int]) -> None:
    with pytest.raises(ValueError, match="layer"):
        LayerMap.custom(pairs, receiver_layers=4, sharer_layers=4)


def test_a_model_without_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="layers on both sides"):
        LayerMap.terminal(0, 3)
