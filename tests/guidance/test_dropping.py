"""Conditions of the samples that are dropped are null, those of the others as they were."""

import pytest
import torch

from make_a_video_pytorch.guidance import NullConditions, drop_conditions
from tests.zoo import EXTRA, randomize

BOTH = ("cond", "context", "context_mask")
TEXT = torch.randn(2, 5, 6)


def conditions(*names):
    return {name: EXTRA[name]() for name in names}


def test_dropped_samples_are_null_and_the_others_are_kept():
    given, dropped = conditions(*BOTH), torch.tensor([True, False])
    out = drop_conditions(dropped, **given)
    assert not out["cond"][0].any()
    assert not out["context_mask"][0].any()
    null = randomize(NullConditions(cond_dim=4, context_dim=6))
    with_null = drop_conditions(dropped, **given, null=null)
    assert torch.equal(with_null["cond"][0], null.cond)
    assert torch.equal(with_null["context"][0][with_null["context_mask"][0]], null.context[None])
    for result in (out, with_null):
        assert all(torch.equal(result[name][1], given[name][1]) for name in BOTH)


def test_samples_are_dropped_as_often_as_asked():
    cond = torch.ones(20_000, 1)
    generator = torch.Generator().manual_seed(0)
    kept = drop_conditions(0.3, cond=cond, generator=generator)["cond"]
    assert abs(kept.mean().item() - 0.7) < 0.02
    again = drop_conditions(0.3, cond=cond, generator=generator.manual_seed(0))["cond"]
    assert torch.equal(kept, again)
    assert drop_conditions(0.0, cond=cond)["cond"].all()
    assert not drop_conditions(1, cond=cond)["cond"].any()


@pytest.mark.parametrize("often", [None, 0.1])
def test_pictures_are_dropped_independently(often):
    given = {"cond": torch.ones(20_000, 1), "cond_images": torch.ones(20_000, 1, 1, 1)}
    kept = drop_conditions(0.3, **given, dropped_images=often)
    text, pictures = kept["cond"].flatten() == 0, kept["cond_images"].flatten() == 0
    expected = 0.3 if often is None else often
    assert abs(text.float().mean() - 0.3) < 0.02
    assert abs(pictures.float().mean() - expected) < 0.02
    assert abs((text & pictures).float().mean() - 0.3 * expected) < 0.02


def test_which_pictures_are_dropped_can_be_said():
    given = {"cond": torch.ones(4, 3), "cond_images": torch.ones(4, 1, 2, 5, 5)}
    text, pictures = torch.tensor([1, 1, 0, 0]).bool(), torch.tensor([1, 0, 1, 0]).bool()
    kept = drop_conditions(text, **given, dropped_images=pictures)
    assert kept["cond"].any(1).tolist() == (~text).tolist()
    assert kept["cond_images"].flatten(1).any(1).tolist() == (~pictures).tolist()
    kept = drop_conditions(text, **given)  # those of the samples that are dropped
    assert kept["cond_images"].flatten(1).any(1).tolist() == (~text).tolist()
    kept = drop_conditions(1.0, cond_images=given["cond_images"])  # and alone
    assert kept.keys() == {"cond_images"}
    assert not kept["cond_images"].any()


def test_of_which_samples_pictures_are_dropped_follows_from_those_of_the_rest():
    """Where those are said, and nothing is said of pictures, no other draw is made."""
    given = {"cond": torch.ones(50, 1), "cond_images": torch.ones(50, 1, 1, 1)}
    rows = torch.rand(50) < 0.5
    kept = drop_conditions(rows, **given)
    assert torch.equal(kept["cond_images"].flatten() == 0, rows)


def test_conditions_of_other_names_become_what_null_says():
    null = {"encoder_hidden_states": torch.randn(5, 6)}
    kept = drop_conditions(torch.tensor([False, True]), null=null, encoder_hidden_states=TEXT)
    assert kept.keys() == {"encoder_hidden_states"}
    assert torch.equal(kept["encoder_hidden_states"][0], TEXT[0])
    assert torch.equal(kept["encoder_hidden_states"][1], null["encoder_hidden_states"])


@pytest.mark.parametrize("null", [None, {"cond": torch.zeros(4)}, NullConditions(cond_dim=4)])
def test_a_name_without_a_null_is_no_argument(null):
    with pytest.raises(TypeError, match="`conds` is no argument of `drop_conditions`, unless"):
        drop_conditions(0.1, conds=torch.zeros(2, 4), null=null)


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.bool])
def test_masks_are_taken_as_tokenizers_give_them(dtype):
    mask = EXTRA["context_mask"]()
    kept = drop_conditions(0.0, context=TEXT, context_mask=mask.to(dtype))
    assert torch.equal(kept["context_mask"], mask)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: drop_conditions(0.1),
            "`cond`, `context`, `cond_images` or another condition must be given",
        ),
        (
            lambda: drop_conditions(0.1, cond=torch.tensor(1.0)),
            r"`cond` \(shape \(\)\) must be \(b d\)",
        ),
        (
            lambda: drop_conditions(1.5, cond=torch.zeros(2, 4)),
            r"`dropped` \(=1.5\) must be between 0 and 1",
        ),
        (
            lambda: drop_conditions(0, cond_images=torch.zeros(2, 1, 4, 4), dropped_images=-0.1),
            r"`dropped_images` \(=-0.1\) must be between 0 and 1",
        ),
        (
            lambda: drop_conditions(torch.tensor([True]), cond=torch.zeros(2, 4)),
            r"`dropped` \(shape \(1,\), torch.bool\) must be a bool tensor \(b\) = \(2,\)",
        ),
        (
            lambda: drop_conditions(
                0.1, context=torch.zeros(2, 5, 4), context_mask=torch.full((2, 5), 0.5)
            ),
            r"`context_mask` \(with 0.5\) must be of bools, or hold only 0",
        ),
    ],
)
def test_wrong_calls_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
