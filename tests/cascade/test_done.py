import json

import pytest
import torch

from make_a_video_pytorch.cascade.done import Done, digest, write


def test_what_is_kept_is_found_by_another(tmp_path):
    video = torch.randn(2, 3, 9, 4, 4)
    done = Done(tmp_path / "a" / "b", {"seed": 3})
    assert done.tensors("decoder/00000") is None
    done.keep("decoder/00000", {"video": video[:, :, 2:4]})
    found = Done(tmp_path / "a" / "b", {"seed": 3}).tensors("decoder/00000")
    assert torch.equal(found["video"], video[:, :, 2:4])
    size = (tmp_path / "a" / "b" / "decoder" / "00000.pt").stat().st_size
    assert size < video.nbytes  # not the whole that it is a view of


def test_a_folder_of_another_run_is_refused(tmp_path):
    Done(tmp_path, {"seed": 3, "alpha": float("inf"), "size": (4, 4)})
    Done(tmp_path, {"seed": 3, "alpha": float("inf"), "size": [4, 4]})
    with pytest.raises(ValueError, match="is of another run: `seed` was 3 and is 4"):
        Done(tmp_path, {"seed": 4, "alpha": float("inf"), "size": [4, 4]})
    Done(tmp_path / "b", {"stage": {"steps": 3, "config": {"x": 1}}})
    with pytest.raises(ValueError, match=r"another run: `stage.config.x` was 1 and is 2"):
        Done(tmp_path / "b", {"stage": {"steps": 3, "config": {"x": 2}}})
    with pytest.raises(ValueError, match=r"is of another run: `size` was .* and is None"):
        Done(tmp_path, {"seed": 3, "alpha": float("inf")})


def test_a_file_that_was_not_finished_is_none(tmp_path):
    def half(part):
        part.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "prior.pt", half)
    done = Done(tmp_path, {})
    assert done.tensors("prior") is None
    done.keep("prior", {"cond": torch.ones(1)})
    assert done.tensors("prior") == {"cond": torch.ones(1)}
    assert json.loads((tmp_path / "run.json").read_text()) == {}


def test_a_digest_tells_tensors_apart():
    x = torch.arange(6.0)
    others = [x, x.view(2, 3), x.double(), x + 1e-6, x.bfloat16(), x.bool()]
    assert len({digest(other) for other in others}) == len(others)
    assert digest(x.view(2, 3).T) == digest(x.view(2, 3).T.contiguous())
    assert digest(torch.tensor(3.0)) == digest(torch.tensor(3.0))
    assert digest(8) == 8
    assert digest(None) is None
