"""Whatever is wrong with one clip is no matter for the others."""

import io
import json
import os
import tarfile

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from test_cli import fails_with_one_line
from test_prepare import prepare
from vggsound_tree import GOOD, add, make_clip

from avgas_pipeline.data.builder import VGGSound
from avgas_pipeline.data.report import read_report
from avgas_pipeline.data.video import SkipClipError, read_video_clip


FIRST, SECOND, *_ = GOOD
BROKEN = "changing000_000010"


def transport_stream(seconds, tracks, first_pid):
    """An MPEG-TS with a film and sound tracks, whose streams are numbered from `first_pid` on."""
    buffer = io.BytesIO()
    options = {"mpegts_start_pid": str(first_pid), "mpegts_pmt_start_pid": str(first_pid + 1000)}
    with av.open(buffer, "w", format="mpegts", options=options) as file:
        film = file.add_stream("mpeg2video", rate=25)
        film.width, film.height, film.pix_fmt = 96, 64, "yuv420p"
        sounds = [file.add_stream("mp2", rate=44100, layout="mono") for _ in range(tracks)]
        scene = np.random.default_rng(0).integers(0, 255, (64, 96, 3)).astype(np.uint8)
        for number in range(25 * seconds):
            picture = np.roll(scene, 3 * number, axis=1)
            file.mux(film.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        time = np.arange(1152) / 44100
        tone = (8000 * np.sin(2 * np.pi * 300 * time)).astype(np.int16)[None]
        for sound in sounds:
            for _ in range(44100 * seconds // 1152):
                frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
                frame.sample_rate = 44100
                file.mux(sound.encode(frame))
        for stream in (film, *sounds):
            file.mux(stream.encode(None))
    return buffer.getvalue()


def written(out):
    """Ids of the clips in the training shards."""
    return [clip for path in sorted(out.glob("train-*.parquet")) for clip in pq.read_table(path)["id"].to_pylist()]


@pytest.fixture(scope="module")
def changing():
    """Its tables change after six seconds: the demuxer raises an IndexError."""
    return transport_stream(6, 1, 0x100) + transport_stream(3, 2, 0x300)


@pytest.fixture(params=["folder", "archive"])
def data(request, changing, clips, tmp_path):
    """A broken clip before a good one."""
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [f"{name[:11]},{name[12:]},thunder,train\n" for name in (BROKEN, SECOND)]
    (folder / "vggsound.csv").write_text("".join(rows))
    # The best frame is behind the change.
    (folder / "moments.json").write_text(json.dumps({f"{BROKEN[:11]}_10000_20000": [80, *range(9)]}))
    contents = {BROKEN: changing, SECOND: clips[SECOND]}
    if request.param == "folder":
        for name, content in contents.items():
            (folder / f"{name}.mp4").write_bytes(content)
    else:
        with tarfile.open(folder / "a.tar.gz", "w:gz") as archive:
            for name, content in contents.items():
                add(archive, f"{name}.mp4", content)
    return folder


def test_tables_that_change_midway_break_one_clip(data, tmp_path):
    moments = data / "moments.json"
    builder = VGGSound(data_dir=str(data), moments=str(moments), report=str(tmp_path / "report.jsonl"))
    assert [row["id"] for row in builder.as_streaming_dataset("train")] == [SECOND]
    (entry,) = read_report(tmp_path / "report.jsonl")
    assert (entry["clip"], entry["reason"]) == (BROKEN, "broken") and "list index out of range" in entry["detail"]

    result = prepare(data, tmp_path / "out", "--moments", moments)
    assert result.exit_code == 0 and "1 skipped: broken 1" in result.output
    assert read_report(tmp_path / "out/report.jsonl") == [entry]
    assert written(tmp_path / "out") == [SECOND]


class Raising(os.PathLike):
    """A file that can't be read."""

    def __init__(self, error):
        self.error = error

    def __fspath__(self):
        raise self.error


@pytest.mark.parametrize("error", [MemoryError(), IndexError("no such stream"), OSError("I/O error"), RuntimeError()])
def test_any_error_breaks_the_clip(error):
    with pytest.raises(SkipClipError, match=type(error).__name__) as skipped:
        read_video_clip(Raising(error))
    assert skipped.value.reason == "broken"


def test_an_interruption_interrupts():
    with pytest.raises(KeyboardInterrupt):
        read_video_clip(Raising(KeyboardInterrupt()))


@pytest.mark.parametrize(("good", "broken"), [("mp4", "webm"), ("webm", "mp4"), ("mkv", "avi")])
def test_another_file_of_the_same_clip_is_tried(good, broken, clips, tmp_path):
    (tmp_path / "vggsound.csv").write_text(f"{FIRST[:11]},{FIRST[12:]},thunder,train\n")
    (tmp_path / f"{FIRST}.{good}").write_bytes(clips[FIRST])
    (tmp_path / f"{FIRST}.{broken}").write_bytes(b"no video")
    builder = VGGSound(data_dir=str(tmp_path))
    assert [row["id"] for row in builder.as_streaming_dataset("train")] == [FIRST]
    assert not builder.skipped.counts


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_a_clip_that_is_broken_in_one_file_alone_is_not_reported(kind, clips, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "vggsound.csv").write_text(f"{FIRST[:11]},{FIRST[12:]},thunder,train\n")
    files = {f"{FIRST}.avi": b"no video", f"{FIRST}.mp4": clips[FIRST]}
    if kind == "folder":
        for name, content in files.items():
            (folder / name).write_bytes(content)
    else:
        with tarfile.open(folder / "a.tar", "w") as archive:
            for name, content in files.items():
                add(archive, name, content)
    result = prepare(folder, tmp_path / "out")
    assert result.exit_code == 0 and "nothing skipped" in result.output, result.output
    assert written(tmp_path / "out") == [FIRST]


def test_all_files_of_a_clip_may_be_broken(tmp_path):
    (tmp_path / "vggsound.csv").write_text(f"{FIRST[:11]},{FIRST[12:]},thunder,train\n")
    for suffix in ("mp4", "webm"):
        (tmp_path / f"{FIRST}.{suffix}").write_bytes(b"no video")
    builder = VGGSound(data_dir=str(tmp_path))
    assert list(builder.as_streaming_dataset("train")) == []
    assert builder.skipped.counts == {"broken": 1}


def test_videos_that_are_not_named_as_clips(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "vggsound.csv").write_text(f"{FIRST[:11]},{FIRST[12:]},thunder,train\n")
    fails_with_one_line(prepare(data, tmp_path / "out"), data, "holds no videos")
    for name in (FIRST[:11], SECOND[:11]):
        (data / f"{name}.mp4").touch()
    fails_with_one_line(prepare(data, tmp_path / "out"), data, "holds 2 videos, none named <id>_<start>")
    (data / f"{SECOND}.mp4").touch()
    fails_with_one_line(prepare(data, tmp_path / "out"), data, "holds 1 clips, none of those annotated")
    (data / f"{SECOND}.mp4").unlink()
    with pytest.raises(ValueError, match="holds 2 videos, none named"):
        VGGSound(data_dir=str(data)).as_streaming_dataset("train")


def test_a_name_with_a_colon_is_no_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "12:30.mp4").write_bytes(make_clip(1))
    assert read_video_clip("12:30.mp4").duration > 2
