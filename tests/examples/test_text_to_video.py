"""From words to videos, trained for a moment."""

import json
import re

import numpy as np
import pytest
import text_to_video
import torch
import words
from embedding import Embedding
from glyph_stages import FACTOR, train
from PIL import Image
from safetensors.torch import load_file

from make_a_video_pytorch.integrations.diffusers import load_cascade
from tests.examples.models import text_encoder

TEXTS = ["a red seven moves up", "A blue two!"]


@pytest.fixture(scope="module", autouse=True)
def _moment():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_to_video, "QUICK", 1e-3)
        for name in ("decoder", "interpolation", "larger", "largest"):
            planned = getattr(text_to_video, name)
            patch.setattr(text_to_video, name, quick(planned))
        yield


def quick(planned):
    """The same plan, of a stage that is sampled in one step, and batches of two."""

    def plan(*args):
        found = planned(*args)
        found.stage.steps = 1
        phases = tuple(
            phase._replace(parts=tuple(part._replace(count=2) for part in phase.parts))
            for phase in found.phases
        )
        return found._replace(phases=phases)

    return plan


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    out = tmp_path_factory.mktemp("videos")
    assert run(out, *TEXTS) == 0
    return out


def run(out, *arguments):
    return text_to_video.main(["--quick", "--out", str(out), *arguments])


def test_it_writes_a_video_of_each_text_and_what_each_stage_made(out):
    for name in ("a-red-seven-moves-up", "a-blue-two"):
        assert (out / f"{name}.mp4").stat().st_size > 0
        with Image.open(out / f"{name}.gif") as gif:
            assert (gif.size, gif.n_frames) == ((66, 66), 16)
            assert gif.info["duration"] == round(1000 / (4 * FACTOR), -1)
        with Image.open(out / f"{name}.png") as strip:
            rows = np.array(strip).reshape(4, 66, 16, 66, 3).swapaxes(1, 2)[:, :, 1:65, 1:65]
        assert not rows[0, 1::FACTOR].any()  # there are fewer frames
        for small, scale in ((rows[0, ::FACTOR], 4), (rows[1], 4), (rows[2], 2)):
            pixels = small[:, ::scale, ::scale]
            assert (pixels.repeat(scale, 1).repeat(scale, 2) == small).all()
        assert (rows[1, ::FACTOR] == rows[0, ::FACTOR]).all()  # they are kept


def test_what_is_trained_is_used_again(out, tmp_path, monkeypatch, capsys):
    gif = (out / "a-red-seven-moves-up.gif").read_bytes()
    (out / "a-red-seven-moves-up.gif").unlink()
    with monkeypatch.context() as patch:
        for module, name in ((text_to_video, "train"), (words, "learned")):
            patch.setattr(module, name, None)
        assert run(out, *TEXTS) == 0
    assert (out / "a-red-seven-moves-up.gif").read_bytes() == gif
    with pytest.raises(SystemExit):
        text_to_video.main(["--out", str(out)])
    assert "was trained with --quick: do as then" in capsys.readouterr().err
    assert run(out, "--seed", "1", *TEXTS) == 0  # of samples
    assert (out / "a-red-seven-moves-up.gif").read_bytes() != gif
    assert run(out, *TEXTS) == 0
    assert (out / "a-red-seven-moves-up.gif").read_bytes() == gif


def test_each_text_has_a_file_of_its_own():
    texts = ["A red seven!", "a red seven", "...", "x" * 300]
    names = ["a-red-seven", "a-red-seven-2", "video", "x" * 80]
    assert text_to_video.names_of(texts) == names


def test_the_folder_is_a_cascade_that_loads(out):
    embedding, made = Embedding(3, 50, 16), {}
    embedding.load_state_dict(load_file(out / "embedding.safetensors"))
    prior = text_to_video.prior_in(out, embedding, None, 1e-3)
    cascade = load_cascade(out / "cascade", prior)
    cascade(TEXTS, fps=4.0, after_stage=made.__setitem__)
    assert [v.shape[-1] for v in made.values()] == [16, 16, 32, 64]
    with Image.open(out / "a-red-seven-moves-up.png") as strip:
        first = np.array(strip)[1:65:4, 1:65:4]
    pixels = ((made["decoder"][0, :, 0].clamp(-1, 1) + 1) * 127.5).round().byte()
    assert np.abs(pixels.movedim(0, -1).numpy().astype(int) - first).max() <= 1


def test_a_run_that_was_stopped_has_the_stages_that_were_done(out, tmp_path, monkeypatch):
    def stopped(plan, *args, name, **options):
        if name == "larger":
            raise KeyboardInterrupt
        trained.append(name)
        return train(plan, *args, name=name, **options)

    trained = []
    monkeypatch.setattr(text_to_video, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, TEXTS[0])
    assert trained == ["decoder", "interpolation"]
    monkeypatch.setattr(text_to_video, "train", train)
    assert run(tmp_path, *TEXTS) == 0
    assert trained == ["decoder", "interpolation"]
    for name in ("decoder", "interpolation", "larger", "largest"):
        weights = [
            load_file(folder / "stages" / name / "diffusion_pytorch_model.safetensors")
            for folder in (out, tmp_path)
        ]
        for key, value in weights[0].items():
            assert torch.equal(value, weights[1][key]), (name, key)


def test_measures_are_printed_and_kept(out, monkeypatch, capsys):
    found = {"blend, PSNR in dB": 12.34567, "right digit, decoder": 0.5}
    monkeypatch.setattr(text_to_video, "measured", lambda *args, **options: found)
    assert run(out, "--measure") == 0
    printed = capsys.readouterr().out
    assert re.search(r"blend, PSNR in dB: 12.346\nright digit, decoder: 0.500\n", printed)
    assert json.loads((out / "measures.json").read_text()) == found


def test_words_that_are_not_known_are_said_before_a_training(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, "eine rote Sieben")
    assert stopped.value.code == 2
    assert "no word of 'eine rote Sieben' is known" in capsys.readouterr().err
    assert not list((tmp_path / "stages").iterdir())


def test_a_rate_that_was_not_learned_is_an_error(tmp_path, capsys):
    for fps in ("0", "3.9", "24"):
        with pytest.raises(SystemExit, match="2"):
            run(tmp_path / "out", "--fps", fps)
        assert "must be from 4 to 8, as in training" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_text_encoder_reads_in_the_place_of_learned_words(out, tmp_path):
    encoder = text_encoder(tmp_path / "encoder")
    before = {path.name for path in out.glob("prior*")}
    assert run(out, "--text-encoder", str(encoder), "a red ball") == 0
    (new,) = {path.name for path in out.glob("prior*")} - before
    assert new.startswith("prior-")
    assert (out / "a-red-ball.gif").exists()


def test_help_says_what_it_does_and_the_defaults(capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        text_to_video.main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert " ".join(text_to_video.__doc__.split()) in shown
    for default in ("['a red seven moves up']", "runs/text_to_video", "4.0", "0", "cpu"):
        assert f"(default: {default})" in shown
