"""The arms of the comparison: what each learns from, is told, and may change; and its anchors."""

import evaluation
import numpy as np
import pytest
import torch
from clips import MovingDigits
from embedding import Embedding
from errors import DataError
from judges import judges_of
from torch import Generator

from benchmarks import arms, images_first, images_first_results, images_first_sampling
from benchmarks.arms import ABLATIONS, ALL, ARMS, Conditioning, Setting, parts_of, unet_of
from benchmarks.domains import Folders, halves
from benchmarks.images_first import Files, Job
from make_a_video_pytorch import spatial_parameters, temporal_parameters
from tests.examples.media import write_pictures
from tests.zoo import randomize

SETTING = Setting(
    size=12, frames=4, dim=4, steps_images=2, steps_joint=3, batch_images=6, batch_video=2,
    sampling_steps=1, looks=1, judge_steps=2,
)  # fmt: skip
BY_NAME = Conditioning(10)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Held-out clips."""
    monkeypatch.setattr(evaluation, "STEPS", 1)


def draw(source, count=40, frames=4):
    return source(count, frames, Generator().manual_seed(0))


def test_pictures_are_of_all_digits_and_clips_of_half_of_them_without_names():
    images, clips = parts_of(SETTING, BY_NAME, 0.5)
    assert (images.count, images.frames, clips.count, clips.frames) == (4, 1, 1, 4)  # 8 frames
    assert images.weight == clips.weight == 0.5
    assert draw(images.source, 200, 1).names.argmax(-1).unique().tolist() == list(range(10))
    assert draw(clips.source).names is None
    (alone,) = parts_of(SETTING, BY_NAME, 0.0, named_clips=True)
    assert (alone.count, alone.weight) == (2, 1.0)
    assert draw(alone.source, 200).names.argmax(-1).unique().tolist() == list(range(5))
    (images,) = parts_of(SETTING, BY_NAME, 1.0)
    assert (images.count, images.frames) == (6, 1)


def test_an_embedding_is_of_the_middle_frame_and_needs_no_names():
    embedding = Embedding(1, 10, dim=3)
    (clips,) = parts_of(SETTING, Conditioning(10, embedding), 0.0)
    batch = draw(clips.source)
    assert torch.equal(batch.names, embedding(batch.videos[:, :, 2]))


@pytest.mark.parametrize(
    "arm",
    ["clips-alone", "all", "frozen", "joint", "joint-only", "fewer-images", "long-images"],
)
def test_all_arms_have_the_operations_of_images_and_joint_batches(arm):
    images = unet_of(SETTING, BY_NAME).state_dict()
    _, record = arms.train_arm(SETTING, BY_NAME, ALL[arm], 0, 1e-3, images)
    total = arms.budget(SETTING, BY_NAME)
    steps = arms.train_images(SETTING, BY_NAME, 0, 1e-3, ALL[arm].images).record["steps"]
    assert steps == (4 if arm == "long-images" else 2)
    first = steps * arms.operations_of(SETTING, BY_NAME, 1.0, unet_of(SETTING, BY_NAME))
    a_step = record["operations"] / record["steps"]
    spent = record["operations"] + (first if ALL[arm].images_first else 0)
    assert abs(spent - total) <= a_step / 2
    assert record["curve"][-1]["operations"] == spent
    assert record["curve"][-1]["clips"] == record["clips"] > 0
    assert record["curve"][-1]["seen"] > 0 < record["curve"][-1]["unseen"]


@pytest.mark.parametrize("bias", [True, False])
def test_attention_is_counted(bias):
    """By the heads, with a bias and by the fused kernel that runs without one."""
    (part,) = parts_of(SETTING, BY_NAME, 0.0)

    def operations(**settings):
        unet = unet_of(SETTING, BY_NAME, {"attn_pos_bias": bias, **settings})
        return arms.Training(SETTING, BY_NAME, [part], unet, 0).operations

    one, four, seven = (
        operations(**settings)
        for settings in ({"attn_heads": 1}, {"attn_heads": 4}, {"attn_heads": 7})
    )
    # linear in the heads, but for the networks of position biases, so that heads alone count
    assert seven - four == pytest.approx(four - one, rel=1e-2)
    pixels, frames, dim_head, batch = 36, 4, 32, 2
    attentions = 3  # down, middle, up: over pixels of each frame, and over frames at each pixel
    products = attentions * 2 * (frames * pixels**2 + pixels * frames**2) * dim_head * 2 * batch
    assert four - one > 3 * 3 * products  # three heads; forward and twice that backward


@pytest.mark.parametrize(
    ("arm", "kept"), [("frozen", "spatial"), ("all", "none"), ("joint", "none"), ("still", "both")]
)
def test_an_arm_goes_on_from_the_image_model(arm, kept):
    images = unet_of(SETTING, BY_NAME)
    with torch.no_grad():
        for parameter in spatial_parameters(images):
            parameter.add_(torch.randn_like(parameter) * 0.1)
    unet, _ = arms.train_arm(SETTING, BY_NAME, ARMS[arm], 0, 1e-2, images.state_dict())
    same = [
        all(torch.equal(a, b) for a, b in zip(of(unet), of(images), strict=True))
        for of in (spatial_parameters, temporal_parameters)
    ]
    assert same == {
        "spatial": [True, False], "none": [False, False], "both": [True, True]
    }[kept]  # fmt: skip


def test_time_that_is_random_at_first_is_no_identity():
    unet = unet_of(SETTING, BY_NAME)
    video, timestep = torch.randn(2, 1, 4, 12, 12), torch.tensor(5)
    assert torch.equal(unet(video, timestep), unet(video, timestep, enable_time=False))
    torch.nn.init.normal_(unet.conv_out.spatial_conv.weight)
    spatial = [parameter.clone() for parameter in spatial_parameters(unet)]
    arms.randomize_time(unet)
    assert all(torch.equal(*pair) for pair in zip(spatial, spatial_parameters(unet), strict=True))
    moved, still = unet(video, timestep), unet(video, timestep, enable_time=False)
    assert (moved - still).abs().mean() > 0.1 * still.abs().mean()


@pytest.mark.parametrize("ablation", ["rotary", "no-positions", "compressed"])
def test_an_ablation_of_the_u_net_has_an_image_phase_of_its_own(ablation):
    job = Job(ablation, "name", 0, 1e-3)
    assert images_first.images_of(job).name == f"{ablation}-images-name-0-0.002"
    arm = ABLATIONS[ablation]
    images = arms.train_images(SETTING, BY_NAME, 0, 1e-3, arm.images).unet
    unet, record = arms.train_arm(SETTING, BY_NAME, arm, 0, 1e-3, images.state_dict())
    assert all(unet.config[name] == value for name, value in arm.images.settings.items())
    assert record["steps"] > 0


@pytest.mark.parametrize(("arm", "speed"), [("joint", 2), ("fast-time", 8)])
def test_time_learns_at_a_speed_of_its_own(arm, speed, monkeypatch):
    seen = []

    def fit(accelerator, unet, ema, optimizer, *args, **kwargs):
        groups = {
            id(p): group["speed"] for group in optimizer.param_groups for p in group["params"]
        }
        seen.extend(
            {groups[id(p)] for p in of(unet)} for of in (spatial_parameters, temporal_parameters)
        )
        return [0.0]

    monkeypatch.setattr(arms, "fit", fit)
    images = unet_of(SETTING, BY_NAME).state_dict()
    arms.train_arm(SETTING, BY_NAME, ALL[arm], 0, 1e-3, images)
    assert seen == [{1}, {speed}]


def test_embeddings_are_of_the_width_of_an_arm(tmp_path):
    files = Files(tmp_path)
    images_first.prepare(SETTING, files, ["joint", "narrow"])
    for arm, width in (("joint", 16), ("images", 16), ("narrow", 8), ("narrow-images", 8)):
        job = Job(arm, "embedding", 0, 1e-3)
        assert images_first.conditioning_of(SETTING, files, job).dim == width
    assert images_first.images_of(job._replace(arm="narrow")).arm == "narrow-images"


def test_what_is_kept_is_not_trained():
    images = unet_of(SETTING, BY_NAME).state_dict()
    for arm, kept in ((ABLATIONS["no-shift"], True), (ARMS["joint"], False)):
        unet, _ = arms.train_arm(SETTING, BY_NAME, arm, 0, 1e-2, images)
        shifts = [p for name, p in unet.named_parameters() if "token_shift" in name]
        assert shifts
        assert all((not p.any()) == kept for p in shifts)


def test_noise_is_shared_or_each_frames_own():
    def correlation(noise):
        a, b = noise[:, :, 0].flatten(), noise[:, :, 1].flatten()
        return float((a * b).mean())

    shape = (40, 1, 2, 12, 12)
    assert correlation(arms.Draws(0, 0).noise(shape)) == pytest.approx(0.8, abs=0.05)
    own = arms.OwnNoise(arms.Draws(0, 0)).noise(shape)
    assert correlation(own) == pytest.approx(0, abs=0.05)
    assert float(own.std()) == pytest.approx(1, abs=0.02)
    shared, independent = (
        arms.Training(
            SETTING, BY_NAME, parts_of(SETTING, BY_NAME, 0.0), unet_of(SETTING, BY_NAME), 0, of
        )
        for of in (True, False)
    )
    model = shared.unet
    expected = shared.loss(range(1))(model, arms.OwnNoise(arms.Draws(0, 0))).item()
    assert independent.loss(range(1))(model, arms.Draws(0, 0)).item() == expected
    assert shared.loss(range(1))(model, arms.Draws(0, 0)).item() != expected


def test_samples_follow_what_is_asked_for():
    asked = []
    conditioning = Conditioning(10)
    conditioning.asked = lambda names, _: asked.append(names) or arms.named(names)
    digits = torch.arange(53) % 10
    videos = arms.samples(SETTING, unet_of(SETTING, BY_NAME), conditioning, digits, 0)
    assert videos.shape == (53, 1, 4, 12, 12)
    assert torch.equal(torch.cat(asked), digits)


def test_anchors_are_what_they_are_called():
    found = images_first_results.anchors(SETTING, 30)
    real, independent, shuffled, still = found.values()
    assert all(torch.equal(clips.names, real.names) for clips in found.values())
    assert real.of(range(5)).videos.shape == (30, 1, 4, 12, 12)
    assert torch.equal(still.videos, real.videos[:, :, :1].expand_as(real.videos))
    assert not torch.equal(shuffled.videos, real.videos)
    assert torch.equal(
        shuffled.videos.flatten(3).sum((-1, 1)).sort().values,
        real.videos.flatten(3).sum((-1, 1)).sort().values,
    )
    for digit in range(10):  # the same frames in all, at the same moments
        there = real.names == digit
        for frame in range(4):
            ours, theirs = (
                {tuple(picture) for picture in clips.videos[there, 0, frame].flatten(1).tolist()}
                for clips in (independent, real)
            )
            assert ours == theirs


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    files = Files(tmp_path)
    with pytest.raises(TypeError):
        files.save("x", {}, {"not": object()})
    assert not files.has("x")


def test_what_is_done_in_another_setting_is_not_gone_on_with(tmp_path):
    files = Files(tmp_path)
    images_first.prepare(SETTING, files)
    kept = files.tensors("judges")
    images_first.prepare(SETTING, files)
    assert all(torch.equal(value, kept[name]) for name, value in files.tensors("judges").items())
    with pytest.raises(ValueError, match="has a comparison with `dim` 4, not 5"):
        images_first.prepare(SETTING._replace(dim=5), files)


def test_the_score_is_lower_for_what_is_nearer_to_real_clips():
    source = MovingDigits(12)
    judging = judges_of(source, 1, 4, 10, 40)
    ruler = images_first_results.Ruler(SETTING, judging)
    real, independent, *_ = images_first_results.anchors(SETTING, 60).values()
    assert ruler.score(real) < ruler.score(independent)


# Videos in folders


@pytest.fixture
def folders(tmp_path):
    """Videos of three names, each of a grey of its own, brighter in what is held out."""
    for place, name in enumerate(["a", "b", "c"]):
        (tmp_path / name).mkdir()
        greys = [60 * place + 20 * (frame >= 27) for frame in range(30)]
        pictures = [np.full((16, 16, 3), grey, dtype=np.uint8) for grey in greys]
        write_pictures(tmp_path / name / "clip.mp4", pictures)
    (tmp_path / "notes.txt").write_text("not a name")
    return tmp_path


def grey(videos):
    return ((videos + 1) * 127.5).mean((1, 2, 3, 4))


def test_folders_are_names(folders):
    found = Folders(folders, 12, 3)
    assert (found.names, found.channels) == (3, 3)
    assert halves(found) == {"seen": range(1), "unseen": range(1, 3)}
    batch = draw(found.clips([0, 2]), frames=3)
    names = batch.names.argmax(-1)
    assert names.unique().tolist() == [0, 2]
    assert torch.equal(batch.names, arms.named(names, 3))
    torch.testing.assert_close(grey(batch.videos), 60.0 * names, atol=6, rtol=0)
    held_out = draw(found.clips([1], held_out=True), frames=3)
    torch.testing.assert_close(grey(held_out.videos), torch.full((40,), 80.0), atol=6, rtol=0)


def test_an_arm_learns_from_folders(folders):
    setting = SETTING._replace(data=str(folders), frames=3, size=8, batch_video=4, steps_joint=1)
    conditioning = Conditioning(3)
    unet, record = arms.train_arm(setting, conditioning, ARMS["joint-only"], 0, 1e-3, {})
    assert unet.config["channels"] == 3
    assert record["curve"][-1]["unseen"] > 0
    videos = arms.samples(setting, unet, conditioning, torch.arange(3), 0)
    assert videos.shape == (3, 3, 3, 8, 8)
    real = images_first_results.anchors(setting, 5)["held-out real clips"]
    assert real.names[:5].unique().tolist() == [0]
    assert set(real.names[5:].tolist()) <= {1, 2}


def test_one_name_is_too_few_and_so_are_short_videos(folders):
    (folders / "d").mkdir()
    write_pictures(folders / "d" / "short.mp4", [np.zeros((16, 16, 3), dtype=np.uint8)] * 4)
    with pytest.raises(DataError, match=r"no video in .*d is long enough to hold some out"):
        Folders(folders, 12, 3)
    with pytest.raises(DataError, match="must have a folder of videos for each of two names"):
        Folders(folders / "a", 12, 3)


def test_by_frames_a_condition_leads_to_where_it_leads_images():
    unet = randomize(unet_of(SETTING, BY_NAME))
    clips, names = torch.randn(2, 1, 4, 12, 12), BY_NAME.asked(torch.tensor([3, 8]), Generator())
    led = images_first_sampling.led_by_frames(unet, 2.5)(clips, torch.tensor(300), cond=names)
    plain = unet(clips, 300, cond=names)
    for frame in range(4):
        told, untold = (unet(clips[:, :, frame], 300, cond=cond) for cond in (names, 0 * names))
        expected = plain[:, :, frame] + 1.5 * (told - untold)
        torch.testing.assert_close(led[:, :, frame], expected, atol=1e-5, rtol=1e-5)
    assert (led - plain).abs().mean() > 1e-3


@pytest.mark.parametrize("condition", ["name", "embedding"])
def test_ways_of_sampling_are_compared_on_what_was_trained(
    condition, tmp_path, monkeypatch, capsys
):
    files, job = Files(tmp_path), Job("joint", condition, 1, 1e-3)
    images_first.prepare(SETTING, files)
    for of in (images_first.images_of(job), job):
        images_first.run(SETTING, tmp_path, of, each=1)
    way = images_first_sampling.Way(SETTING.guidance)
    again = images_first_sampling.sampled(SETTING, files, [job, job], way, each=1)
    kept = images_first.sampled(files, [job, job])
    torch.testing.assert_close(again.videos, kept.videos, atol=1 / 255, rtol=0)  # of bytes
    assert torch.equal(again.names, kept.names)

    some = images_first_sampling.ways(condition)[-2:]
    monkeypatch.setattr(images_first_sampling, "ways", lambda condition: some)
    given = ["--out", str(tmp_path), "--condition", condition, "--lr", "1e-3", "--each", "2"]
    images_first_sampling.main([*given, "--seeds", "1"])
    written = (tmp_path / f"sampling-joint-{condition}.md").read_text()
    assert capsys.readouterr().out == written
    assert all(written.count(f"| {way.title} |") == 2 for way in some)  # of each half
    with pytest.raises(SystemExit, match="2"):
        images_first_sampling.main([*given, "--seeds", "1", "2"])
    assert f"has no joint-{condition}-2-0.001: run images_first.py" in capsys.readouterr().err


def test_arms_that_nobody_is_told_of_are_an_error(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        images_first.main(["--arms", "clips-alone", "--conditions", "embedding"])
    assert capsys.readouterr().err.endswith(
        "none of these arms is compared under these conditions\n"
    )
