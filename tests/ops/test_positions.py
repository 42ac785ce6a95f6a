import math

import pytest
import torch

from make_a_video_pytorch.ops.positions import (
    ContinuousPositionBias,
    RotaryPositions,
    SinusoidalPosEmb,
    positions,
    rotate,
)


@pytest.mark.parametrize("dim", [2, 3, 4, 9])
def test_sinusoids_equal_their_formula(dim):
    out = SinusoidalPosEmb(dim, theta=100)(torch.tensor([0.0, 2.5, 40.0], dtype=torch.float64))
    half = dim // 2
    for row, x in zip(out, (0.0, 2.5, 40.0), strict=True):
        angles = [x * 100 ** (-k / max(half - 1, 1)) for k in range(half)]
        expected = [*map(math.sin, angles), *map(math.cos, angles)] + [0.0] * (dim % 2)
        torch.testing.assert_close(row, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.int64, torch.float16, torch.bfloat16, torch.uint8])
def test_sinusoids_are_computed_in_fp32(dtype):
    steps = torch.tensor([0, 1, 250], dtype=dtype)
    out = SinusoidalPosEmb(6)(steps)
    assert out.dtype == torch.float32
    assert torch.equal(out, SinusoidalPosEmb(6)(steps.float()))


@pytest.mark.parametrize("sizes", [(5,), (1,), (3, 4), (4, 1), (2, 3, 4)])
def test_the_bias_is_the_network_of_the_offset(sizes):
    bias = ContinuousPositionBias(dim=7, heads=3, num_dims=len(sizes), layers=3).double()
    positions = torch.cartesian_prod(*(torch.arange(s).double() for s in sizes)).view(
        -1, len(sizes)
    )
    expected = torch.empty(3, len(positions), len(positions)).double()
    for i, query in enumerate(positions):
        for j, key in enumerate(positions):
            value = query - key
            for layer in bias.net:
                value = layer(value)
            expected[:, i, j] = value
    torch.testing.assert_close(bias(*sizes, dtype=torch.float64), expected)


def test_the_bias_of_a_part_is_the_part_of_the_bias():
    bias = ContinuousPositionBias(dim=6, heads=2)
    torch.testing.assert_close(bias(33)[:, :9, :9], bias(9))


def test_rotary_scores_depend_on_offsets_only():
    rotary = RotaryPositions(8)
    q, k = torch.randn(8).double(), torch.randn(8).double()

    def score(i, j):
        angles = rotary(40)
        at = [rotate(x.view(1, 1, 1, 8), angles[[p]]).flatten() for x, p in ((q, i), (k, j))]
        return at[0] @ at[1]

    torch.testing.assert_close(score(3, 7), score(30, 34), rtol=1e-5, atol=1e-6)
    assert (score(3, 7) - score(3, 8)).abs() > 1e-3
    assert (score(3, 7) - score(7, 3)).abs() > 1e-3
    torch.testing.assert_close(score(5, 5), q @ k, rtol=1e-5, atol=1e-6)


def test_axial_rotation_turns_half_of_the_pairs_by_each_axis():
    angles = RotaryPositions(12, num_dims=2)(3, 5).view(3, 5, 2, 3)
    rows, columns = angles.unbind(2)
    frequencies = 10_000 ** -(torch.arange(3) / 3)
    torch.testing.assert_close(rows, torch.arange(3)[:, None, None] * frequencies.expand(3, 5, 3))
    torch.testing.assert_close(columns, torch.arange(5)[:, None] * frequencies.expand(3, 5, 3))


def test_rotation_equals_multiplication_by_a_phase_and_keeps_norms():
    x, angles = torch.randn(2, 5, 3, 8).double(), torch.randn(5, 4).double()
    out = rotate(x, angles)
    phase = torch.polar(torch.ones_like(angles), angles)[:, None]
    expected = torch.complex(*x.chunk(2, -1)) * phase
    torch.testing.assert_close(out, torch.cat((expected.real, expected.imag), -1))
    torch.testing.assert_close(out.norm(dim=-1), x.norm(dim=-1))


def test_rotation_is_computed_in_fp32_and_returns_the_dtype():
    x, angles = torch.randn(1, 9, 2, 4), RotaryPositions(4)(9) * 100
    out = rotate(x.bfloat16(), angles)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, rotate(x.bfloat16().float(), angles).bfloat16())


def test_rotary_positions_say_what_they_are():
    expected = "RotaryPositions(8, num_dims=2, theta=10000)"
    assert repr(RotaryPositions(8, num_dims=2)) == expected


def test_the_rows_of_the_last_positions_are_those_of_all():
    bias, rotary = ContinuousPositionBias(dim=6, heads=2), RotaryPositions(8)
    torch.testing.assert_close(bias(9, last=4), bias(9)[:, -4:])
    (given, angles), like = positions(bias, rotary, (9,), like=torch.zeros(1), last=4), bias(9)
    torch.testing.assert_close(given, like[:, -4:])
    torch.testing.assert_close(angles, rotary(9) - rotary(9)[-4])


def test_the_last_positions_of_many_are_exact():
    _, angles = positions(None, RotaryPositions(8), (100_003,), like=torch.zeros(1), last=3)
    assert torch.equal(angles[-3:], RotaryPositions(8)(3))
    wide = RotaryPositions(8)(40, dtype=torch.float64)
    exact = torch.arange(40).double()[:, None] * 10_000 ** -(torch.arange(4).double() / 4)
    torch.testing.assert_close(wide, exact, rtol=1e-15, atol=0)
    assert RotaryPositions(8)(40, dtype=torch.bfloat16).dtype == torch.float32
