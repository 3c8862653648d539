"""A recording is the same to the models however loud it is."""

import numpy as np
import pytest
import soundfile
from sounds import tone

from avgas_pipeline import AVGASPipeline, load_audio
from avgas_pipeline.audio.loudness import active_rms, reference_gain
from avgas_pipeline.data.soundscapes_mini import load_soundscapes_mini


EXAMPLES = ["mixture-dog-bird.flac", "mixture-sparrow-splash.flac", "ship.ogg", "morning.ogg", "SportsCroud1.wav"]


@pytest.fixture(scope="module")
def pipe():
    return AVGASPipeline.from_pretrained("avgas-mini", unet=None, vae=None)


def found(pipe, waveform):
    return {source.label: source.score for source in pipe.separate_audio(waveform, 16000, return_audio=False)[0]}


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("level_db", [-20, -50])
def test_quiet_recordings_have_the_same_sources(pipe, name, level_db):
    waveform = load_audio(f"examples/{name}")
    loud, quiet = found(pipe, waveform), found(pipe, waveform * np.float32(10 ** (level_db / 20)))
    assert set(loud) == set(quiet)
    assert max(abs(loud[label] - quiet[label]) for label in loud) < 1e-3


@pytest.mark.parametrize("name", EXAMPLES)
def test_quiet_files_of_16_bit_have_the_same_certain_sources(pipe, name, tmp_path):
    waveform = load_audio(f"examples/{name}")
    soundfile.write(tmp_path / "quiet.wav", 0.01 * waveform, 16000, subtype="PCM_16")

    def scores(waveform):
        sources = pipe.separate_audio(waveform, 16000, return_audio=False)[0]
        return {source.label: source.score * source.label_score for source in sources}

    # Quantisation adds noise of its own, which what is uncertain may be lost in.
    loud, quiet = scores(waveform), scores(load_audio(tmp_path / "quiet.wav"))
    for first, second in ((loud, quiet), (quiet, loud)):
        assert {label for label, score in first.items() if label and score > 0.5} <= set(second)


def test_what_comes_back_has_the_level_of_the_recording(pipe):
    waveform = load_audio("examples/mixture-dog-bird.flac")
    loud = pipe.separate_audio(waveform, 16000)[0]
    quiet = pipe.separate_audio(0.01 * waveform, 16000)[0]
    for one, other in zip(loud, quiet, strict=True):
        assert np.abs(0.01 * one.audio - other.audio).max() < 1e-4 * np.abs(one.audio).max()
        assert np.abs(one.activity - other.activity).max() < 1e-3


def test_silent_channels_do_not_matter(pipe):
    waveform = load_audio("examples/mixture-dog-bird.flac")
    surround = np.stack([waveform, *[np.zeros_like(waveform)] * 7])
    assert set(found(pipe, surround)) == set(found(pipe, waveform))


@pytest.mark.slow
def test_single_sounds_of_the_test_split(pipe):
    sounds, _ = load_soundscapes_mini(split="test")
    same = []
    for row in sounds.select(range(0, len(sounds), 8)):
        waveform = load_audio(row["audio"])
        same.append(set(found(pipe, waveform)) == set(found(pipe, waveform * np.float32(10 ** (-35 / 20)))))
    assert np.mean(same) >= 0.98


def test_reference_gain():
    for level in (1.0, 0.1, 1e-4):
        waveform = tone(1.0, 16000, level=level)
        level_db = 20 * np.log10(active_rms(waveform * reference_gain(waveform, 16000), 16000))
        assert level_db == pytest.approx(-24, abs=0.1)
    assert reference_gain(np.zeros(100, np.float32), 16000) == 1.0


@pytest.mark.parametrize("length", [1, 319, 320, 16000])
def test_active_loudness_of_any_length(length):
    waveform = np.full(length, 0.5, np.float32)
    assert active_rms(waveform, 16000) == pytest.approx(0.5 * min(length / 320, 1) ** 0.5, rel=0.02)
