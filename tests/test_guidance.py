import pytest
import torch

from make_a_video_pytorch import SpaceTimeUnet, guidance
from make_a_video_pytorch.guidance import NullConditions, drop_conditions, guide
from tests.zoo import CONDITIONS, EXTRA, UNET, randomize

CLIP = (2, 3, 4, 8, 12)
BOTH = ("cond", "context", "context_mask")


def conditions(*names):
    return {name: EXTRA[name]() for name in names}


@pytest.mark.parametrize("names", [("cond",), ("context",), BOTH], ids="-".join)
@pytest.mark.parametrize("learned", [False, True])
def test_guidance_is_between_and_beyond_the_two_predictions(names, learned):
    unet = randomize(SpaceTimeUnet(**UNET, **CONDITIONS), 0.2)
    null = randomize(NullConditions(cond_dim=4, context_dim=6)) if learned else None
    video, given = torch.randn(CLIP), conditions(*names)
    both = {"timestep": torch.tensor([3, 811]), "cond_images": EXTRA["cond_images"](), "fps": 8}
    conditioned = unet(video, **both, **given)
    nulls = {}
    if learned:
        if "cond" in names:
            nulls["cond"] = null.cond.expand(2, 4)
        if "context" in names:
            nulls["context"] = null.context.expand(2, 1, 6)
    unconditioned = unet(video, **both, **nulls)
    assert not torch.allclose(conditioned, unconditioned, atol=1e-3)
    for scale in (0, 1, 0.5, 7.5):
        out = guide(unet, scale, null=null)(video, **both, **given)
        expected = unconditioned + scale * (conditioned - unconditioned)
        torch.testing.assert_close(out, expected, rtol=1e-3, atol=1e-4)


def test_guidance_takes_positional_arguments_images_and_one_sample():
    unet = randomize(SpaceTimeUnet(**UNET, cond_dim=4), 0.2)
    video, cond = torch.randn(1, 3, 4, 8, 12), EXTRA["cond"]()[:1]
    for x in (video, video[:, :, 0]):
        for timestep in (5, torch.tensor(5), torch.tensor([5])):
            out = guide(unet, 1.0)(x, timestep, False, cond=cond)
            expected = unet(x, 5, False, cond=cond)
            torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


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


def test_null_conditions_learn():
    unet = randomize(SpaceTimeUnet(**UNET, **CONDITIONS), 0.2)
    null = NullConditions(cond_dim=4, context_dim=6)
    dropped = drop_conditions(1.0, **conditions(*BOTH), null=null)
    unet(torch.randn(CLIP), 5, **dropped).square().sum().backward()
    assert null.cond.grad.any()
    assert null.context.grad.any()


def test_samples_are_dropped_as_often_as_asked():
    cond = torch.ones(20_000, 1)
    generator = torch.Generator().manual_seed(0)
    kept = drop_conditions(0.3, cond=cond, generator=generator)["cond"]
    assert abs(kept.mean().item() - 0.7) < 0.02
    again = drop_conditions(0.3, cond=cond, generator=generator.manual_seed(0))["cond"]
    assert torch.equal(kept, again)
    assert drop_conditions(0.0, cond=cond)["cond"].all()
    assert not drop_conditions(1, cond=cond)["cond"].any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: drop_conditions(0.1), "`cond` or `context` must be given"),
        (
            lambda: drop_conditions(1.5, cond=torch.zeros(2, 4)),
            r"`dropped` \(=1.5\) must be between 0 and 1",
        ),
        (
            lambda: drop_conditions(torch.tensor([True]), cond=torch.zeros(2, 4)),
            r"`dropped` \(shape \(1,\), torch.bool\) must be a bool tensor \(b\) = \(2,\)",
        ),
        (
            lambda: drop_conditions(0.1, cond=torch.zeros(2, 4), null=NullConditions(cond_dim=3)),
            r"`null` \(`cond_dim`=3\) must have `cond_dim` = 4, as `cond` \(shape \(2, 4\)\) has",
        ),
        (
            lambda: drop_conditions(0.1, context=torch.zeros(2, 5, 4), null=NullConditions()),
            r"`null` \(`context_dim`=None\) must have `context_dim` = 4",
        ),
        (
            lambda: drop_conditions(
                0.1, context=torch.zeros(2, 5, 4), context_mask=torch.ones(2, 5)
            ),
            r"`context_mask` \(shape \(2, 5\), torch.float32\) must be a bool tensor",
        ),
        (
            lambda: drop_conditions(0.1, cond=torch.zeros(4)),
            r"`cond` \(shape \(4,\)\) must be \(b d\), with b = 4",
        ),
        (
            lambda: drop_conditions(0.1, cond=torch.zeros(2, 4), context=torch.zeros(3, 5, 4)),
            r"`context` \(shape \(3, 5, 4\)\) must be \(b n d\), with b = 2",
        ),
        (
            lambda: drop_conditions(0.1, cond=torch.zeros(2, 4), context_mask=torch.ones(2, 5)),
            "`context_mask` must be left out, since no `context` was given",
        ),
        (
            lambda: guide(print, 2.0)(torch.zeros(2, 1), cond=torch.zeros(1, 4)),
            r"`cond` \(shape \(1, 4\)\) must be \(b d\), with b = 2",
        ),
        (lambda: NullConditions(cond_dim=0), r"`cond_dim` \(=0\) must be at least 1"),
        (lambda: guide(print, 2.0)(torch.zeros(1)), "`cond` or `context` must be given"),
    ],
)
def test_wrong_calls_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_learned_null_stands_in_for_no_tokens():
    null = randomize(NullConditions(context_dim=6))
    kept = drop_conditions(1.0, context=torch.zeros(2, 0, 6), null=null)
    assert torch.equal(kept["context"], null.context.expand(2, 1, 6))
    assert kept["context_mask"].all()
    kept = drop_conditions(0.0, context=torch.zeros(2, 0, 6), null=null)
    assert not kept["context_mask"].any()


def test_what_is_public_is_what_users_import():
    defined = {
        name
        for name, value in vars(guidance).items()
        if getattr(value, "__module__", "") == guidance.__name__ and not name.startswith("_")
    }
    assert defined == set(guidance.__all__)
