import inspect
from collections.abc import Sequence

import pytest
import torch

from make_a_video_pytorch.ops.checks import at_least, typechecked


def test_at_least_names_the_first_argument_that_is_too_small():
    at_least(1, dim=1, heads=2)
    with pytest.raises(ValueError, match=r"^`heads` \(=0\) must be at least 1$"):
        at_least(1, dim=1, heads=0, dim_head=-1)


def test_typechecked_raises_a_type_error_that_names_the_argument():
    @typechecked
    def double(number: int) -> int:
        return number * 2

    assert double(3) == 6
    with pytest.raises(TypeError, match=r"^`number` \(='3'\) must be of type int$"):
        double("3")


def test_the_types_are_said_without_their_modules_and_other_messages_stay():
    @typechecked
    def first(values: Sequence[int], of: torch.Tensor | None = None) -> int:
        return "no int" if of is None else 1

    with pytest.raises(TypeError, match=r"^`values` \(=3\) must be of type Sequence\[int\]$"):
        first(3)
    with pytest.raises(TypeError, match=r"^`of` \(=\{1: 2\}\) must be of type Tensor \| None$"):
        first([3], {1: 2})
    with pytest.raises(TypeError, match="return 'no int' violates"):
        first([3])


def test_a_constructor_is_checked_at_the_first_call_and_at_later_ones():
    class Sized:
        @typechecked
        def __init__(self, size: int = 3) -> None:
            self.size = size

    for _ in range(2):
        with pytest.raises(TypeError, match=r"^`size` \(='3'\) must be of type int$"):
            Sized("3")
        assert Sized(size=4).size == 4
    assert list(inspect.signature(Sized).parameters) == ["size"]
