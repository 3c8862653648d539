"""
What separated audio at the recording's own rate costs, and how good it is, against that of the model, in one run.

    python benchmarks/stems.py --mixtures 40

Mixtures of two sources of soundscapes-mini's test clips, as 48 kHz stereo files, are drawn and saved once with each.
Cost is the median time of a whole call with what it writes; quality the scale-invariant signal-to-distortion ratio
(SI-SDR) of each true source and the separated sound that is most like it, at the model's rate, in dB.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio as si_sdr

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.audio.loading import Recording, load_audio
from avgas_pipeline.audio.original import plain_track
from avgas_pipeline.data.mixtures import MixtureSampler
from avgas_pipeline.data.soundscapes_mini import find_soundscapes_mini, load_soundscapes_mini
from avgas_pipeline.results.outputs import save_results


RATE = 48000


def saved(pipe: AVGASPipeline, path: Path, out: Path, has_own_rate: bool) -> tuple[float, list[np.ndarray]]:
    """Seconds for a recording, from file to files, and the separated sounds at the model's rate."""
    start = time.perf_counter()
    waveform = load_audio(path, target_sampling_rate=pipe.sampling_rate)
    recording = Recording(path.name, waveform, pipe.sampling_rate)
    output = pipe(recording, separate=True, generator=torch.Generator().manual_seed(0))
    track = plain_track(path, duration_s=len(waveform) / pipe.sampling_rate) if has_own_rate else None
    files = save_results(output, waveform, pipe.sampling_rate, out, recording=track)
    seconds = time.perf_counter() - start
    sounds = []
    for file in files:
        if file.suffix == ".wav" and file.name != "rest.wav":
            samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
            sounds.append(soxr.resample(samples.mean(axis=1), rate, pipe.sampling_rate)[: len(waveform)])
    return seconds, sounds


def best(sounds: list[np.ndarray], true: np.ndarray) -> float:
    """SI-SDR of the sound that is most like a true one, in dB."""
    target = torch.from_numpy(true)
    return max(float(si_sdr(torch.from_numpy(sound[: len(true)]), target[: len(sound)])) for sound in sounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="avgas-mini", help="Checkpoint: a folder or a Hub repository.")
    parser.add_argument("--mixtures", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=10.0, help="Length of each.")
    args = parser.parse_args()
    pipe = AVGASPipeline.from_pretrained(args.model)
    pipe.set_progress_bar_config(disable=True)
    clips, _ = load_soundscapes_mini(find_soundscapes_mini(), "test")
    sampler = MixtureSampler(clips, None, num_sources=2, duration_s=args.seconds, target=None)
    times: dict[bool, list[float]] = {False: [], True: []}
    quality: dict[bool, list[float]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mixture.wav")
        for number in range(args.mixtures):
            mixture = sampler.render(sampler.plan(number))
            sound = soxr.resample(mixture.waveform, mixture.sampling_rate, RATE)
            soundfile.write(path, np.stack([sound, 0.5 * sound], axis=1), RATE, subtype="PCM_24")
            for has_own_rate in (False, True):
                seconds, sounds = saved(pipe, path, Path(folder, str(has_own_rate)), has_own_rate)
                times[has_own_rate].append(seconds)
                if sounds:
                    quality[has_own_rate] += [best(sounds, true) for true in mixture.stems]
    model, own = (statistics.median(times[kind]) for kind in (False, True))
    print(f"{args.mixtures} mixtures of {args.seconds:g} s, 48 kHz stereo")
    print(f"time: {model:.3f} s at the model's rate, {own:.3f} s at the recording's own: {own / model:.2f}x")
    model, own = (statistics.median(quality[kind]) for kind in (False, True))
    print(f"SI-SDR, median: {model:.2f} dB at the model's rate, {own:.2f} dB at the recording's own")


if __name__ == "__main__":
    main()
