"""What is set at a stage is tested with the stage, in test_stage.py; here what follows from it."""

from make_a_video_pytorch.cascade.frames import Window
from tests.cascade.small import Told, decoder, interpolation, super_resolution


def test_sizes_rates_and_windows_follow_from_the_settings():
    stages = [decoder(Told()), interpolation(Told()), super_resolution(Told())]
    assert [stage.size_taken for stage in stages] == [None, (4, 6), (4, 6)]
    assert [stage.size for stage in stages] == [(4, 6), (4, 6), (8, 12)]
    assert [stage.faster for stage in stages] == [1, 3, 1]
    assert [stage.kind for stage in stages] == ["Decoder", "Interpolation", "SuperResolution"]
    first, second, third = (stage.parts(3) for stage in stages)
    assert first == [Window(0, 3, 0)]
    assert second == [Window(0, 7, 0)]
    assert third == [Window(0, 3, 0)]
    assert stages[2].parts(9)[1:] == [Window(3, 8, 2), Window(4, 9, 4)]
