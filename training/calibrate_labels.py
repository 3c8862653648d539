"""
Scale a separator's label logits so that its labels are right as often as their scores say, on recordings held out.

    python training/calibrate_labels.py runs/separator --clips runs/sounds/held-out --output_dir runs/calibrated

The clips, each alone and in mixtures of two, are encoded once. Label logits are multiplied by one number, from 0.5 to
3: the smallest whose calibration error of `score * label_score`, over all labels that are given, is within three
points of the least, since a label that is too sure does more harm than one that is not sure enough. Which label is
the most probable hardly changes. No other weight changes; what draws labels is scaled along, so that pictures stay as
they are. An interrupted run begins anew.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tqdm.auto import tqdm

from avgas_pipeline import AudioVisualSeparator, AVGASPipeline
from avgas_pipeline.data.clips import load_clips
from avgas_pipeline.data.mixtures import MixtureSampler
from avgas_pipeline.files import atomic_folder
from avgas_pipeline.metrics.sound import LabelCalibrationError
from avgas_pipeline.models.separator import UNKNOWN_LABEL
from avgas_pipeline.separation.encoding import WindowViews, average_views, encode_views
from avgas_pipeline.separation.tracking import track
from avgas_training.command_line import run_script


FACTORS = tuple(number / 10 for number in range(5, 31))
# Of the calibration error.
SLACK = 0.03
Encoded = list[tuple[list[str], list[WindowViews]]]


def encode_clips(pipe: AVGASPipeline, mixtures: MixtureSampler, num_mixtures: int) -> Encoded:
    """Every clip alone and mixtures of two: true labels, and the views of their windows."""
    groups = mixtures.clip_table.groups.values()
    clips = sorted(clip for label in groups for group in label for clip in group)
    plans = [mixtures.plan_single(clip) for clip in clips]
    plans += [mixtures.plan(number, num_sources=2) for number in range(num_mixtures)]
    models, encoded = pipe.audio_models(), []
    for plan in tqdm(plans, desc="Encoding clips and mixtures", unit="soundscape"):
        mixture = mixtures.render(plan)
        views = [views for _, views in encode_views([models.cut_windows(mixture.waveform)], models)]
        labels = [label for label in mixture.labels if label != UNKNOWN_LABEL]
        encoded.append((labels, [replace(each, mask_logits=None) for each in views]))
    return encoded


def calibration_error(encoded: Encoded, id2label: dict[int, str], factor: float) -> float:
    """Of all labels that are given if label logits are multiplied by a factor."""
    found, scores = [], []
    for _, views in encoded:
        scaled = [replace(each, class_probs=_scaled(each.class_probs, factor)) for each in views]
        sources = track(map(average_views, scaled))
        labels = [id2label[source.label_index] for source in sources]
        found.append([None if label == UNKNOWN_LABEL else label for label in labels])
        scores.append(
            [source.score * float(source.class_probs.max() / source.class_probs.sum()) for source in sources]
        )
    error = LabelCalibrationError()
    error.update(found, scores, [labels for labels, _ in encoded])
    return float(error.compute())


def _scaled(probs: torch.Tensor, factor: float) -> torch.Tensor:
    """Probabilities of logits multiplied by a factor."""
    powers = probs.double() ** factor
    return (powers / powers.sum(dim=-1, keepdim=True)).to(probs)


@torch.no_grad()
def scale_labels(separator: AudioVisualSeparator, factor: float) -> None:
    """Multiply label logits by a factor, and keep what is drawn of them."""
    separator.class_head.weight *= factor
    separator.class_head.bias *= factor
    if separator.tag_evidence is not None:
        separator.tag_evidence.label_weight *= factor
        separator.tag_evidence.label_proj.weight *= factor
    if separator.config.label_temperature is not None:
        separator.register_to_config(label_temperature=separator.config.label_temperature * factor)


@torch.no_grad()
def calibrate(pipe: AVGASPipeline, mixtures: MixtureSampler, num_mixtures: int) -> float:
    """
    Scale the label logits to nearly the least calibration error.

    Args:
        pipe ([`AVGASPipeline`]): Is changed.
        mixtures ([`MixtureSampler`]): Over recordings that it was not trained on.
        num_mixtures (`int`): Mixtures of two, beside each clip alone.

    Returns:
        `float`: the factor.
    """
    encoded = encode_clips(pipe, mixtures, num_mixtures)
    errors = {factor: calibration_error(encoded, pipe.separator.id2label, factor) for factor in FACTORS}
    best = next(factor for factor, error in errors.items() if error <= min(errors.values()) + SLACK)
    for factor, error in errors.items():
        print(f"{factor:.1f}  calibration error {100 * error:.1f} %{'  *' if factor == best else ''}")
    scale_labels(pipe.separator, best)
    return best


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="folder or Hub repository of a pipeline")
    parser.add_argument("--clips", type=Path, required=True, help="recordings that it was not trained on")
    parser.add_argument("--output_dir", type=Path, required=True, help="a new folder")
    parser.add_argument("--num_mixtures", type=int, default=200, help="of two clips")
    parser.add_argument("--seed", type=int, default=0, help="of the mixtures")
    args = parser.parse_args(argv)
    if args.num_mixtures < 1:
        raise ValueError(f"`num_mixtures` has to be 1 or more but is {args.num_mixtures}.")
    with atomic_folder(args.output_dir) as folder:
        pipe = AVGASPipeline.from_pretrained(args.checkpoint, dtype=torch.float32)
        window = {"duration_s": pipe.window_s, "sampling_rate": pipe.sampling_rate}
        mixtures = MixtureSampler(load_clips(args.clips)[0], seed=args.seed, target=None, **window)
        factor = calibrate(pipe, mixtures, args.num_mixtures)
        pipe.save_pretrained(folder)
    print(f"{args.output_dir}: label logits times {factor:g}")


if __name__ == "__main__":
    run_script(main)
