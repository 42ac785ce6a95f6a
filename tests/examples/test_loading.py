"""Batches follow from the number of a step, whoever reads them."""

import itertools
import pickle

import clips
import pytest
import torch
from buckets import Shape
from collection import Clips
from draws import Draws
from errors import DataError
from loading import ALONE, Share, Steps, batches, shared_out

from tests.examples.media import write_numbers

STEPS = range(5, 12)


@pytest.fixture
def collection(tmp_path):
    for n in range(3):
        write_numbers(tmp_path / f"{n}.mp4", 9, start=50 * n)
    return Clips(tmp_path, [Shape(4, 16, 16)], fps=(2.0, 10.0))


def read(collection, count, first=0, workers=0):
    following = batches(collection, STEPS, 2, 4, first=first, seed=1, workers=workers)
    return [following(Draws(0, 0)) for _ in range(count)]


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
    following(Draws(0, 0))
    with pytest.raises(StopIteration):
        following(Draws(0, 0))
    batches(collection, STEPS, 2, 4, first=12, seed=1, workers=2)  # nothing to read, no worker


def test_what_is_made_here_follows_from_the_generator_of_the_step():
    digits = clips.MovingDigits(8)
    following = batches(digits, STEPS, 2, 4, first=0, seed=1, workers=2)
    batch = following(Draws(0, 3))
    assert torch.equal(batch.videos, digits(2, 4, Draws(0, 3).generator).videos)


@pytest.mark.parametrize("made_here", [True, False])
def test_the_shares_of_a_step_are_the_batch_of_one_process(collection, made_here):
    """Names, rates and texts too; the more of it, the more parts or processes there are."""
    source = clips.MovingDigits(8) if made_here else collection

    def read(count, *share):
        following = batches(
            source, STEPS, count, 4, first=6, seed=1, workers=0, share=Share(*share)
        )
        process, processes, parts = share
        shares = processes * parts
        return [
            following(Draws(1, step, process * parts + part, shares))
            for step in (6, 7) for part in range(parts)
        ]  # fmt: skip

    whole = read(6, 0, 1, 1)
    for processes, parts in ((2, 1), (1, 3), (3, 2)):
        by_process = [read(6 // processes // parts, n, processes, parts) for n in range(processes)]
        for step, batch in enumerate(whole):
            shares = [b for read in by_process for b in read[step * parts : (step + 1) * parts]]
            for one, *others in zip(batch, *shares, strict=True):
                if isinstance(one, torch.Tensor):
                    assert torch.equal(one, torch.cat(others))
                else:
                    assert one is None or one == list(itertools.chain(*others))
    assert not torch.equal(whole[0].videos[:3], whole[0].videos[3:])


@pytest.mark.parametrize(
    ("total", "processes", "most", "found"),
    [
        (8, 2, 4, (4, 1)),
        (8, 1, 4, (4, 2)),
        (12, 2, 4, (3, 2)),
        (7, 1, 6, (1, 7)),
        (6, 3, 9, (2, 1)),
    ],
)
def test_a_step_is_shared_out_so_that_no_more_is_computed_at_once(total, processes, most, found):
    assert shared_out(total, processes, most) == found


def test_what_cannot_be_shared_is_an_error():
    with pytest.raises(DataError, match="3 processes cannot have as many each of the 8 samples"):
        shared_out(8, 3, 8)


def test_a_collection_can_be_sent_to_a_process_that_is_begun_anew(collection):
    steps = Steps(collection, STEPS, 2, 4, 1, ALONE)
    sent = pickle.loads(pickle.dumps(steps))
    assert torch.equal(sent[7].videos, steps[7].videos)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_left_is_one_line_whoever_reads(tmp_path, collection, workers):
    for path in tmp_path.glob("*.mp4"):
        path.write_text("no video any more")
    with pytest.raises(DataError, match=r"^/.*mp4 cannot be decoded as a video: [^\n]*$"):
        read(collection, 1, workers=workers)
