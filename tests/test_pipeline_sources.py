"""How many sources a recording has, and how strongly they show."""

import numpy as np
import pytest
import torch
from drawing import difference, draw, seeded
from tiny import LABELS, tiny_audio


def test_weight_one_changes_nothing(pipe):
    expected = draw(pipe, separate=True)
    label = expected.sources[0][0].label
    for weights in ({label: 1}, {label: 1.0}, [1.0] * len(expected.sources[0]), [[1.0] * len(expected.sources[0])]):
        out = draw(pipe, separate=True, source_weights=weights)
        assert np.array_equal(out.images, expected.images)
        assert np.array_equal(out.sources[0][0].images, expected.sources[0][0].images)


def test_weight_zero_equals_the_call_without_that_source(pipe):
    encoded = pipe.encode_audio(tiny_audio()[0], 16000)
    labels = [source.label for source in encoded.sources[0]]
    for number, label in enumerate(labels):
        kept = [other for other in range(len(labels)) if other != number]
        expected = draw(pipe, audio_embeds=encoded.audio_embeds[:, kept], sampling_rate=None, separate=True)
        out = draw(pipe, source_weights={label: 0.0}, separate=True)
        assert [source.label for source in out.sources[0]] == [labels[other] for other in kept]
        assert difference(out.images, expected.images) < 1e-5
        for one, other in zip(out.sources[0], expected.sources[0], strict=True):
            assert difference(one.images, other.images) < 1e-5


def test_weights_move_the_mixed_image_and_leave_the_separated_ones(pipe):
    expected = draw(pipe, separate=True)
    distances = []
    for weight in (0.9, 0.5, 0.1):
        out = draw(pipe, separate=True, source_weights=[weight] + [1.0] * (len(expected.sources[0]) - 1))
        distances.append(difference(out.images, expected.images))
        assert difference(out.sources[0][0].images, expected.sources[0][0].images) < 1e-5
    assert 0 < distances[0] < distances[1] < distances[2]


def test_a_weight_for_what_is_not_present_is_told(pipe):
    present = {source.label for source in draw(pipe).sources[0]}
    absent = next(label for label in LABELS if label not in present)
    with pytest.warns(UserWarning, match=f"{absent} is not present"):
        out = draw(pipe, source_weights={absent: 0.3})
    assert np.array_equal(out.images, draw(pipe).images)


def test_weights_for_each_soundscape_of_a_batch(pipe):
    audio = [tiny_audio(1.0, 0)[0], tiny_audio(1.0, 0)[0]]
    label = draw(pipe).sources[0][0].label
    out = draw(pipe, audio, seeded(0, 0), source_weights=[None, {label: 0.2}])
    assert difference(out.images[0], draw(pipe).images[0]) < 1e-4
    assert difference(out.images[1], draw(pipe, source_weights={label: 0.2}).images[0]) < 1e-4


def test_num_sources_and_presence_threshold(pipe):
    for count in (1, 2, 3, 4):
        assert len(draw(pipe, num_sources=count).sources[0]) == count
    scores = [source.score for source in draw(pipe, num_sources=4).sources[0]]
    threshold = (scores[0] + scores[1]) / 2
    assert len(draw(pipe, presence_threshold=threshold).sources[0]) == 1


def test_silence_is_drawn_only_when_forced(pipe):
    silence = np.zeros(16000, np.float32)
    for quiet in (silence, np.full(16000, 1e-6, np.float32)):
        with pytest.raises(ValueError, match="silent"):
            draw(pipe, quiet)
    out = draw(pipe, silence, num_sources=2, separate=True)
    assert len(out.sources[0]) == 2 and np.isfinite(out.images).all()
    assert all(not source.activity.any() for source in out.sources[0])


def test_no_present_source_is_an_error_that_says_so(pipe):
    with pytest.raises(ValueError, match=r"no source is present.*pass `num_sources`"):
        draw(pipe, presence_threshold=1.0)
    with pytest.raises(ValueError, match=r"no source is present.*leave `negative_audio` out"):
        draw(pipe, presence_threshold=1.0, num_sources=1, negative_audio=tiny_audio(1.0, 7)[0])


@pytest.mark.parametrize("seconds", [0.003, 0.05, 1.28, 1.29, 9.3])
def test_any_length(pipe, seconds):
    out = draw(pipe, tiny_audio(seconds)[0], num_sources=2)
    samples = round(seconds * 16000)
    for source in out.sources[0]:
        assert source.audio.shape == (samples,)
        assert len(source.activity) == samples // 64 + 1


def test_long_audio_is_one_soundscape(pipe):
    # The same window over and over has the sources of that window, not new ones each time.
    window = tiny_audio(1.28)[0]
    once, often = (pipe.separate_audio(np.tile(window, count), 16000)[0] for count in (1, 6))
    assert {source.label for source in once} <= {source.label for source in often}
    assert len({source.label for source in often}) == len(often)


def test_silence_around_a_sound_adds_nothing(pipe):
    sound = tiny_audio(1.28)[0]
    silence = np.zeros(6 * 16000, np.float32)
    alone = pipe.encode_audio(sound, 16000)
    padded = pipe.encode_audio(np.concatenate([sound, silence]), 16000)
    assert padded.sources[0][0].label == alone.sources[0][0].label
    for source in padded.sources[0]:
        assert source.activity.any() and source.audio.any()
        assert not source.activity[3 * 16000 // 64 :].any() and not source.audio[3 * 16000 :].any()


def test_return_audio_false(pipe):
    out = draw(pipe, return_audio=False)
    assert all(source.audio is None and source.activity is not None for source in out.sources[0])


def test_inputs_of_every_kind_in_one_batch(pipe, tmp_path):
    import soundfile

    samples = tiny_audio()[0]
    soundfile.write(tmp_path / "x.wav", samples, 16000, subtype="FLOAT")
    path = tmp_path / "x.wav"
    batch = [path, str(path), path.read_bytes(), samples, torch.from_numpy(samples), {"path": str(path)}]
    with path.open("rb") as file:
        out = draw(pipe, [*batch, file], seeded(*[0] * 7))
    assert difference(out.images, out.images[:1].repeat(7, axis=0)) < 1e-4
