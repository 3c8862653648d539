"""
Clips per second on one core: `avgas prepare`'s per-clip function against the usual way, two ffmpeg processes per clip,
one for the sound and one for a frame, on the same synthetic ten-second videos.

    python benchmarks/prepare.py    # needs the ffmpeg command
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

from avgas_pipeline.data.video import read_video_clip


NUM_CLIPS = 24
SECONDS, RATE, WIDTH, HEIGHT = 10, 25, 340, 256


def make_video(path: Path, seed: int) -> None:
    """Ten seconds of VGGSound's size: moving texture in H.264 or MPEG-4, and AAC sound at 44.1 kHz."""
    rng = np.random.default_rng(seed)
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    texture = rng.integers(0, 255, (HEIGHT // 8, WIDTH // 4, 3)).repeat(8, axis=0).repeat(8, axis=1).astype(np.uint8)
    with av.open(str(path), "w") as file:
        video = file.add_stream(codec, rate=RATE)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = file.add_stream("aac", rate=44100, layout="stereo")
        audio.codec_context.open(strict=False)
        for number in range(SECONDS * RATE):
            picture = np.ascontiguousarray(texture[:, number : number + WIDTH])
            file.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(video.encode(None))
        sound = (0.1 * rng.standard_normal((2, SECONDS * 44100))).astype(np.float32)
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


def rate(function: Callable[[Path], object], paths: list[Path]) -> float:
    function(paths[0])
    start = time.perf_counter()
    for path in paths:
        function(path)
    return len(paths) / (time.perf_counter() - start)


def main() -> int:
    if shutil.which("ffmpeg") is None:
        print("the baseline needs the ffmpeg command", file=sys.stderr)
        return 2
    # One core for everything, the baseline's processes included.
    os.sched_setaffinity(0, {0})
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{number:03d}.mp4") for number in range(NUM_CLIPS)]
        for number, path in enumerate(paths):
            make_video(path, number)
        baseline = rate(two_processes, paths)
        ours = rate(read_video_clip, paths)
    print(f"two ffmpeg processes  {baseline:6.1f} clips/s per core")
    print(f"avgas prepare         {ours:6.1f} clips/s per core  ({ours / baseline:.1f} times)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
