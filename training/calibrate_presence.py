"""
Shift a separator's presence probabilities so that it counts the sources of unknown recordings better.

    python training/calibrate_presence.py runs/mini/separator --output_dir runs/mini/calibrated
    python training/calibrate_presence.py runs/mini/separator --clips runs/sounds/held-out --output_dir runs/calibrated

A separator is surer of the recordings it learnt from than of others. These are clips that were held out, or else
training clips played 1.2 to 1.45 times as fast or as slow, which is more than training varies them. To the bias of the
presence head one number is added, from -1 to 1: the one with which the number of sources is right in most of their
mixtures of one, two and three sources. No other weight changes. The result is in float32, without model card and LoRA
layers. An interrupted run begins anew.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch
from tqdm.auto import tqdm

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.audio.loading import load_audio
from avgas_pipeline.data.clips import load_clips
from avgas_pipeline.data.mixtures import MixtureSampler
from avgas_pipeline.data.soundscapes_mini import load_soundscapes_mini
from avgas_pipeline.files import atomic_folder
from avgas_pipeline.separation.encoding import WindowViews, average_views, encode_views
from avgas_pipeline.separation.tracking import track
from avgas_training.command_line import run_script


SPEEDS = (1.2, 1.45)
NUM_SOURCES = (1, 2, 3)
# In logits; what is nearer to 0 wins where two count alike.
SHIFTS = sorted((number / 10 for number in range(-10, 11)), key=abs)


def at_other_speeds(clips: Sequence[dict[str, Any]], sampling_rate: int, seed: int) -> list[dict[str, Any]]:
    """Clips as a [`MixtureSampler`] takes them, each with its own speed and the pitch that follows."""
    varied = []
    for number, clip in enumerate(tqdm(clips, desc="Playing clips", unit="clip")):
        rng = np.random.default_rng([seed, number])
        factor = rng.uniform(*SPEEDS) ** rng.choice([-1, 1])
        waveform = load_audio(clip["audio"], target_sampling_rate=sampling_rate, name=clip["id"])
        played = soxr.resample(waveform, sampling_rate * factor, sampling_rate).astype(np.float32)
        audio = {"array": played, "sampling_rate": sampling_rate}
        varied.append({"source_group": None, **clip, "audio": audio})
    return varied


def encode_mixtures(
    pipe: AVGASPipeline, mixtures: MixtureSampler, num_mixtures: int
) -> list[tuple[int, list[WindowViews]]]:
    """Mixtures with each number of sources: that number, and the views of their windows."""
    encoded = []
    models = pipe.audio_models()
    for number in tqdm(range(num_mixtures * len(NUM_SOURCES)), desc="Encoding mixtures", unit="mixture"):
        num_sources = NUM_SOURCES[number % len(NUM_SOURCES)]
        waveform = mixtures.render(mixtures.plan(number, num_sources=num_sources)).waveform
        views = [views for _, views in encode_views([models.cut_windows(waveform)], models)]
        encoded.append((num_sources, [replace(each, mask_logits=None) for each in views]))
    return encoded


def counted_right(encoded: Sequence[tuple[int, list[WindowViews]]], shift: float) -> list[int]:
    """Of each number of sources, in how many mixtures so many are found if presence logits are shifted."""
    right = dict.fromkeys(NUM_SOURCES, 0)
    for num_sources, views in encoded:
        shifted = [replace(each, presence_logits=each.presence_logits + shift) for each in views]
        right[num_sources] += len(track(map(average_views, shifted))) == num_sources
    return list(right.values())


@torch.no_grad()
def calibrate(pipe: AVGASPipeline, clips: Sequence[Mapping[str, Any]], num_mixtures: int, seed: int = 0) -> float:
    """
    Shift the presence head's bias to where sources are counted best.

    Args:
        pipe ([`AVGASPipeline`]): Is changed.
        clips (`Sequence`): Recordings it was not trained on, as [`~avgas_pipeline.data.mixtures.MixtureSampler`]
            takes them; [`at_other_speeds`] makes such of others.
        num_mixtures (`int`): With each number of sources.
        seed (`int`, defaults to 0): Of speeds and mixtures.

    Returns:
        `float`: the shift, in logits.

    Raises:
        ValueError: If the separator has fewer slots than mixtures have sources.
    """
    if pipe.separator.config.num_slots < max(NUM_SOURCES):
        raise ValueError(f"The separator has {pipe.separator.config.num_slots} slots, fewer than {max(NUM_SOURCES)}.")
    mixtures = MixtureSampler(
        clips, seed=seed, duration_s=pipe.window_s, sampling_rate=pipe.sampling_rate, target=None
    )
    encoded = encode_mixtures(pipe, mixtures, num_mixtures)
    found = {shift: counted_right(encoded, shift) for shift in tqdm(SHIFTS, desc="Counting", unit="shift")}
    best = max(found, key=lambda shift: sum(found[shift]))
    for shift, right in sorted(found.items()):
        shares = " / ".join(f"{100 * count / num_mixtures:.1f}" for count in right)
        mean = 100 * sum(right) / len(encoded)
        print(f"{shift:+.1f}  {shares}  mean {mean:.1f}{'  *' if shift == best else ''}")
    pipe.separator.presence_head.bias += best
    return best


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="folder or Hub repository of a pipeline")
    parser.add_argument("--output_dir", type=Path, required=True, help="a new folder")
    parser.add_argument("--dataset", type=Path, default=Path("data/soundscapes-mini"), help="soundscapes-mini")
    parser.add_argument("--clips", type=Path, help="recordings that it was not trained on, instead of that")
    parser.add_argument("--num_mixtures", type=int, default=500, help="with each number of sources")
    parser.add_argument("--seed", type=int, default=0, help="of speeds and mixtures")
    args = parser.parse_args(argv)
    if args.num_mixtures < 1:
        raise ValueError(f"`num_mixtures` has to be 1 or more but is {args.num_mixtures}.")
    with atomic_folder(args.output_dir) as folder:
        pipe = AVGASPipeline.from_pretrained(args.checkpoint, dtype=torch.float32)
        pipe.set_progress_bar_config(disable=True)
        if args.clips is not None:
            clips: Sequence[Mapping[str, Any]] = load_clips(args.clips)[0]
        else:
            learnt = load_soundscapes_mini(args.dataset, "train")[0]
            clips = at_other_speeds(learnt, pipe.sampling_rate, args.seed)
        shift = calibrate(pipe, clips, args.num_mixtures, args.seed)
        pipe.save_pretrained(folder)
    print(f"-> {args.output_dir}: presence logits moved by {shift:+.1f}")


if __name__ == "__main__":
    run_script(main)
