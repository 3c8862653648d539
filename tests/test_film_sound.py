"""A film's sound is where the pipeline hears it, in stereo, whatever the file's time stamps say."""

import warnings
from fractions import Fraction

import av
import numpy as np
import pytest
from sounds import tone

from avgas_pipeline import load_audio
from avgas_pipeline.audio.original import plain_track
from avgas_pipeline.film.sound import RATE, sound_frames


PIECE = tone(1.5, RATE, 440, 0.3)
CODECS = [("x.mkv", "pcm_s16le"), ("x.mkv", "aac"), ("x.mp4", "aac"), ("x.ts", "aac"), ("x.webm", "libopus")]


def write_stereo(path, pieces, codec, num_pictures=0):
    """Pieces `(start in seconds, samples)`, right at half the level; with pictures, 10 a second, from the start."""
    with av.open(str(path), "w") as file:
        video = file.add_stream("mpeg4", rate=10) if num_pictures else None
        audio = file.add_stream(codec, rate=RATE, layout="stereo")
        if video is not None:
            video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
            for _ in range(num_pictures):
                file.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
            file.mux(video.encode(None))
        audio.codec_context.open(strict=False)
        length = audio.codec_context.frame_size or 1024
        for start, samples in pieces:
            for begin in range(0, len(samples) - length + 1, length):
                block = samples[begin : begin + length] * np.array([[1.0], [0.5]], np.float32)
                if audio.format.name == "s16":
                    block = (block * 32767).astype(np.int16)
                if not audio.format.is_planar:
                    block = np.ascontiguousarray(block.T.reshape(1, -1))
                frame = av.AudioFrame.from_ndarray(block, format=audio.format.name, layout="stereo")
                frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
                frame.pts = round(start * RATE) + begin
                file.mux(audio.encode(frame))
        file.mux(audio.encode(None))
    return path


def film_sound(path):
    """`(2, T)`, as the film has it, and what the pipeline hears `(T,)`; both at 48 kHz."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        heard = load_audio(path, target_sampling_rate=RATE)
    frames = sound_frames(path, len(heard) / RATE, None, 3600, path.name)
    return np.concatenate([frame.to_ndarray() for frame in frames], axis=1), heard


@pytest.mark.parametrize(("name", "codec"), CODECS)
def test_sound_after_a_gap_is_where_it_is_heard(tmp_path, name, codec):
    path = write_stereo(tmp_path / name, [(0, PIECE), (3.5, PIECE), (6.0, PIECE)], codec)
    sound, heard = film_sound(path)
    assert len(heard) / RATE == pytest.approx(7.5, abs=0.1)
    np.testing.assert_allclose(sound.mean(axis=0), heard, atol=1e-3)
    assert np.abs(sound[0]).mean() > 1.8 * np.abs(sound[1]).mean()


@pytest.mark.parametrize("late_s", [0.003, 0.05, 1.5])
def test_sound_that_begins_late_stays_in_stereo(tmp_path, late_s):
    path = write_stereo(tmp_path / "late.mkv", [(late_s, PIECE)], "pcm_s16le", num_pictures=40)
    sound, heard = film_sound(path)
    np.testing.assert_allclose(sound.mean(axis=0), heard, atol=1e-3)
    assert np.abs(sound[0]).mean() > 1.8 * np.abs(sound[1]).mean()


@pytest.mark.parametrize("name", ["late.mp4", "late.ts"])
def test_sound_that_begins_late_in_other_containers(tmp_path, name):
    path = write_stereo(tmp_path / name, [(1.5, PIECE)], "aac", num_pictures=40)
    sound, heard = film_sound(path)
    assert plain_track(path, duration_s=len(heard) / RATE) is not None
    np.testing.assert_allclose(sound.mean(axis=0), heard, atol=1e-3)


def test_a_clock_that_jumps_is_no_gap(tmp_path):
    path = write_stereo(tmp_path / "jump.mkv", [(0, PIECE), (36000, PIECE)], "libopus")
    sound, heard = film_sound(path)
    assert len(heard) / RATE == pytest.approx(3.0, abs=0.1)
    np.testing.assert_allclose(sound.mean(axis=0), heard, atol=1e-3)


def test_silence_is_as_long_at_another_rate(tmp_path):
    """Of a hundred gaps, too."""
    pieces = [(0.31 * number, PIECE[:8192]) for number in range(100)]
    path = write_stereo(tmp_path / "gaps.mkv", pieces, "pcm_s16le")
    for rate in (RATE, 44100, 16000):
        length = sum(block.shape[1] for block in plain_track(path).blocks(rate))
        assert length == pytest.approx((99 * 0.31 + 8192 / RATE) * rate, abs=0.005 * rate)
