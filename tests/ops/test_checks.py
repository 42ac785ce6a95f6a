import pytest

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
    with pytest.raises(TypeError, match="number='3'"):
        double("3")
