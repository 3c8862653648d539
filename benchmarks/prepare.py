"""
Clips per second on one core, on the same synthetic ten-second videos: layouts as streams against the usual way, two
ffmpeg processes per clip, one for the sound and one for a frame. Then memory: how much it grows from the 200th to the
2,000th clip of a stream, of short ones.

    python benchmarks/prepare.py    # needs the ffmpeg command
"""

import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import datasets
import numpy as np
import psutil
from datasets import ClassLabel, Features, Value

from avgas_pipeline.data.builder import ClipDataset


NUM_CLIPS = 24
# Of the streams whose memory is watched, and from where on.
MANY, WARM = 2000, 200
LABELS = ["dog barking", "raining"]
SECONDS, RATE, WIDTH, HEIGHT = 10, 25, 340, 256


def make_video(path: Path, seed: int, seconds: int = SECONDS) -> None:
    """Ten seconds, or fewer, of VGGSound's size: moving texture in H.264 or MPEG-4, and AAC sound at 44.1 kHz."""
    rng = np.random.default_rng(seed)
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    texture = rng.integers(0, 255, (HEIGHT // 8, WIDTH // 4, 3)).repeat(8, axis=0).repeat(8, axis=1).astype(np.uint8)
    with av.open(str(path), "w") as file:
        video = file.add_stream(codec, rate=RATE)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = file.add_stream("aac", rate=44100, layout="stereo")
        audio.codec_context.open(strict=False)
        for number in range(seconds * RATE):
            picture = np.ascontiguousarray(texture[:, number : number + WIDTH])
            file.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(video.encode(None))
        sound = (0.1 * rng.standard_normal((2, seconds * 44100))).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout="stereo")
        frame.sample_rate = 44100
        resampler = av.AudioResampler("fltp", "stereo", 44100, frame_size=audio.codec_context.frame_size)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(audio.encode(piece))
        file.mux(audio.encode(None))


def two_processes(path: Path) -> None:
    """The usual way: one ffmpeg for mono 16 kHz sound, one for the middle frame."""
    quiet = ["ffmpeg", "-y", "-loglevel", "error", "-threads", "1"]
    subprocess.run([*quiet, "-i", path, "-vn", "-ac", "1", "-ar", "16000", path.with_suffix(".wav")], check=True)
    subprocess.run([*quiet, "-ss", "5", "-i", path, "-frames:v", "1", path.with_suffix(".jpg")], check=True)


def name_of(number: int) -> str:
    return f"clip{number:07d}_{number:06d}"


def vggsound(folder: Path, videos: list[Path]) -> None:
    """`vggsound.csv` and videos."""
    rows = [f"{name_of(number)[:11]},{number},{LABELS[number % 2]},train" for number in range(len(videos))]
    (folder / "vggsound.csv").write_text("\n".join(rows) + "\n")
    for number, path in enumerate(videos):
        os.link(path, folder / f"{name_of(number)}.mp4")


def folder_per_clip(folder: Path, videos: list[Path]) -> None:
    """`metadata.csv` and a folder for each video."""
    with (folder / "metadata.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("file_name", "text"))
        for number, path in enumerate(videos):
            inner = folder / "video" / name_of(number)
            inner.mkdir(parents=True)
            os.link(path, inner / "video.mp4")
            table.writerow((f"video/{inner.name}/video.mp4", LABELS[number % 2]))


def class_folders(folder: Path, videos: list[Path]) -> None:
    """A folder for each label."""
    for number, path in enumerate(videos):
        inner = folder / LABELS[number % 2]
        inner.mkdir(exist_ok=True)
        os.link(path, inner / f"{number}.mp4")


def parquet(folder: Path, videos: list[Path]) -> None:
    """Parquet with videos and numbers of labels, shards of a hundred clips."""
    stored = {"video": {"bytes": Value("binary"), "path": Value("string")}, "label": ClassLabel(names=LABELS)}
    for start in range(0, len(videos), 100):
        part = videos[start : start + 100]
        rows = {
            "video": [{"bytes": path.read_bytes(), "path": None} for path in part],
            "label": [number % 2 for number in range(len(part))],
        }
        table = datasets.Dataset.from_dict(rows, features=Features(stored))
        table = table.cast(Features({"video": datasets.Video(), "label": ClassLabel(names=LABELS)}))
        table.to_parquet(folder / f"train-{start:05d}.parquet")


LAYOUTS: dict[str, Callable[[Path, list[Path]], None]] = {
    "VGGSound": vggsound,
    "folder per clip": folder_per_clip,
    "class folders": class_folders,
    "Parquet": parquet,
}


def clips_of(folder: Path) -> Iterator[dict[str, Any]]:
    return iter(ClipDataset(data_dir=str(folder)).as_streaming_dataset("train"))


def rate(clips: Iterator[object]) -> float:
    """Clips per second, but for the first one."""
    next(clips)
    start = time.perf_counter()
    count = sum(1 for _ in clips)
    return count / (time.perf_counter() - start)


def growth(folder: Path) -> float:
    """Of this process's memory over a long stream, in MiB."""
    process = psutil.Process()
    for number, _ in enumerate(clips_of(folder)):
        if number == WARM:
            before = process.memory_info().rss
    assert number == MANY - 1
    return (process.memory_info().rss - before) / 2**20


def main() -> int:
    if shutil.which("ffmpeg") is None:
        print("the baseline needs the ffmpeg command", file=sys.stderr)
        return 2
    # One core for everything, the baseline's processes included.
    os.sched_setaffinity(0, {0})
    with tempfile.TemporaryDirectory() as root:
        videos = [Path(root, f"{number:03d}.mp4") for number in range(NUM_CLIPS)]
        for number, path in enumerate(videos):
            make_video(path, number)
        short = Path(root, "short.mp4")
        make_video(short, 0, seconds=1)
        baseline = rate(two_processes(path) for path in videos)
        print(f"two ffmpeg processes  {baseline:6.1f} clips/s per core")
        for name, write in LAYOUTS.items():
            few, many = Path(root, name, "few"), Path(root, name, "many")
            for folder, files in ((few, videos), (many, [short] * MANY)):
                folder.mkdir(parents=True)
                write(folder, files)
            ours = rate(clips_of(few))
            print(
                f"{name:<22}{ours:6.1f} clips/s per core  ({ours / baseline:.1f} times),"
                f" memory {growth(many):+.0f} MiB over {MANY - WARM} clips"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
