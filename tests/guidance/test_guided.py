"""A guided model: the equations of the papers, for samples, frames and timesteps."""

import pytest
import torch
import torch.nn.functional as F

from make_a_video_pytorch import ControlBranch, SpaceTimeUnet, inflate, per_frame
from make_a_video_pytorch.guidance import NullConditions, guide
from tests.image_models import small_text_unet
from tests.zoo import CONDITIONS, EXTRA, ONE_STAGE, UNET, randomize

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


def trained_unet():
    return randomize(SpaceTimeUnet(**UNET, **CONDITIONS), 0.2).double()


def doubled(tensors):
    return {k: v.double() if v.is_floating_point() else v for k, v in tensors.items()}


def test_negative_conditions_stand_in_the_place_of_none():
    unet, video = trained_unet(), torch.randn(CLIP, dtype=torch.float64)
    given = doubled(conditions(*BOTH))
    negative = {"cond": torch.randn(4), "context": torch.randn(2, 8, 6)}
    lead = unet(video, 7, **given)
    away = unet(video, 7, cond=negative["cond"].expand(2, 4), context=negative["context"])
    out = guide(unet, 3.0, negative=negative)(video, 7, **given)
    torch.testing.assert_close(out, away + 3 * (lead - away))


@pytest.mark.parametrize(
    "scale", [torch.tensor([0.5, 4.0]), torch.tensor([1.0, 2.0, 3.0, 9.0]), torch.rand(2, 4)]
)
def test_each_sample_and_each_frame_has_a_scale_of_its_own(scale):
    unet, video = trained_unet(), torch.randn(CLIP, dtype=torch.float64)
    given = doubled(conditions("cond"))
    lead, away = unet(video, 7, **given), unet(video, 7)
    out = guide(unet, scale)(video, 7, **given)
    for sample in range(2):
        for frame in range(4):
            own = scale.expand(2, 4)[sample, frame] if scale.ndim == 2 else None
            own = scale[sample if len(scale) == 2 else frame] if own is None else own
            expected = torch.lerp(away[sample, :, frame], lead[sample, :, frame], own.double())
            torch.testing.assert_close(out[sample, :, frame], expected)


def test_pictures_have_a_scale_of_their_own():
    """Brooks et al. 2023, section 3.2."""
    unet, video = trained_unet(), torch.randn(CLIP, dtype=torch.float64)
    text = doubled(conditions(*BOTH))
    pictures = torch.randn(2, 2, 4, 8, 12, dtype=torch.float64)
    none, with_pictures = unet(video, 7), unet(video, 7, cond_images=pictures)
    with_all = unet(video, 7, cond_images=pictures, **text)
    expected = none + 1.5 * (with_pictures - none) + 6 * (with_all - with_pictures)
    guided = guide(unet, 6, image_scale=1.5)
    torch.testing.assert_close(guided(video, 7, cond_images=pictures, **text), expected)
    # per frame too, and 1 of both is the prediction with all conditions
    ones = guide(unet, 1, image_scale=1)(video, 7, cond_images=pictures, **text)
    assert torch.equal(ones, with_all)
    frames = torch.tensor([1.0, 1.0, 1.0, 2.0])
    out = guide(unet, 1, image_scale=frames)(video, 7, cond_images=pictures, **text)
    torch.testing.assert_close(out[:, :, :3], with_all[:, :, :3])
    expected = with_all + with_pictures - none
    torch.testing.assert_close(out[:, :, 3], expected[:, :, 3])


def test_pictures_can_be_what_leads_alone():
    unet, video = trained_unet(), torch.randn(CLIP, dtype=torch.float64)
    pictures = torch.randn(2, 2, 8, 12, dtype=torch.float64)
    away = torch.randn(2, 8, 12, dtype=torch.float64)
    lead = unet(video, 7, cond_images=pictures)
    none = unet(video, 7, cond_images=away.expand_as(pictures))
    out = guide(unet, 3, negative={"cond_images": away})(video, 7, cond_images=pictures)
    torch.testing.assert_close(out, none + 3 * (lead - none))


@pytest.mark.parametrize("rescale", [0, 0.7, 1])
def test_the_deviation_is_brought_back(rescale):
    """Lin et al. 2023, section 3.4."""
    unet, video = trained_unet(), torch.randn(CLIP, dtype=torch.float64)
    given = doubled(conditions(*BOTH))
    lead, none = unet(video, 7, **given), unet(video, 7)
    plain = none + 7.5 * (lead - none)
    out = guide(unet, 7.5, rescale=rescale)(video, 7, **given)
    for sample in range(2):
        back = plain[sample] * lead[sample].std() / plain[sample].std()
        expected = rescale * back + (1 - rescale) * plain[sample]
        torch.testing.assert_close(out[sample], expected)
    if rescale == 1:
        torch.testing.assert_close(out.flatten(1).std(1), lead.flatten(1).std(1))


def test_the_deviation_of_a_constant_is_left_alone():
    def model(x, *, cond):
        return torch.zeros_like(x) + cond[:, :1, None, None]

    out = guide(model, 2.0, rescale=1)(torch.zeros(2, 3, 4, 5), cond=torch.ones(2, 3))
    assert out.unique().tolist() == [2]


class Counting:
    """A model that knows of how many samples it was asked at once."""

    def __init__(self):
        self.sizes = []

    def __call__(self, x, timestep=None, *, cond, cond_images=None):
        self.sizes.append(len(x))
        return x + cond.view(len(x), -1, *[1] * (x.ndim - 2))


def test_outside_of_the_interval_nothing_is_computed():
    """Kynkäänniemi et al. 2024."""
    model = Counting()
    guided = guide(model, 3.0, interval=(200, 800))
    video, cond = torch.zeros(2, 3, 5, 4, 4), torch.ones(2, 3)
    for timestep, size, value in ((100, 2, 1), (200, 4, 3), (800, 4, 3), (801, 2, 1)):
        for given in (timestep, torch.tensor(timestep), torch.full((2,), timestep)):
            assert guided(video, given, cond=cond).unique().tolist() == [value]
            assert guided(video, timestep=given, cond=cond).unique().tolist() == [value]
            assert model.sizes[-2:] == [size, size]
    # each sample and each frame by its own timestep
    out = guided(video, torch.tensor([100, 500]), cond=cond)
    assert out.flatten(1).unique(dim=1).flatten().tolist() == [1, 3]
    levels = torch.tensor([0, 200, 500, 800, 900]).expand(2, 5)
    for given in (levels, per_frame(levels)):
        out = guided(video, given, cond=cond)
        assert out[1, 0, :, 0, 0].tolist() == [1, 3, 3, 3, 1]


def test_without_guidance_one_prediction_is_made():
    model = Counting()
    video, cond = torch.zeros(2, 3, 5, 4, 4), torch.ones(2, 3)
    pictures = torch.zeros(2, 1, 4, 4)
    guide(model, 1)(video, cond=cond)
    guide(model, 1.0, image_scale=1)(video, cond=cond, cond_images=pictures)
    guide(model, 0)(video, cond=cond)
    guide(model, 1.0, image_scale=2)(video, cond=cond, cond_images=pictures)
    assert model.sizes == [2, 2, 4, 6]


def test_an_inflated_model_of_other_names_is_led():
    pytest.importorskip("diffusers")
    video_model = randomize(inflate(small_text_unet().eval()), 0.05).double()
    video = torch.randn(2, 3, 4, 8, 8, dtype=torch.float64)
    text = torch.randn(2, 7, 5, dtype=torch.float64)
    empty = torch.randn(7, 5)
    levels = per_frame(torch.tensor([[3, 5, 9, 700], [1, 1, 8, 0]]))
    lead = video_model(video, levels, encoder_hidden_states=text).sample
    away = empty.double().expand(2, 7, 5)
    away = video_model(video, levels, encoder_hidden_states=away).sample
    expected = away + 4 * (lead - away)
    for stands in ("null", "negative"):
        guided = guide(video_model, 4, **{stands: {"encoder_hidden_states": empty}})
        out = guided(video, levels, encoder_hidden_states=text)
        assert type(out) is type(video_model(video, levels, encoder_hidden_states=text))
        torch.testing.assert_close(out.sample, expected)
        (out,) = guided(video, levels, encoder_hidden_states=text, return_dict=False)
        torch.testing.assert_close(out, expected)
    with pytest.raises(ValueError, match="needs `encoder_hidden_states` to be given by name"):
        guided(video, levels, text)
    with pytest.raises(ValueError, match="one of `cond`, `context`, `encoder_hidden_states` must"):
        guide(video_model, 4, null={"encoder_hidden_states": empty})(video, levels, text)


def test_what_serves_both_predictions_may_be_packed():
    """A ControlNet's features are a list, diffusers' further conditions a dict."""

    def model(x, *, cond, features, added):
        assert {len(t) for t in (*features, added["a"], x, cond)} == {4}
        return x + cond + sum(features) + added["a"] * added["b"]

    x, cond = torch.randn(2, 3), torch.randn(2, 3)
    features = [torch.randn(2, 3), torch.randn(2, 3)]
    added = {"a": torch.randn(2, 1), "b": 3.0}
    out = guide(model, 2.0)(x, cond=cond, features=features, added=added)
    torch.testing.assert_close(out, x + 2 * cond + sum(features) + added["a"] * 3)


def test_features_of_a_control_branch_serve_both():
    unet = trained_unet()
    branch = randomize(ControlBranch.from_unet(unet, cond_channels=1), 0.2).double()
    video = torch.randn(CLIP, dtype=torch.float64)
    outlines, given = torch.rand(2, 1, 8, 12), doubled(conditions("cond"))
    features = branch(video, 7, cond_images=outlines)
    lead = unet(video, 7, features=features, **given)
    none = unet(video, 7, features=features)
    out = guide(unet, 3.0)(video, 7, features=features, **given)
    torch.testing.assert_close(out, none + 3 * (lead - none))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_it_is_computed_in_fp32(dtype):
    def model(x, *, cond):
        return x + cond[:, :, None, None]

    x, cond = torch.randn(2, 3, 4, 5).to(dtype), torch.randn(2, 3).to(dtype)
    out = guide(model, 7.3)(x, cond=cond)
    assert out.dtype == dtype
    lead, none = (x + cond[:, :, None, None]).float(), x.float()
    torch.testing.assert_close(out, torch.lerp(none, lead, 7.3).to(dtype), rtol=0, atol=0)


@pytest.mark.parametrize("interval", [None, (100, 900)])
def test_it_compiles_whole(dynamo, interval):
    unet = randomize(SpaceTimeUnet(**ONE_STAGE, cond_dim=4, context_dim=6), 0.2)
    guided = guide(unet, torch.tensor(3.0), rescale=0.5, interval=interval)
    compiled = torch.compile(guided, fullgraph=True, backend="eager")
    video, given = torch.randn(CLIP), conditions("cond", "context")
    mask = EXTRA["context_mask"]().long()
    for timestep in (torch.tensor([5, 500]), torch.tensor([5, 950])):
        expected = guided(video, timestep, **given, context_mask=mask)
        out = compiled(video, timestep, **given, context_mask=mask)
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


def test_gradients_go_through_it():
    unet = trained_unet()
    given = doubled(conditions("cond"))
    given["cond"].requires_grad_()
    video = torch.randn(CLIP, dtype=torch.float64)
    guide(unet, 3.0, rescale=0.5)(video, 7, **given).square().sum().backward()
    assert F.normalize(given["cond"].grad).isfinite().all()
    assert given["cond"].grad.any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: guide(print, 2.0)(torch.zeros(2, 1), cond=torch.zeros(1, 4)),
            r"`cond` \(shape \(1, 4\)\) must be \(b d\), with b = 2",
        ),
        (
            lambda: guide(print, 2.0)(torch.zeros(1), torch.zeros(1)),
            "one of `cond`, `context` must be given by name, to guide by",
        ),
        (
            lambda: guide(print, 2.0, image_scale=2)(torch.zeros(2, 1), cond=torch.zeros(2, 4)),
            "`cond_images` must be given by name, for an `image_scale`",
        ),
        (
            lambda: guide(print, 2.0, image_scale=2)(torch.zeros(1), cond_images=torch.zeros(1)),
            "one of `cond`, `context` must be given by name, to guide by",
        ),
        (
            lambda: guide(print, 2.0, interval=(0, 9))(torch.zeros(2, 1), cond=torch.zeros(2, 4)),
            r"`timestep` \(=None\) must be a number or a tensor, given first after `x`",
        ),
        (lambda: guide(print, 2.0, rescale=1.5), r"`rescale` \(=1.5\) must be between 0 and 1"),
        (
            lambda: guide(print, 2.0, interval=(900, 100)),
            r"`interval` \(=\(900, 100\)\) must be the lowest timestep and the highest",
        ),
        (lambda: guide(print, 2.0, interval=[9]), r"`interval` \(=\[9\]\) must be the lowest"),
    ],
)
def test_wrong_calls_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_what_is_not_guided_is_not_rescaled():
    unet, video = trained_unet(), torch.randn(CLIP, dtype=torch.float64)
    given = doubled(conditions("cond"))
    levels = torch.tensor([[100, 500, 500, 900]]).expand(2, 4)
    guided = guide(unet, 7.5, rescale=0.7, interval=(200, 800))
    out, lead = guided(video, levels, **given), unet(video, levels, **given)
    torch.testing.assert_close(out[:, :, [0, 3]], lead[:, :, [0, 3]])
    # of the guided frames the deviation is that of the conditioned ones
    whole = guide(unet, 7.5, rescale=1, interval=(200, 800))(video, levels, **given)
    ours, theirs = (t[:, :, 1:3].flatten(1).std(1) for t in (whole, lead))
    torch.testing.assert_close(ours, theirs)
    frames = guide(unet, torch.tensor([1.0, 3, 3, 1]), rescale=1)(video, 7, **given)
    torch.testing.assert_close(frames[:, :, [0, 3]], unet(video, 7, **given)[:, :, [0, 3]])


def test_padding_has_no_say_in_the_deviation():
    unet, video = trained_unet(), torch.randn(CLIP, dtype=torch.float64)
    given = doubled(conditions("cond"))
    mask = torch.tensor([[True, True, False, False], [True] * 4])
    out = guide(unet, 7.5, rescale=0.7)(video, 7, frame_mask=mask, **given)
    short = guide(unet, 7.5, rescale=0.7)(video[:1, :, :2], 7, cond=given["cond"][:1])
    torch.testing.assert_close(out[:1, :, :2], short)
    assert not out[0, :, 2:].any()


def test_an_interval_holds_for_pictures_too():
    unet, video = trained_unet(), torch.randn(CLIP, dtype=torch.float64)
    given = doubled(conditions("cond")) | {"cond_images": torch.randn(2, 2, 8, 12).double()}
    guided = guide(unet, 3, image_scale=2, interval=(200, 800))
    timesteps = torch.tensor([100, 500])
    out, lead = guided(video, timesteps, **given), unet(video, timesteps, **given)
    torch.testing.assert_close(out[0], lead[0])
    assert not torch.allclose(out[1], lead[1], atol=1e-2)


def test_numbers_may_change_in_a_graph(dynamo):
    def model(x, timestep, *, cond):
        return x * timestep + cond[:, :, None, None]

    guided = guide(model, 3.0)
    compiled = torch.compile(guided, fullgraph=True, backend="eager")
    x, cond = torch.randn(2, 3, 4, 5), torch.randn(2, 3)
    for timestep in (5, 6, 7, 5.0, 6.5):
        torch.testing.assert_close(compiled(x, timestep, cond=cond), guided(x, timestep, cond=cond))


def test_what_is_repeated_already_is_refused():
    unet, video, cond = trained_unet(), torch.randn(1, 3, 4, 8, 12).double(), torch.randn(1, 4)
    with pytest.raises(
        ValueError, match=r"`args\[1\]` \(shape \(2,\)\) must be \(b ...\), with b = 1"
    ):
        guide(unet, 3.0)(video, torch.tensor([5, 900]), cond=cond)
    with pytest.raises(ValueError, match=r"`cond_images` \(shape \(2, 2, 8, 12\)\) must be"):
        guide(unet, 3.0)(video, 5, cond=cond, cond_images=torch.zeros(2, 2, 8, 12))


def test_a_result_without_a_batch_is_refused():
    x, cond = torch.zeros(2, 3), torch.ones(2, 3)
    for result in (torch.tensor(1.0), {"loss": 5}, None):
        with pytest.raises(ValueError, match=r"`unet` \(gave a \w+\) must give tensors"):
            guide(lambda x, *, cond, result=result: result, 3.0)(x, cond=cond)
    both = guide(lambda x, *, cond: (cond, cond > 0, len(cond)), 3.0)(x, cond=cond)
    assert both[0].unique().tolist() == [3]
    assert both[1].shape == (2, 3)
    assert both[1].all()
    with pytest.raises(TypeError, match=r"`x` \(a list\) must be a tensor"):
        guide(lambda x, *, cond: x, 3.0)([1.0], cond=cond)


def test_conditions_that_are_none_are_passed_on():
    def model(x, *, cond, context):
        assert context is None
        return x + cond

    x, cond = torch.zeros(2, 3), torch.ones(2, 3)
    assert guide(model, 3.0)(x, cond=cond, context=None).unique().tolist() == [3]


def test_what_is_negative_needs_nothing_learned():
    null, negative = NullConditions(cond_dim=4), {"context": torch.randn(2, 6)}
    unet, video = trained_unet(), torch.randn(CLIP, dtype=torch.float64)
    given = doubled(conditions("cond", "context"))
    out = guide(unet, 3.0, null=null, negative=negative)(video, 7, **given)
    away = unet(video, 7, context=negative["context"].expand(2, 2, 6).double())
    lead = unet(video, 7, **given)
    torch.testing.assert_close(out, away + 3 * (lead - away))


@pytest.mark.parametrize("scale", ["7", None, {}])
def test_a_scale_is_of_numbers(scale):
    with pytest.raises(TypeError, match="`scale` "):
        guide(print, scale)
