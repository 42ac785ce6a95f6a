"""What stands in the place of a condition, of the condition's shape."""

import pytest
import torch

from make_a_video_pytorch import SpaceTimeUnet
from make_a_video_pytorch.guidance import NullConditions, drop_conditions
from make_a_video_pytorch.guidance.nulls import paired
from tests.zoo import CONDITIONS, EXTRA, UNET, randomize

BOTH = ("cond", "context", "context_mask")
CONTEXT = torch.randn(2, 5, 6)


def conditions(*names):
    return {name: EXTRA[name]() for name in names}


def test_null_conditions_learn():
    unet = randomize(SpaceTimeUnet(**UNET, **CONDITIONS), 0.2)
    null = NullConditions(cond_dim=4, context_dim=6)
    dropped = drop_conditions(1.0, **conditions(*BOTH), null=null)
    unet(torch.randn(2, 3, 4, 8, 12), 5, **dropped).square().sum().backward()
    assert null.cond.grad.any()
    assert null.context.grad.any()


def test_without_a_stand_in_it_is_zeros_and_no_token():
    pairs = paired({**conditions("cond", "context"), "cond_images": torch.ones(2, 1, 4, 4)}, None)
    assert not pairs["cond"][1].any()
    assert not pairs["cond_images"][1].any()
    given, null = pairs["context_mask"]
    assert given.all()
    assert not null.any()
    assert paired({"cond": None}, None) == {}


@pytest.mark.parametrize("shape", [(2, 4), (1, 4), (4,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_stand_in_is_of_each_sample_or_of_all(shape, dtype):
    null = torch.randn(shape, dtype=dtype)
    value, stands = paired({"cond": torch.randn(2, 4)}, {"cond": null, "unused": null})["cond"]
    assert stands.dtype == value.dtype
    assert torch.equal(stands, null.float().expand(2, 4))


@pytest.mark.parametrize("tokens", [0, 1, 5, 8])
@pytest.mark.parametrize("given_mask", [None, torch.arange(5) < torch.tensor([[3], [5]])])
@pytest.mark.parametrize("own_mask", [False, True])
def test_a_context_and_its_stand_in_get_as_many_tokens(tokens, given_mask, own_mask):
    null = {"context": torch.randn(2, tokens, 6)}
    if own_mask:
        null["context_mask"] = torch.randint(2, (2, tokens))
    pairs = paired({"context": CONTEXT, "context_mask": given_mask}, null)
    contexts = pairs["context"]
    if "context_mask" not in pairs:
        assert tokens == 5
        assert not own_mask
        assert given_mask is None
        assert torch.equal(contexts[0], CONTEXT)
        assert torch.equal(contexts[1], null["context"])
        return
    masks = pairs["context_mask"]
    assert {c.shape for c in contexts} == {(2, max(tokens, 5), 6)}
    assert {m.shape for m in masks} == {(2, max(tokens, 5))}
    expected = torch.ones(2, 5, dtype=torch.bool) if given_mask is None else given_mask
    assert torch.equal(contexts[0][masks[0]], CONTEXT[expected])
    theirs = null["context_mask"].bool() if own_mask else torch.ones(2, tokens, dtype=torch.bool)
    assert torch.equal(contexts[1][masks[1]], null["context"][theirs])


def test_what_is_negative_is_in_the_place_of_what_is_learned():
    null = randomize(NullConditions(cond_dim=4, context_dim=6))
    negative = {"context": torch.randn(5, 6)}
    pairs = paired(conditions("cond", "context"), null, negative)
    assert torch.equal(pairs["cond"][1], null.cond.expand(2, 4))
    assert torch.equal(pairs["context"][1], negative["context"].expand(2, 5, 6))
    # a mask is of the tokens that it came with
    null = {"context": torch.randn(3, 6), "context_mask": torch.tensor([1, 0, 0])}
    pairs = paired(conditions("context"), null, negative)
    assert "context_mask" not in pairs


def test_a_learned_null_stands_in_for_no_tokens():
    null = randomize(NullConditions(context_dim=6))
    kept = drop_conditions(1.0, context=torch.zeros(2, 0, 6), null=null)
    assert torch.equal(kept["context"], null.context.expand(2, 1, 6))
    assert kept["context_mask"].all()
    kept = drop_conditions(0.0, context=torch.zeros(2, 0, 6), null=null)
    assert not kept["context_mask"].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ({"cond": torch.zeros(2, 4)}, NullConditions(cond_dim=3)),
            r"`null` \(`cond_dim`=3\) must have `cond_dim` = 4, as `cond` \(shape \(2, 4\)\) has",
        ),
        (
            ({"context": torch.zeros(2, 5, 4)}, NullConditions()),
            r"`null` \(`context_dim`=None\) must have `context_dim` = 4",
        ),
        (
            ({"context": torch.zeros(2, 5, 4), "context_mask": torch.ones(2, 4)}, None),
            r"`context_mask` \(shape \(2, 4\), torch.bool\) must be a bool tensor \(b, n\) = ",
        ),
        (
            ({"context": torch.zeros(2, 2, 4), "context_mask": -torch.eye(2) * 1e4}, None),
            r"`context_mask` \(with -10000.0\) must be of bools, or hold only 0",
        ),
        (({"cond": torch.zeros(4)}, None), r"`cond` \(shape \(4,\)\) must be \(b d\), with b = 4"),
        (
            ({"cond": torch.zeros(2, 4), "context": torch.zeros(3, 5, 4)}, None),
            r"`context` \(shape \(3, 5, 4\)\) must be \(b n d\), with b = 2",
        ),
        (
            ({"cond": torch.zeros(2, 4), "cond_images": torch.zeros(3, 1, 4, 4)}, None),
            r"`cond_images` \(shape \(3, 1, 4, 4\)\) must be \(b ...\), with b = 2",
        ),
        (
            ({"cond": torch.zeros(2, 4), "context_mask": torch.ones(2, 5)}, None),
            "`context_mask` must be left out, since no `context` was given",
        ),
        (
            ({"cond": torch.zeros(2, 4)}, {"cond": torch.zeros(3, 4)}),
            r"`null\['cond'\]` \(shape \(3, 4\)\) must be \(b ...\), \(1 ...\) or \(...\), with "
            r"\(b ...\) = \(2, 4\)",
        ),
        (
            ({"context": CONTEXT}, None, {"context": torch.zeros(7)}),
            r"`negative\['context'\]` \(shape \(7,\)\) must be \(b n d\), \(1 n d\) or \(n d\), "
            "with b = 2 and d = 6",
        ),
        (
            ({"context": CONTEXT}, None, {"context": torch.zeros(7, 5)}),
            r"`negative\['context'\]` \(shape \(7, 5\)\) must be .*= \(2, 7, 6\)",
        ),
        (
            (
                {"context": CONTEXT},
                None,
                {"context": torch.zeros(7, 6), "context_mask": torch.ones(2, 6)},
            ),
            r"`negative\['context_mask'\]` \(shape \(2, 6\)\) must be .*= \(2, 7\)",
        ),
        (
            (
                {"context": CONTEXT},
                {"context": torch.zeros(2, 6), "context_mask": torch.tensor([1, 2])},
            ),
            r"`null\['context_mask'\]` \(with 2\) must be of bools, or hold only 0",
        ),
        (
            ({"context": CONTEXT}, {"context_mask": torch.ones(2, 5)}),
            r"`null` \(with `context_mask`\) must have a `context` to it",
        ),
        (
            ({"cond": torch.zeros(2, 4)}, None, {"context": torch.zeros(7, 6)}),
            r"`negative` \(with `context`\) needs `context` to be given by name",
        ),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        paired(*arguments)


def test_what_is_no_tensor_is_refused():
    with pytest.raises(TypeError, match=r"`cond` \(a list\) must be a tensor"):
        paired({"cond": [1.0]}, None)
    with pytest.raises(TypeError, match=r"`negative\['cond'\]` \(a str\) must be a tensor"):
        paired({"cond": torch.zeros(2, 4)}, None, {"cond": "ugly"})
    with pytest.raises(ValueError, match=r"`cond_dim` \(=0\) must be at least 1"):
        NullConditions(cond_dim=0)
