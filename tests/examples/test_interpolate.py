"""Frames are filled in, and compared with a blend."""

import re

import interpolate
import numpy as np
import pytest
import torch
from PIL import Image

SMALL = "--steps 3 --batch 2 --clips 3 --sampling-steps 2"


def test_frames_are_filled_in_and_compared(trained, tmp_path, capsys):
    out = tmp_path / "filled"
    arguments = ["--unet", str(trained), "--out", str(out), *SMALL.split()]
    assert interpolate.main(arguments) == 0
    printed = capsys.readouterr().out
    assert re.search(r"U-Net: -?[\d.]+ dB\nblend: [\d.]+ dB", printed), printed
    with Image.open(out / "samples.png") as sheet:
        pictures = np.array(sheet).reshape(9, 66, 8, 66).swapaxes(1, 2)
    for clip in range(0, 9, 3):
        for row in (clip + 1, clip + 2):  # the kept frames are those of the clip
            assert (pictures[row, [0, 7]] == pictures[clip, [0, 7]]).all()


def test_the_blend_is_linear_between_the_nearest_kept_frames():
    clip = torch.tensor([5.0, 1, 1, 1, 9, 2, 2]).view(1, 1, 7, 1, 1)
    kept = torch.tensor([False, True, False, False, True, False, True])
    expected = torch.tensor([1.0, 1, 1 + 8 / 3, 1 + 16 / 3, 9, 5.5, 2])
    torch.testing.assert_close(interpolate.blend(clip, kept).flatten(), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--keep", "0", "8"], r"--keep \[0, 8\] must be among the 8 frames of a clip"),
        (["--keep", *map(str, range(8))], "leaves no frame to fill in"),
        (["--unet", "nowhere"], "no checkpoint in nowhere"),
    ],
)
def test_interpolation_refuses_bad_input_in_one_line(trained, arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        interpolate.main(["--unet", str(trained), *SMALL.split(), *arguments])
    assert stopped.value.code == 2
    assert re.search(f"error: .*{message}", capsys.readouterr().err)
