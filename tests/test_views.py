"""Augmented views: recordings encoded at several speeds."""

import numpy as np
import pytest
import torch
from drawing import Counter
from tiny import tiny_audio, tiny_components
from typer.testing import CliRunner

from avgas_pipeline import AVGASPipeline, create_model_card
from avgas_pipeline.audio.windows import Window, change_speed
from avgas_pipeline.cli import app


RATE = 16000


def window(samples, length):
    padded = np.zeros(length, dtype=np.float32)
    padded[: len(samples)] = samples
    return Window(start=640, samples=padded, num_valid=len(samples))


def peak_hz(samples):
    return np.abs(np.fft.rfft(samples)).argmax() * RATE / len(samples)


@pytest.mark.parametrize("speed", [0.8, 0.9, 1.25])
def test_speed_changes_pitch_and_length(speed):
    sine = np.sin(2 * np.pi * 1000 * np.arange(12000) / RATE).astype(np.float32)
    played = change_speed(window(sine, 16000), speed)
    assert (played.start, len(played.samples), played.samples.dtype) == (640, 16000, np.float32)
    assert played.num_valid == pytest.approx(12000 / speed, abs=1)
    assert peak_hz(played.samples[: played.num_valid]) == pytest.approx(1000 * speed, rel=0.01)
    assert not played.samples[played.num_valid :].any()


@pytest.mark.parametrize("start", [0, 3000, 7600])
def test_a_full_window_played_slower_keeps_its_sound(start):
    sound = np.random.default_rng(0).standard_normal(400).astype(np.float32)
    silent = np.zeros(8000, dtype=np.float32)
    silent[start : start + 400] = sound
    played = change_speed(window(silent, 8000), 0.9)
    assert played.num_valid == len(played.samples) == 8000
    assert np.square(played.samples).sum() == pytest.approx(np.square(sound).sum() / 0.9, rel=0.1)


@pytest.mark.parametrize("speed", [0.5, 1.5])
def test_the_shortest_recordings_stay(speed):
    assert change_speed(window(np.ones(1, dtype=np.float32), 100), speed).num_valid >= 1


@pytest.fixture
def varied():
    return AVGASPipeline(**tiny_components(), speed_variation=0.1)


def test_presence_is_the_mean_of_three_views(varied):
    outputs = []
    varied.separator.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    (found,) = varied.separate_audio(*tiny_audio(), num_sources=4)
    (output,) = outputs
    first, slower, faster = output[0].sigmoid()
    scores = torch.tensor([source.score for source in found])
    # Every slot of every view counts once, whichever it was matched with.
    total = (first + slower + faster).sum() / 3
    assert len(found) == 4 and torch.isclose(scores.sum(), total, atol=1e-5)
    assert not torch.allclose(first, slower) and not torch.allclose(first, faster)


def test_windows_are_encoded_as_they_are_and_slower_and_faster(varied):
    fractions = []
    varied.separator.register_forward_pre_hook(
        lambda module, inputs, named: fractions.append(named["valid_fraction"].tolist()), with_kwargs=True
    )
    # Half of the encoder's window of 1.28 s.
    varied.separate_audio(np.ones(10240, dtype=np.float32) / 2, RATE, num_sources=1)
    # In one call, which is faster than three.
    assert len(fractions) == 1 and fractions[0] == pytest.approx([0.5, 0.5 / 0.9, 0.5 / 1.1], abs=1e-3)


def test_a_separator_cast_layer_by_layer_separates():
    pipe = AVGASPipeline(**tiny_components(), speed_variation=0.1)
    expected = pipe.separate_audio(*tiny_audio(), num_sources=2)[0]
    pipe.separator.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.bfloat16)
    found = pipe.separate_audio(*tiny_audio(), num_sources=2)[0]
    assert [one.score for one in found] == pytest.approx([one.score for one in expected], abs=0.3)


def test_without_variation_all_is_encoded_once():
    pipe = AVGASPipeline(**tiny_components())
    calls = Counter(pipe.audio_encoder)
    pipe.separate_audio(*tiny_audio())
    assert pipe.config.speed_variation == 0 and calls.rows == [1]


@pytest.mark.parametrize(("max_batch_rows", "rows"), [(1, [1, 1, 1]), (2, [2, 1]), (8, [3])])
def test_only_the_recording_as_it_is_gets_fine_masks(varied, max_batch_rows, rows):
    spectrograms = []
    varied.separator.register_forward_pre_hook(
        lambda module, inputs, named: spectrograms.append(named["spectrogram"]), with_kwargs=True
    )
    calls = Counter(varied.audio_encoder)
    varied.separate_audio(*tiny_audio(), max_batch_rows=max_batch_rows, num_sources=1)
    assert calls.rows == rows
    assert [0 if each is None else len(each) for each in spectrograms] == [1, *[0] * (len(rows) - 1)]


def test_as_few_calls_as_fit(varied):
    calls = Counter(varied.audio_encoder)
    # Windows of 1.28 s, half overlapping.
    varied.separate_audio(*tiny_audio(2.5, 1), num_sources=1, max_batch_rows=4)
    assert sum(calls.rows) % 3 == 0 and calls.rows[:-1] == [4] * (len(calls.rows) - 1)


@pytest.mark.parametrize("max_batch_rows", [1, 2, 4, 7])
def test_batches_are_no_larger_and_change_nothing(varied, max_batch_rows):
    audio = [tiny_audio(1.5, 1)[0], tiny_audio(0.7, 2)[0], tiny_audio(4.0, 0)[0]]
    expected = varied.separate_audio(audio, RATE, num_sources=2)
    calls = Counter(varied.audio_encoder)
    found = varied.separate_audio(audio, RATE, num_sources=2, max_batch_rows=max_batch_rows)
    assert max(calls.rows) <= max_batch_rows
    for ones, others in zip(found, expected, strict=True):
        assert [one.label for one in ones] == [other.label for other in others]
        for one, other in zip(ones, others, strict=True):
            assert one.score == pytest.approx(other.score, abs=1e-5)
            assert np.allclose(one.audio, other.audio, atol=1e-3)


def test_masks_are_those_of_the_recording_as_it_is(varied):
    plain = AVGASPipeline(**varied.components, speed_variation=0.0)
    audio = tiny_audio(2.0, 2)
    sums = [sum(source.audio for source in pipe.separate_audio(*audio, num_sources=4)[0]) for pipe in (plain, varied)]
    assert sums[0].any() and np.allclose(*sums, atol=1e-4)


def test_gradients_reach_the_separator(varied):
    encoded = varied.encode_audio(*tiny_audio(), return_audio=False)
    encoded.audio_embeds.sum().backward()
    assert varied.separator.token_head[0].weight.grad.abs().sum() > 0


def test_variation_is_saved_and_can_be_overridden(varied, tmp_path):
    varied.save_pretrained(tmp_path)
    assert AVGASPipeline.from_pretrained(tmp_path).config.speed_variation == 0.1
    assert AVGASPipeline.from_pretrained(tmp_path, speed_variation=0.0).config.speed_variation == 0.0


def test_components_keep_the_settings(varied):
    pipe = AVGASPipeline(**tiny_components(), speed_variation=0.2, default_num_inference_steps=3)
    again = AVGASPipeline(**pipe.components)
    names = ("speed_variation", "default_num_inference_steps", "default_guidance_scale")
    assert [again.config[name] for name in names] == [0.2, 3, 7.5]
    # What is given goes before.
    other = AVGASPipeline(**pipe.components, speed_variation=0.0, default_guidance_scale=2.0)
    assert [other.config[name] for name in names] == [0.0, 3, 2.0]
    assert [pipe.config[name] for name in names] == [0.2, 3, 7.5]


def test_info_and_card_tell_of_it(varied, checkpoint, tmp_path):
    varied.save_pretrained(tmp_path)
    told = "as it is, and 10 % slower and faster"
    assert told in CliRunner().invoke(app, ["info", str(tmp_path)]).stdout
    assert "slower" not in CliRunner().invoke(app, ["info", str(checkpoint)]).stdout
    assert told in str(create_model_card(varied, "user/name"))
    assert "slower" not in str(create_model_card(AVGASPipeline.from_pretrained(checkpoint), "user/name"))


@pytest.mark.parametrize("variation", [-0.1, 0.6, float("nan"), "much"])
def test_bad_variation(variation):
    with pytest.raises(ValueError, match="speed_variation"):
        AVGASPipeline(**tiny_components(), speed_variation=variation)
