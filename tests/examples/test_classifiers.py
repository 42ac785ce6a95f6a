"""Small networks learn to tell what is seen."""

import torch
from classifiers import Classifier, taught
from clips import MovingDigits
from torch import Generator


def test_a_classifier_learns_digits_from_real_frames():
    held_out = MovingDigits(12, held_out=True)(100, 3, Generator().manual_seed(0))
    names = held_out.names.argmax(-1)
    classifier = taught(Classifier(1, 10, 16), MovingDigits(12), 1, 120, seed=0)
    seen = classifier.seen(held_out.videos)
    assert seen.shape == (100, 3)
    assert (seen == names[:, None]).double().mean() > 0.6  # chance is 0.1
    assert not any(parameter.requires_grad for parameter in classifier.parameters())


def test_what_is_seen_in_a_frame_is_what_is_seen_in_it_as_a_picture():
    classifier, videos = Classifier(3, 7, 5), torch.randn(2, 3, 4, 13, 9)
    expected = torch.stack([classifier(videos[:, :, frame]).argmax(-1) for frame in range(4)], 1)
    assert torch.equal(classifier.seen(videos), expected)
