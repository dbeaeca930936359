"""What nothing beats, and what is near to it."""

import random

from fuser.lab.profile.worth import front, nearest_front


def test_the_front_has_what_no_other_point_beats() -> None:
    points = [(3.0, 1.0), (1.0, 3.0), (2.0, 2.0), (3.0, 3.0), (2.0, 2.0), (2.5, 2.0)]
    assert front(points) == [0, 1, 2]


def test_every_point_off_the_front_is_beaten_by_one_on_it() -> None:
    rng = random.Random(3)
    points = [(rng.randrange(9), rng.randrange(9), rng.randrange(9)) for _ in range(200)]
    kept = front(points)
    for index, own in enumerate(points):
        better = [k for k in kept if all(a <= b for a, b in zip(points[k], own, strict=True))]
        assert better and (index not in kept or better == [index])


def test_the_nearest_come_after_the_front_itself() -> None:
    points = [(1.0, 3.0), (2.0, 3.1), (3.0, 2.0), (4.0, 9.0), (5.0, 1.0), (6.0, 1.5)]
    assert nearest_front(points, 3) == [0, 2, 4]
    assert nearest_front(points, 5) == [0, 1, 2, 4, 5]
    assert nearest_front(points, 99) == [0, 1, 2, 3, 4, 5]


def test_a_long_front_is_thinned_between_its_ends() -> None:
    points = [(float(i), -float(i)) for i in range(20)]
    kept = nearest_front(points, 5)
    assert len(kept) == 5 and kept[0] == 0 and kept[-1] == 19
    assert nearest_front(points, 1) == [0]
