import pytest
import torch

from tests.integrations.small import missing

pytest.importorskip("dalle2_pytorch", reason=missing("dalle2-pytorch"))
pytest.importorskip("diffusers", reason=missing("diffusers"))

from dalle2_pytorch import DiffusionPrior, DiffusionPriorNetwork
from dalle2_pytorch.dalle2_pytorch import BaseClipAdapter, EmbeddedText
from diffusers import DDIMScheduler

from make_a_video_pytorch.cascade import Cascade, Decoder
from make_a_video_pytorch.integrations.dalle2 import text_prior


class Clip(BaseClipAdapter):
    """One whose embeddings are as different as its texts."""

    dim_latent, image_channels, image_size, max_text_len = 6, 3, 8, 256

    def embed_text(self, text):
        return EmbeddedText(((text.sum(1, keepdim=True) + torch.arange(6)) * 1.7).cos(), None)


def prior(**options) -> DiffusionPrior:
    torch.manual_seed(0)
    net = DiffusionPriorNetwork(dim=6, depth=1, dim_head=4, heads=1, num_timesteps=8)
    given = (
        dict(clip=Clip(torch.nn.Identity()), timesteps=8, condition_on_text_encodings=False)
        | options
    )
    found = DiffusionPrior(net=net, **given | options)
    for parameter in found.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter)  # so that a text makes a difference
    return found


def showing(x, timestep, cond):
    """A model whose pictures are what it is told."""
    return cond[:, :3, None, None, None].expand_as(x)


def test_texts_become_videos():
    scheduler = DDIMScheduler(clip_sample=False, prediction_type="sample")
    decoder = Decoder(showing, scheduler, size=(4, 6), frames=5, steps=2)
    cascade = Cascade({"decoder": decoder}, text_prior(prior(), samples=3))
    videos = cascade(["a red ball", "a dog runs"], seed=1)
    assert videos.shape == (2, 3, 5, 4, 6)
    assert torch.equal(videos, cascade(["a red ball", "a dog runs"], seed=1))
    difference = (videos - cascade(["a red ball", "a cat"], seed=1)).abs().amax((1, 2, 3, 4))
    assert difference[0] < 1e-5
    assert difference[1] > 1e-3


def test_an_embedding_follows_from_the_text():
    embed = text_prior(prior(), samples=1, timesteps=4)
    torch.manual_seed(1)
    once = embed(["a red ball", "a dog"])
    assert once.shape == (2, 6)
    asked = []

    def tokenize(texts):
        asked.extend(texts)
        return torch.ones(len(texts), 256, dtype=torch.long)

    text_prior(prior(), tokenize=tokenize)(["a red ball"])
    assert asked == ["a red ball"]


def test_wrong_priors_are_refused():
    alone = prior(clip=None, image_embed_dim=6)
    with pytest.raises(ValueError, match="`prior` must have a `clip`"):
        text_prior(alone)
    with pytest.raises(ValueError, match=r"`samples` \(=0\) must be at least 1"):
        text_prior(prior(), samples=0)
    with pytest.raises(TypeError, match=r"`prior` .* must be of type DiffusionPrior"):
        text_prior(torch.nn.Linear(1, 1))
