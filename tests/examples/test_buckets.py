"""Files come in an order that is shuffled in each round, batches in one shape each."""

from collections import Counter

import pytest
from buckets import Shape, bucket_of, nearest, shapes_about, shuffled
from decoding import Facts


def test_each_round_has_every_file_once_in_another_order():
    rounds = [[shuffled(place, 7, 3) for place in range(7 * n, 7 * n + 7)] for n in range(4)]
    assert all(sorted(files) == list(range(7)) for files in rounds)
    assert len({tuple(files) for files in rounds}) == 4
    assert [shuffled(place, 7, 3) for place in range(7)] == rounds[0]
    assert [shuffled(place, 7, 4) for place in range(7)] != rounds[0]


def test_one_bucket_is_gone_through_in_turn():
    assert [bucket_of(step, 4, (10,), 0) for step in range(20)] == [(0, n) for n in range(20)]


def test_buckets_come_as_often_as_they_are_large_and_go_on_where_they_were():
    sizes, turns = (40, 8, 1), [bucket_of(step, 4, (40, 8, 1), 5) for step in range(39)]
    assert Counter(bucket for bucket, _ in turns) == {0: 30, 1: 6, 2: 3}  # three rounds
    for bucket in range(3):
        own = [turn for b, turn in turns if b == bucket]
        assert own == list(range(len(own)))
    assert len({tuple(b for b, _ in turns[i : i + 13]) for i in (0, 13, 26)}) == 3
    assert [bucket_of(step, 4, sizes, 5) for step in (7, 30)] == [turns[7], turns[30]]


def test_shapes_have_about_as_many_pixels_and_are_multiples():
    shapes = shapes_about(64, 16, multiple=8, frame_multiple=4)
    assert {shape.frames for shape in shapes} == {16, 8, 4}
    assert Shape(16, 64, 64) in shapes
    for _, height, width in shapes:
        assert height % 8 == width % 8 == 0
        assert height * width == pytest.approx(64 * 64, rel=0.15)
    assert {round(width / height, 1) for _, height, width in shapes} == {1.0, 1.3, 0.8, 1.8, 0.5}
    assert len(set(shapes)) == len(shapes)
    assert shapes_about(8, 3, multiple=8, frame_multiple=1)[0] == Shape(3, 8, 8)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((640, 480), (48, 64)),
        ((480, 640), (64, 48)),
        ((100, 110), (56, 56)),
        ((900, 100), (40, 72)),
    ],
)
def test_a_file_goes_to_the_nearest_proportions_of_the_longest(size, expected):
    sizes = [(56, 56), (48, 64), (64, 48), (40, 72), (72, 40)]
    shapes = [Shape(frames, *size) for frames in (16, 8) for size in sizes]
    assert nearest(Facts(99, 25.0, *size), shapes) == Shape(16, *expected)
    assert nearest(Facts(99, 25.0, *size), shapes[5:]) == Shape(8, *expected)
