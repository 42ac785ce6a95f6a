"""Small stages, of models that are functions, for the tests of a cascade."""

import torch

from make_a_video_pytorch.cascade import Decoder, Interpolation, SuperResolution

diffusers = __import__("pytest").importorskip("diffusers")


def clean_scheduler(**config):
    """Its models predict the clean clip, which is then the result, to the last bits."""
    given = {"prediction_type": "sample", "clip_sample": False, "timestep_spacing": "trailing"}
    return diffusers.DDIMScheduler(**given | config)


def noise_scheduler():
    return diffusers.DDIMScheduler(clip_sample=False)


def decoder(model, scheduler=None, **options):
    given = dict(size=(4, 6), frames=3, channels=2, steps=2)
    return Decoder(model, scheduler or clean_scheduler(), **given | options)


def interpolation(model, scheduler=None, **options):
    given = dict(size=(4, 6), factor=3, window=7, overlap=2, steps=2)
    return Interpolation(model, scheduler or clean_scheduler(), **given | options)


def super_resolution(model, scheduler=None, **options):
    given = dict(size=(8, 12), size_before=(4, 6), window=5, overlap=2, steps=2)
    return SuperResolution(model, scheduler or clean_scheduler(), **given | options)


def of_the_noise(x, timestep, **conditions):
    """A model in which each frame of noise stays what it is."""
    return x


class Told:
    """A model that remembers what it was told, and answers with a number."""

    def __init__(self, number=0.0):
        self.calls, self.number = [], number

    def __call__(self, x, timestep, **conditions):
        self.calls.append({"x": x, "timestep": timestep, **conditions})
        return torch.full_like(x, self.number)
