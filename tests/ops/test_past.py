"""What earlier chunks of a stream leave to temporal parts."""

import pytest
import torch
from torch.distributed.utils import _apply_to_tensors  # by which FSDP and DDP cast

from make_a_video_pytorch.ops.decision import Temporal
from make_a_video_pytorch.ops.past import Past


def after(*chunks, most):
    """The past of what follows `chunks`, whose only use sees `most` frames before it."""
    past = Past(0, torch.tensor(0))
    for chunk in chunks:
        past.extend(chunk, most)
        frames = past.frames + chunk.shape[1]
        past = Past(frames, torch.tensor(frames), kept_of(past))
    return past


def kept_of(past):
    """What the chunk after that of `past` sees."""
    return tuple(
        whole if most is None else whole[:, whole.shape[1] - most :] for whole, most in past.take()
    )


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
    assert kept == [3, 3, 3]


def test_the_same_past_can_be_seen_again():
    past = after(frames(1, 6), most=2)
    again = Past(past.frames, past.seen, past.kept)
    assert torch.equal(past.extend(frames(6, 8), 2), again.extend(frames(6, 8), 2))


def test_it_says_which_frames_are_zeros_before_the_first():
    for before, real in ((0, [0, 0, 0, 1, 1]), (2, [0, 1, 1, 1, 1]), (9, [1, 1, 1, 1, 1])):
        past = after(*[frames(0, before)] if before else [], most=3)
        x = frames(0, 2)
        assert past.real(x, past.extend(x, 3)).int().tolist() == [real]


def test_uses_have_frames_of_their_own_and_may_be_made_again():
    first = Past(0, torch.tensor(0))
    for start in (0, 10):
        first.extend(frames(start, start + 3), 2)
    past = Past(3, torch.tensor(3), kept_of(first))
    some = past.from_here(lambda x: past.extend(x, 2))
    assert numbers(some(frames(3, 4))) == [1, 2, 3]
    others = past.from_here(lambda x: past.extend(x, 2))
    assert numbers(others(frames(13, 14))) == [11, 12, 13]
    assert numbers(some(frames(3, 4))) == [1, 2, 3]
    assert [numbers(whole) for whole, _ in past.left[:2]] == [[1, 2, 3], [11, 12, 13]]


def test_what_is_computed_again_after_a_chunk_keeps_nothing():
    past = after(frames(0, 3), most=2)
    again = past.from_here(lambda x: past.extend(x, 2))
    assert numbers(again(frames(3, 4))) == [1, 2, 3]
    assert len(past.take()) == 1
    assert numbers(again(frames(3, 4))) == [1, 2, 3]
    assert past.left == []


def test_parts_that_change_within_a_stream_are_an_error():
    past = after(frames(0, 2), most=1)
    with pytest.raises(ValueError, match="`reset` it after a change"):
        past.take()  # one use is missing
    with pytest.raises(ValueError, match="see as many pixels at once"):
        past.extend(torch.zeros(2, 1, 4), 1)
    with pytest.raises(ValueError, match="must be those of its chunk before"):
        past.extend(frames(2, 3), 1)  # there was but one use


def test_what_is_computed_again_out_of_order_is_an_error_and_no_other_number():
    past = after(frames(0, 2), most=1)
    x = frames(2, 3).clone().requires_grad_()
    x.register_hook(lambda grad: past.extend(x, 1))
    with pytest.raises(ValueError, match="cannot be computed again in a backward pass"):
        x.sum().backward()
    in_order, found = past.from_here(lambda x: past.extend(x, 1)), []
    y = frames(2, 3).clone().requires_grad_()
    y.register_hook(lambda grad: found.append(in_order(y)))
    y.sum().backward()
    assert numbers(found[0]) == [1, 2]


def test_tools_that_cast_arguments_leave_it_as_it_is():
    past = after(frames(0, 2), most=1)
    given = _apply_to_tensors(lambda tensor: tensor.bfloat16(), Temporal(True, past=past))
    assert given.past is past
