"""What earlier chunks of a stream leave to temporal parts."""

import pytest
import torch

from make_a_video_pytorch.ops.past import Past


def after(*chunks, most):
    """The past of what follows `chunks`, whose only use sees `most` frames before it."""
    past = Past(0, torch.tensor(0))
    for chunk in chunks:
        past.extend(chunk, most)
        frames = past.frames + chunk.shape[1]
        past = Past(frames, torch.tensor(frames), tuple(past.left))
    return past


def frames(first, stop):
    """Frames (2 f 3) that hold their number."""
    return torch.arange(float(first), stop)[None, :, None].expand(2, -1, 3)


def numbers(x):
    return x[1, :, 2].tolist()


def test_a_chunk_lies_behind_the_last_frames_before_it():
    assert numbers(after(most=3).extend(frames(1, 3), 3)) == [0, 0, 0, 1, 2]
    assert numbers(after(frames(1, 3), most=3).extend(frames(3, 4), 3)) == [0, 1, 2, 3]
    assert numbers(after(frames(1, 3), frames(3, 8), most=3).extend(frames(8, 9), 3)) == [
        5,
        6,
        7,
        8,
    ]


def test_or_behind_all_of_them():
    assert numbers(after(most=None).extend(frames(1, 3), None)) == [1, 2]
    past = after(frames(1, 3), frames(3, 4), most=None)
    assert numbers(past.extend(frames(4, 6), None)) == [1, 2, 3, 4, 5]
    assert past.before(None) == 3
    assert past.before(7) == 7


def test_what_is_kept_does_not_grow():
    kept = [after(*[frames(0, 2)] * count, most=3).kept[0].shape[1] for count in (1, 2, 9)]
    assert kept == [5, 5, 5]


def test_the_same_past_can_be_seen_again():
    past = after(frames(1, 6), most=2)
    again = Past(past.frames, past.seen, past.kept)
    assert torch.equal(past.extend(frames(6, 8), 2), again.extend(frames(6, 8), 2))


def test_it_says_which_frames_are_zeros_before_the_first():
    for before, real in ((0, [0, 0, 0, 1, 1]), (2, [0, 1, 1, 1, 1]), (9, [1, 1, 1, 1, 1])):
        past = after(*[frames(0, before)] if before else [], most=3)
        x = frames(0, 2)
        assert past.real(x, past.extend(x, 3)).int().tolist() == [real, real]


def test_uses_have_frames_of_their_own_and_may_be_made_again():
    first = Past(0, torch.tensor(0))
    for start in (0, 10):
        first.extend(frames(start, start + 3), 2)
    past = Past(3, torch.tensor(3), tuple(first.left))
    some = past.from_here(lambda x: past.extend(x, 2))
    assert numbers(some(frames(3, 4))) == [1, 2, 3]
    others = past.from_here(lambda x: past.extend(x, 2))
    assert numbers(others(frames(13, 14))) == [11, 12, 13]
    assert numbers(some(frames(3, 4))) == [1, 2, 3]
    assert [numbers(left) for left in past.left] == [[1, 2, 3], [11, 12, 13]]
    past.must_be_whole()


def test_parts_that_change_within_a_stream_are_an_error():
    past = after(frames(0, 2), most=1)
    with pytest.raises(ValueError, match="`reset` it after a change"):
        past.must_be_whole()  # one use is missing
    with pytest.raises(ValueError, match="see as many pixels at once"):
        past.extend(torch.zeros(2, 1, 4), 1)
    with pytest.raises(ValueError, match="must be those of its chunk before"):
        past.extend(frames(2, 3), 1)  # there was but one use


def test_what_is_gone_is_an_error_and_no_other_number():
    with pytest.raises(ValueError, match="cannot be computed again in a backward pass"):
        after(frames(0, 2), most=1).gone().extend(frames(2, 3), 1)
