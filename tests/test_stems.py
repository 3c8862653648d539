"""Separated audio at the recording's own rate and channels: it adds up to the recording, and sounds like it."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import soxr
from typer.testing import CliRunner

from avgas_pipeline.audio import stems
from avgas_pipeline.audio.original import plain_track
from avgas_pipeline.audio.stems import stem_blocks
from avgas_pipeline.cli import app


MIXTURE = Path(__file__).parents[1] / "examples/mixture-dog-bird.flac"


def level_db(sound, reference):
    return 10 * np.log10(np.square(sound).mean() / np.square(reference).mean())


def si_sdr(estimate, target):
    scaled = target * (estimate @ target) / (target @ target)
    return 10 * np.log10(np.square(scaled).sum() / np.square(estimate - scaled).sum())


def two_tones(rate, seconds=3.0):
    time = np.arange(round(rate * seconds)) / rate
    low = 0.3 * np.sin(2 * np.pi * 300 * time) * (np.sin(2 * np.pi * 0.7 * time) > 0)
    high = 0.2 * np.sin(2 * np.pi * 2500 * time)
    return low.astype(np.float32), high.astype(np.float32)


@pytest.fixture
def recording(tmp_path):
    """The example, 48 kHz and in stereo: right softer, left with something above what the model hears."""
    sound, rate = soundfile.read(MIXTURE, dtype="float32")
    sound = soxr.resample(sound, rate, 48000)
    hiss = 0.01 * np.sin(2 * np.pi * 15000 * np.arange(len(sound)) / 48000) * (np.abs(sound) > 0.02)
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([sound + hiss, 0.5 * sound], axis=1), 48000, subtype="PCM_24")
    return path


def generate(*arguments):
    result = CliRunner().invoke(app, ["generate", *map(str, arguments), "--steps", "1", "--guidance", "1"])
    assert result.exit_code == 0, result.output
    return result


def test_stems_of_a_stereo_file_add_up_to_it(recording, tmp_path):
    generate(recording, "-o", tmp_path / "own")
    generate(recording, "-o", tmp_path / "model", "--model-rate")
    index, other = (json.loads((tmp_path / name / "sources.json").read_text()) for name in ("own", "model"))
    names = [source["audio"] for source in index["sources"]]
    assert index["rest"] == "rest.wav" and "rest" not in other
    sounds = {name: soundfile.read(tmp_path / "own" / name) for name in [*names, "rest.wav"]}
    expected, rate = soundfile.read(recording)
    assert all(each[1] == rate == 48000 and each[0].shape == expected.shape for each in sounds.values())
    assert level_db(sum(each for each, _ in sounds.values()) - expected, expected) < -40
    for name in names:
        own, model = sounds[name][0], soundfile.read(tmp_path / "model" / name)
        assert model[1] == 16000 and model[0].ndim == 1
        # Both channels have the same mask, and so the same ratio as in the recording.
        loud = np.abs(own[:, 0]) > 0.05
        assert np.median(own[loud, 1] / own[loud, 0]) == pytest.approx(0.5, abs=0.05)
        heard = soxr.resample(own.mean(axis=1), 48000, 16000)[: len(model[0])]
        assert si_sdr(heard, model[0][: len(heard)]) > 15


@pytest.mark.parametrize(("subtype", "gain"), [("PCM_16", 1.0), ("PCM_24", 1.0), ("FLOAT", 4.0)])
def test_stems_have_the_bits_of_the_recording(tmp_path, subtype, gain):
    """Beyond full scale, too, where the recording is."""
    sound, rate = soundfile.read(MIXTURE)
    sound *= gain / np.abs(sound).max()
    soundfile.write(tmp_path / "loud.wav", sound, rate, subtype=subtype)
    generate(tmp_path / "loud.wav", "-o", tmp_path / "out")
    files = sorted((tmp_path / "out").glob("*.wav"))
    assert len(files) >= 3 and {soundfile.info(file).subtype for file in files} == {subtype}
    expected, _ = soundfile.read(tmp_path / "loud.wav")
    assert level_db(sum(soundfile.read(file)[0] for file in files) - expected, expected) < -60


def test_masks_are_those_of_the_separated_sounds():
    (low, high), (low_16, high_16) = two_tones(44100), two_tones(16000)
    blocks = [np.stack([low + high])]
    ((original, found),) = stem_blocks(blocks, 44100, low_16 + high_16, [low_16, high_16], 16000)
    assert original.shape == (1, len(low)) and found.shape == (2, 1, len(low))
    for stem, tone in zip(found[:, 0], (low, high), strict=True):
        assert si_sdr(stem, tone) > 20


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("cut", [[], [0, 1, 7000, 7001]])
def test_parts_and_blocks_join_without_a_seam(monkeypatch, rate, cut):
    monkeypatch.setattr(stems, "PART_S", 1.0)
    monkeypatch.setattr(stems, "SHARED_S", 0.25)
    low, high = two_tones(rate)
    low_16, high_16 = two_tones(16000)
    blocks = np.split(np.stack([low + high, high]), cut, axis=1)
    parts = list(stem_blocks(blocks, rate, low_16 + high_16, [low_16, high_16], 16000))
    original, found = (np.concatenate(each, axis=-1) for each in zip(*parts, strict=True))
    assert len(parts) >= 3
    assert np.array_equal(original, np.stack([low + high, high])) and found.shape == (2, 2, len(low))
    assert si_sdr(found[0, 0], low) > 15 and si_sdr(found[1, 0], high) > 15


def test_nothing_of_a_silent_recording():
    silent = np.zeros((2, 48000), np.float32)
    ((original, found),) = stem_blocks(
        [silent], 48000, np.zeros(16000, np.float32), [np.zeros(16000, np.float32)], 16000
    )
    assert not original.any() and not found.any() and np.isfinite(found).all()


def test_files_that_are_not_plain(tmp_path, recording):
    assert plain_track(recording).channels == 2 and plain_track(recording).sampling_rate == 48000
    assert plain_track(np.zeros(3)) is None and plain_track(None) is None
    assert plain_track(recording, audio_track=1) is None
    assert plain_track(recording, duration_s=5.0) is not None and plain_track(recording, duration_s=7.0) is None
    path = tmp_path / "two.mka"
    with av.open(str(path), "w") as file:
        for _ in range(2):
            file.add_stream("flac", rate=48000, layout="mono")
        for stream in file.streams:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.int16), format="s16", layout="mono")
            frame.sample_rate = 48000
            file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
    assert plain_track(path) is None
