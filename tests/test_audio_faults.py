"""What real files do wrong: levels, channels, tracks, gaps, headers, and objects that are no files."""

import io
import os
import struct
import threading
import warnings
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile
import torch
from sounds import tone, write_audio

from avgas_pipeline import load_audio


def rms(waveform):
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))


def band_level(waveform, frequency, width=20):
    """RMS of a 16 kHz waveform around a frequency."""
    spectrum = np.fft.rfft(waveform * np.hanning(len(waveform)))
    hertz = np.fft.rfftfreq(len(waveform), 1 / 16000)
    return np.abs(spectrum[abs(hertz - frequency) < width]).max()


def load(audio, *args, **options):
    """The waveform, and the warnings as one text."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        waveform = load_audio(audio, *args, **options)
    return waveform, "\n".join(str(warning.message) for warning in caught)


def write_tracks(path, tracks, rate=48000, codec="aac", layout="mono", container=None):
    """A file with a track for each list of `(start in seconds, samples)`."""
    with av.open(str(path), "w", format=container) as file:
        streams = [file.add_stream(codec, rate=rate, layout=layout) for _ in tracks]
        for stream, pieces in zip(streams, tracks, strict=True):
            stream.codec_context.open(strict=False)
            length = stream.codec_context.frame_size or 1024
            for start, samples in pieces:
                for begin in range(0, len(samples) - length + 1, length):
                    block = samples[None, begin : begin + length]
                    if stream.format.name == "s16":
                        block = (block * 32767).astype(np.int16)
                    frame = av.AudioFrame.from_ndarray(block, format=stream.format.name, layout=layout)
                    frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                    frame.pts = round(start * rate) + begin
                    file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
    return path


LOW, HIGH = tone(2.0, 16000, 440, 0.3), tone(2.0, 16000, 1500, 0.3)


@pytest.mark.parametrize("gain", [1.0, 0.5, 2.0])
def test_sources_that_cancel_in_the_mean_are_kept(gain):
    waveform, said = load(np.stack([LOW + gain * HIGH, LOW - gain * HIGH]) / 2, 16000)
    assert band_level(waveform, 440) > 1000 * band_level(waveform, 3000)
    assert band_level(waveform, 1500) > 0.3 * gain * band_level(waveform, 440)
    assert "only channel" in said


@pytest.mark.parametrize("factor", [-1.0, -0.8])
def test_an_inverted_channel_is_inverted_back(factor, tmp_path):
    soundfile.write(tmp_path / "x.wav", np.stack([LOW, factor * LOW], axis=1), 16000, subtype="FLOAT")
    waveform, said = load(tmp_path / "x.wav")
    assert np.abs(waveform - (1 - factor) / 2 * LOW).max() < 1e-6
    assert "x.wav" in said and "inverted" in said


def test_an_inverted_channel_of_six():
    other = tone(2.0, 16000, 3000, 0.1)
    waveform, said = load(np.stack([LOW, -LOW, other, 0 * LOW, 0 * LOW, 0 * LOW]), 16000)
    assert band_level(waveform, 440) > band_level(waveform, 3000) > 0
    assert "inverted" in said


def test_ordinary_channels_are_averaged():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, (2, 160000)).astype(np.float32)
    for samples in (
        np.stack([LOW, HIGH]),
        np.stack([LOW, LOW]),
        np.stack([LOW + 0.5 * HIGH, 0.5 * LOW + HIGH]) / 2,
        noise,
        np.stack([LOW, 0 * LOW]),
        np.tile(LOW, (8, 1)),
    ):
        waveform, said = load(samples, 16000)
        assert not said
        assert np.abs(waveform - samples.mean(axis=0)).max() < 1e-6


SOUND, SILENCE = tone(2.0, 48000, 440, 0.5), np.zeros(96000, np.float32)


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv"])
def test_a_silent_first_track_is_passed_over(name, tmp_path):
    waveform, said = load(write_tracks(tmp_path / name, [[(0, SILENCE)], [(0, SOUND)]]))
    assert rms(waveform) > 0.3
    assert "2 audio tracks" in said and "taking 1" in said
    first, said = load(tmp_path / name, audio_track=0)
    assert rms(first) < 1e-4 and not said


def test_which_of_two_tracks_is_heard_is_said_and_can_be_chosen(tmp_path):
    path = write_tracks(tmp_path / "x.mp4", [[(0, SOUND)], [(0, tone(2.0, 48000, 1500, 0.5))]])
    waveform, said = load(path)
    assert band_level(waveform, 440) > band_level(waveform, 1500) and "taking 0" in said
    waveform, said = load(path, audio_track=1)
    assert band_level(waveform, 1500) > band_level(waveform, 440) and not said
    for number in (2, -1, True, 0.5):
        with pytest.raises(ValueError, match=r"audio.track"):
            load_audio(path, audio_track=number)
    with pytest.raises(ValueError, match="samples have no tracks"):
        load_audio(SOUND, 48000, audio_track=0)


def test_a_track_that_cannot_be_decoded_is_passed_over(tmp_path):
    path = write_tracks(tmp_path / "x.mov", [[(0, SOUND)], [(0, SOUND)]], codec="pcm_s16le")
    data = path.read_bytes()
    # The first track claims to be in a format that nobody has heard of.
    path.write_bytes(data.replace(b"sowt", b"xyzw", 1))
    waveform, said = load(path)
    assert rms(waveform) > 0.3 and "can't be decoded" in said and "taking 1" in said
    with pytest.raises(ValueError, match="can't be decoded"):
        load_audio(path, audio_track=0)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("x.mkv", "pcm_s16le"), ("x.webm", "libopus"), ("x.ogg", "libopus"), ("x.mp4", "aac"), ("x.mkv", "flac")],
)
def test_gaps_in_time_stamps_are_silence(name, codec, tmp_path):
    path = write_tracks(tmp_path / name, [[(0, SOUND), (3.5, SOUND)]], codec=codec)
    waveform, said = load(path)
    assert len(waveform) / 16000 == pytest.approx(5.5, abs=0.1)
    assert rms(waveform[int(2.2 * 16000) : int(3.4 * 16000)]) < 1e-4
    assert min(rms(waveform[8000:24000]), rms(waveform[-24000:-8000])) > 0.3
    assert "1 gap" in said and "filled with silence" in said and "truncated" not in said


def test_a_track_that_begins_late(tmp_path):
    path = tmp_path / "x.mkv"
    with av.open(str(path), "w") as file:
        video = file.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        audio = file.add_stream("libopus", rate=48000, layout="mono")
        for number in range(40):
            picture = np.full((32, 32, 3), 6 * number, np.uint8)
            file.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(video.encode(None))
        audio.codec_context.open(strict=False)
        for begin in range(0, len(SOUND) - 959, 960):
            frame = av.AudioFrame.from_ndarray(SOUND[None, begin : begin + 960], format="flt", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = 48000, Fraction(1, 48000), 72000 + begin
            file.mux(audio.encode(frame))
        file.mux(audio.encode(None))
    waveform, said = load(path)
    assert len(waveform) / 16000 == pytest.approx(3.5, abs=0.1) and not said
    assert rms(waveform[: int(1.4 * 16000)]) < 1e-4 < 0.3 < rms(waveform[int(1.6 * 16000) : int(3.3 * 16000)])


def test_time_stamps_that_jump_are_no_gap(tmp_path):
    path = write_tracks(tmp_path / "x.mkv", [[(0, SOUND), (36000, SOUND)]], codec="libopus")
    waveform, said = load(path)
    assert len(waveform) / 16000 == pytest.approx(4.0, abs=0.1)
    assert "jump ahead" in said


@pytest.mark.parametrize(("name", "codec"), [("x.ogg", "libopus"), ("x.ts", "aac")])
def test_files_that_were_put_together_are_heard_one_after_the_other(name, codec, tmp_path):
    path = write_tracks(tmp_path / name, [[(0, SOUND)]], codec=codec)
    path.write_bytes(2 * path.read_bytes())
    assert len(load(path)[0]) / 16000 == pytest.approx(4.0, abs=0.15)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0xFFFFFFFF - 36, 0x7FFFFFFF, 0x7FFFF000])
def test_a_wav_written_to_a_pipe_is_whole(size, tmp_path):
    soundfile.write(tmp_path / "x.wav", LOW, 16000, subtype="PCM_16")
    data = bytearray((tmp_path / "x.wav").read_bytes())
    data[4:8] = data[40:44] = struct.pack("<I", size)
    waveform, said = load(bytes(data))
    assert len(waveform) == len(LOW) and not said


@pytest.mark.parametrize("kind", ["AU", "CAF"])
def test_other_files_written_to_a_pipe_are_whole(kind, tmp_path):
    soundfile.write(tmp_path / "x", LOW, 16000, format=kind, subtype="PCM_16")
    data = bytearray((tmp_path / "x").read_bytes())
    place, length = (8, 4) if kind == "AU" else (data.find(b"data") + 4, 8)
    data[place : place + length] = b"\xff" * length
    waveform, said = load(bytes(data))
    assert len(waveform) == len(LOW) and not said


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "AU"])
@pytest.mark.parametrize("length", [4096 * 3, 4096 * 3 + 100])
def test_a_file_cut_short_is_not_whole(kind, length, tmp_path):
    soundfile.write(tmp_path / "x", LOW, 16000, format=kind, subtype="PCM_16")
    waveform, said = load((tmp_path / "x").read_bytes()[: 44 + length])
    assert 0 < len(waveform) < len(LOW) and "ends early" in said


def test_mask_of_masked_arrays():
    with pytest.raises(ValueError, match="masked"):
        load_audio(np.ma.masked_greater(LOW, 0.1), 16000)
    with pytest.raises(ValueError, match="masked"):
        load_audio({"array": np.ma.masked_greater(LOW, 0.1), "sampling_rate": 16000})
    assert np.array_equal(load_audio(np.ma.masked_greater(LOW, 1.0), 16000), LOW)


@pytest.mark.parametrize("answer", [lambda data: data + bytes(1 << 20), lambda data: "text", lambda data: None])
@pytest.mark.parametrize("good_reads", [0, 3])
def test_file_objects_that_break_the_rules(answer, good_reads):
    class Broken(io.BytesIO):
        reads = 0

        def read(self, size=-1):
            self.reads += 1
            data = super().read(size)
            return data if self.reads <= good_reads else answer(data)

    buffer = io.BytesIO()
    soundfile.write(buffer, np.tile(LOW, 20), 16000, format="WAV")
    with pytest.raises(ValueError, match=r"x\.wav: its `read"):
        load_audio(Broken(buffer.getvalue()), name="x.wav")


def test_what_cannot_seek_is_read(tmp_path):
    path = write_audio(tmp_path / "x.mp4", tone(2.0), 44100, "aac")
    reader, writer = os.pipe()

    def feed():
        with os.fdopen(writer, "wb") as file:
            file.write(path.read_bytes())

    feeding = threading.Thread(target=feed)
    feeding.start()
    with os.fdopen(reader, "rb") as file:
        assert np.array_equal(load_audio(file), load_audio(path))
    feeding.join()


def test_a_file_is_read_from_where_it_stands(tmp_path):
    path = write_audio(tmp_path / "x.mp4", tone(2.0), 44100, "aac")
    file = io.BytesIO(b"header" + path.read_bytes())
    file.seek(6)
    assert np.array_equal(load_audio(file), load_audio(path))


@pytest.mark.parametrize(
    "pair",
    [(16000, LOW), (LOW, 16000), (np.int64(16000), LOW), (LOW, 16000.0), (torch.from_numpy(LOW)[None], 16000)],
)
def test_pairs_of_samples_and_rate(pair):
    assert np.array_equal(load_audio(pair), LOW)


def test_big_endian_integers():
    samples = (LOW * 32767).astype(np.int16)
    assert np.array_equal(load_audio(samples.astype(">i2"), 16000), load_audio(samples, 16000))
    assert np.array_equal(load_audio(LOW.astype(">f4"), 16000), LOW)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "samples",
    [
        torch.ones(100, device="meta"),
        torch.ones(10, 10).to_sparse(),
        torch.ones(100).to(torch.float8_e4m3fn),
        torch.ones(100, dtype=torch.complex64),
        torch.ones(100, dtype=torch.bool),
        memoryview(b"abcd" * 100)[::2],
    ],
    ids=["meta", "sparse", "fp8", "complex", "bool", "memoryview"],
)
def test_exotic_samples_are_refused(samples):
    with pytest.raises(ValueError, match="audio"):
        load_audio(samples, 16000)


@pytest.mark.parametrize("limit", [10**400, -(10**400), "long", [1]])
def test_impossible_limits(limit):
    with pytest.raises(ValueError, match="max_duration_s"):
        load_audio(LOW, 16000, max_duration_s=limit)


@pytest.mark.parametrize("address", ["https://example.org/x.wav", "s3://bucket/x.wav", "hf://datasets/a/b/x.wav"])
def test_addresses_are_not_fetched(address):
    with pytest.raises(ValueError, match="download it first"):
        load_audio(address)


@pytest.mark.parametrize(
    ("beginning", "kind"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"#EXTM3U\nhttps://example.org/a.ts\n", "playlist"),
        (b"MThd\x00\x00\x00\x06", "MIDI"),
        (b"TTA1\x01\x00", "True Audio"),
        (b"PK\x03\x04", "ZIP"),
    ],
)
def test_files_of_other_kinds_are_named(beginning, kind, tmp_path):
    (tmp_path / "x.wav").write_bytes(beginning * 20)
    with pytest.raises(ValueError, match=rf"x\.wav: .*{kind}"):
        load_audio(tmp_path / "x.wav")


@pytest.mark.parametrize(("name", "codec", "container"), [("x.eac3", "eac3", "eac3"), ("x.flv", "aac", "flv")])
def test_formats_of_streams_and_old_videos(name, codec, container, tmp_path):
    path = write_audio(tmp_path / name, tone(2.0), 44100, codec, container)
    assert rms(load(path)[0]) == pytest.approx(0.5 / 2**0.5, rel=0.1)


def test_what_is_no_ordinary_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.wav")
    with pytest.raises(ValueError, match="no ordinary file"):
        load_audio(tmp_path / "x.wav")
