import pytest
import torch

from make_a_video_pytorch import ResnetBlock, SpaceTimeUnet, TimestepEmbedding


@pytest.mark.parametrize("dtype", [torch.int64, torch.float16, torch.float64])
def test_a_number_becomes_sinusoids_a_projection_and_silu(dtype):
    embed = TimestepEmbedding(4, 5).double()
    timesteps = torch.tensor([3, 250], dtype=dtype)
    angles = timesteps.double()[:, None] * torch.tensor([1.0, 1 / 10_000], dtype=torch.float64)
    sinusoids = torch.cat((angles.sin(), angles.cos()), dim=1)
    wanted = sinusoids @ embed.net[1].weight.T + embed.net[1].bias
    wanted = wanted / (1 + torch.exp(-wanted))
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    got = embed(timesteps, torch.float64)
    torch.testing.assert_close(got, wanted, rtol=0, atol=tolerance)
    in_fp32 = embed.float()(timesteps)
    torch.testing.assert_close(in_fp32, wanted.float(), rtol=1e-4, atol=1e-4)


def test_a_number_of_each_frame_has_a_vector_of_its_own():
    embed = TimestepEmbedding(6)
    timesteps = torch.randint(1000, (2, 5))
    emb = embed(timesteps)
    assert emb.shape == (2, 5, 24)
    assert torch.equal(emb[1], embed(timesteps[1]))
    assert embed(torch.tensor(7)).shape == (24,)


def test_a_block_in_half_precision_takes_the_embedding_in_it():
    embed, block = (
        TimestepEmbedding(6).bfloat16(),
        ResnetBlock(3, 4, timestep_cond_dim=24).bfloat16(),
    )
    x = torch.randn(2, 3, 5, 6, 7, dtype=torch.bfloat16)
    out = block(x, embed(torch.tensor([1, 999]), x.dtype))
    assert out.dtype == torch.bfloat16
    assert not torch.equal(out, block(x, embed(torch.tensor([500, 999]), x.dtype)))


def test_it_is_the_one_of_the_unet():
    unet = SpaceTimeUnet(dim=6)
    embed = TimestepEmbedding(6)
    embed.net.load_state_dict(unet.to_timestep_cond.state_dict())
    timesteps = torch.tensor([250, 999])
    nothing = dict.fromkeys(("cond", "fps", "noise_level", "temporal"))
    emb = unet.embed(timesteps, video=torch.zeros(2, 6, 1, 1, 1), **nothing)
    assert torch.equal(embed(timesteps), emb)


def test_what_is_wrong_is_an_error():
    with pytest.raises(ValueError, match=r"`dim` \(=1\) must be at least 2"):
        TimestepEmbedding(1)
    with pytest.raises(ValueError, match=r"`dim` \(=-3\) must be at least 2"):
        TimestepEmbedding(-3)
    with pytest.raises(ValueError, match=r"`emb_dim` \(=0\) must be at least 1"):
        TimestepEmbedding(4, 0)
    with pytest.raises(TypeError, match=r"`timestep` \(a int\) must be a tensor"):
        TimestepEmbedding(4)(5)
