"""Batches follow from the number of a step, whoever reads them."""

import pickle

import clips
import pytest
import torch
from buckets import Shape
from collection import Clips
from errors import DataError
from loading import Steps, batches

from tests.examples.media import write_numbers

STEPS = range(5, 12)


@pytest.fixture
def collection(tmp_path):
    for n in range(3):
        write_numbers(tmp_path / f"{n}.mp4", 9, start=50 * n)
    return Clips(tmp_path, [Shape(4, 16, 16)], fps=(2.0, 10.0))


def read(collection, count, first=0, workers=0):
    following = batches(collection, STEPS, 2, 4, first=first, seed=1, workers=workers)
    return [following(torch.Generator()) for _ in range(count)]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_workers_change_nothing(collection, workers):
    for alone, by_workers in zip(read(collection, 7), read(collection, 7, 0, workers), strict=True):
        assert torch.equal(alone.videos, by_workers.videos)
        assert torch.equal(alone.fps, by_workers.fps)
        assert alone.texts == by_workers.texts


def test_a_resumed_reading_goes_on_as_the_interrupted_one(collection):
    whole, rest = read(collection, 7), read(collection, 4, first=8)
    for one, other in zip(whole[3:], rest, strict=True):
        assert torch.equal(one.videos, other.videos)
        assert torch.equal(one.fps, other.fps)
    assert not torch.equal(whole[0].videos, whole[3].videos)


def test_there_are_as_many_as_steps(collection):
    following = batches(collection, STEPS, 2, 4, first=11, seed=1, workers=0)
    following(torch.Generator())
    with pytest.raises(StopIteration):
        following(torch.Generator())
    batches(collection, STEPS, 2, 4, first=12, seed=1, workers=2)  # nothing to read, no worker


def test_what_is_made_here_follows_from_the_generator_of_the_step():
    digits = clips.MovingDigits(8)
    following = batches(digits, STEPS, 2, 4, first=0, seed=1, workers=2)
    batch = following(torch.Generator().manual_seed(3))
    assert torch.equal(batch.videos, digits(2, 4, torch.Generator().manual_seed(3)).videos)


def test_a_collection_can_be_sent_to_a_process_that_is_begun_anew(collection):
    steps = Steps(collection, STEPS, 2, 4, 1)
    sent = pickle.loads(pickle.dumps(steps))
    assert torch.equal(sent[7].videos, steps[7].videos)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_left_is_one_line_whoever_reads(tmp_path, collection, workers):
    for path in tmp_path.glob("*.mp4"):
        path.write_text("no video any more")
    with pytest.raises(DataError, match=r"^/.*mp4 cannot be decoded as a video: [^\n]*$"):
        read(collection, 1, workers=workers)
