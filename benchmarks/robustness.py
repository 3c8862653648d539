"""
How far a model still hears what it heard when recordings come quieter, through a telephone, as MP3, in noise, in a
room: the labels that are found, as a ratio to those found in the recordings as they are, in one run.

    python benchmarks/robustness.py --model avgas-mini --data runs/wild --split train

Each clip is heard alone. A telephone passes 8 kHz; MP3 is at 64 kbit/s; noise is white, 20 dB below the recording; the
room is synthetic, its reverberation 0.7 s long and as strong as the direct sound; stereo has the sound on one side.
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr
import torch
from scipy.signal import fftconvolve
from tqdm.auto import tqdm

from avgas_pipeline import AVGASPipeline, load_audio
from avgas_pipeline.data.clips import load_clips
from avgas_pipeline.data.mixtures import MixtureSampler


LEVELS_DB = (-10, -20, -30, -40, -50)
NOISE_DB = -20
MP3_BIT_RATE = 64_000
REVERBERATION_S = 0.7
Waveform = np.ndarray


def quieter(level_db: float) -> Callable[[Waveform, int], Waveform]:
    """Turns a recording down, as samples of floating point."""
    return lambda waveform, rate: waveform * np.float32(10 ** (level_db / 20))


def telephone(waveform: Waveform, rate: int) -> Waveform:
    """At 8 kHz and back."""
    return soxr.resample(soxr.resample(waveform, rate, 8000), 8000, rate)


def mp3(waveform: Waveform, rate: int) -> Waveform:
    """Through an MP3 file."""
    wav, file = io.BytesIO(), io.BytesIO()
    soundfile.write(wav, waveform, rate, format="WAV", subtype="FLOAT")
    wav.seek(0)
    with av.open(wav) as source, av.open(file, "w", format="mp3") as target:
        stream = target.add_stream("libmp3lame", rate=rate, bit_rate=MP3_BIT_RATE, layout="mono")
        for frame in source.decode(audio=0):
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    return load_audio(file.getvalue(), target_sampling_rate=rate)


def noisy(waveform: Waveform, rate: int) -> Waveform:
    """White noise at a share of the recording's mean power."""
    noise = np.random.default_rng(0).standard_normal(len(waveform))
    return waveform + noise * np.sqrt(np.mean(np.square(waveform)) * 10 ** (NOISE_DB / 10))


def room(waveform: Waveform, rate: int) -> Waveform:
    """Noise that falls by 60 dB in the time of reverberation, behind the direct sound and as strong as that."""
    time = np.arange(round(REVERBERATION_S * rate)) / rate
    response = np.random.default_rng(0).standard_normal(len(time)) * 10 ** (-3 * time / REVERBERATION_S)
    response[0] = np.sqrt(np.sum(np.square(response[1:])))
    played = fftconvolve(waveform, response)[: len(waveform)]
    return 0.5 * played / np.abs(played).max()


def one_side(waveform: Waveform, rate: int) -> Waveform:
    """A stereo file with silence on one channel, mixed down as the loader does."""
    file = io.BytesIO()
    soundfile.write(file, np.stack([waveform, np.zeros_like(waveform)], axis=1), rate, format="WAV", subtype="FLOAT")
    return load_audio(file.getvalue(), target_sampling_rate=rate)


CONDITIONS: dict[str, Callable[[Waveform, int], Waveform]] = {
    "as it is": lambda waveform, rate: waveform,
    **{f"{level} dB": quieter(level) for level in LEVELS_DB},
    "telephone": telephone,
    "MP3": mp3,
    "noise": noisy,
    "room": room,
    "one side of stereo": one_side,
}


def heard(pipe: AVGASPipeline, waveform: Waveform) -> set[str]:
    """The labels in a recording; none where no source is present."""
    try:
        sources = pipe.separate_audio(waveform, pipe.sampling_rate, return_audio=False)[0]
    except ValueError:
        return set()
    return {source.label for source in sources if source.label is not None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="avgas-mini", help="folder or Hub repository of a pipeline")
    parser.add_argument("--data", type=Path, required=True, help="clips with labels")
    parser.add_argument("--split", default="train", help="of the data")
    parser.add_argument("--num_clips", type=int, help="only the first ones")
    args = parser.parse_args()
    pipe = AVGASPipeline.from_pretrained(args.model, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    clips, _ = load_clips(args.data, args.split)
    sampler = MixtureSampler(
        clips, num_sources=1, duration_s=pipe.window_s, sampling_rate=pipe.sampling_rate, target=None
    )
    numbers = range(min(args.num_clips or len(clips), len(clips)))
    mixtures = [sampler.render(sampler.plan_single(clips[number]["id"])) for number in numbers]
    reference: list[set[str]] = []
    first = 0.0
    for name, change in CONDITIONS.items():
        labels = [
            heard(pipe, np.asarray(change(mixture.waveform, pipe.sampling_rate), np.float32))
            for mixture in tqdm(mixtures, desc=name, unit="clip", leave=False)
        ]
        found = float(np.mean([mixture.labels[0] in own for mixture, own in zip(mixtures, labels, strict=True)]))
        reference, first = reference or labels, first or found
        same = float(np.mean([own == before for own, before in zip(labels, reference, strict=True)]))
        ratio = found / first if first else float("nan")
        print(f"{name:20} found {100 * found:5.1f} %  {ratio:.2f} x  the same labels {100 * same:5.1f} %", flush=True)


if __name__ == "__main__":
    main()
