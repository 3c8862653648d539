"""
How many five-second mixtures of two sources one core makes per second, with and without augmentation.

    python benchmarks/mixtures.py

The baseline, measured in the same run, decodes and adds two clips for every mixture, which is what a data loader
without cache and loudness does. The samplers' clips are in their caches; what decoding one of ten seconds takes, from
FLAC at 16 kHz as `avgas prepare` writes it, comes on top for larger data sets.
"""

import io
import time
from collections.abc import Callable

import numpy as np
import soundfile
import torch

from avgas_pipeline.audio.loading import load_audio
from avgas_pipeline.data.mixtures import MixtureSampler
from avgas_pipeline.data.soundscapes_mini import load_soundscapes_mini


NUM_MIXTURES = 300


def rate(make: Callable[[int], object]) -> float:
    """Calls per second, the caches being warm."""
    for index in range(NUM_MIXTURES):
        make(index)
    start = time.perf_counter()
    for index in range(NUM_MIXTURES):
        make(index)
    return NUM_MIXTURES / (time.perf_counter() - start)


def main() -> None:
    torch.set_num_threads(1)
    sounds, _ = load_soundscapes_mini(split="train")
    samplers = {
        "plain": MixtureSampler(sounds, num_sources=2),
        "augmented": MixtureSampler(sounds, num_sources=2, augment=True),
    }
    rows = {clip: row for row, clip in enumerate(sounds["id"])}

    def decode_and_add(index: int) -> np.ndarray:
        mixture = np.zeros(5 * 16000, np.float32)
        for source in samplers["plain"].plan(index).sources:
            clip = load_audio(sounds[rows[source.clip]]["audio"])[: len(mixture)]
            mixture[: len(clip)] += clip
        return mixture

    baseline = rate(decode_and_add)
    print(f"decode and add      {baseline:8.0f} mixtures/s")
    for name, sampler in samplers.items():
        measured = rate(sampler.sample)
        print(f"{name:<20}{measured:8.0f} mixtures/s  ({measured / baseline:.1f} times the baseline)")

    file = io.BytesIO()
    waveforms = [samplers["plain"].sample(index).waveform for index in range(2)]
    soundfile.write(file, np.concatenate(waveforms), 16000, format="FLAC", subtype="PCM_16")
    for target in (16000, 48000):
        measured = rate(lambda _, target=target: load_audio(file.getvalue(), target_sampling_rate=target))
        print(f"{f'10 s at {target // 1000} kHz':<20}{measured:8.0f} clips/s decoded")


if __name__ == "__main__":
    main()
