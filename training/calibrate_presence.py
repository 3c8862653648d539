"""
Calibrate how many sources a separator finds, by mixtures of recordings that it did not learn from.

    python training/calibrate_presence.py --pretrained_model_name_or_path runs/separator --output_dir runs/calibrated

`validation_fraction` and `seed` have to be those of the run that trained it, so that the same recordings are held out.
Writes the checkpoint with the separator's `presence_calibration`; weights stay as they are.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.optimize
import torch
from config import parse_config, run_script, setting
from listening import Hearing
from soundscape_dataset import Collator, window_s
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from training_data import check_labels, hold_out_groups

from avgas_pipeline import AudioVisualSeparator, AudioVisualSeparatorOutput, AVGASPipeline
from avgas_pipeline.data.clips import load_clips
from avgas_pipeline.data.mixtures import MixtureSampler


@dataclass
class CalibrationConfig:
    """Settings of `calibrate_presence.py`."""

    pretrained_model_name_or_path: str | None = setting(None, "checkpoint: folder or Hub repository")
    output_dir: str = setting("runs/calibrated", "folder of the calibrated checkpoint")
    dataset: str = setting("data/soundscapes-mini", "folder or Hub repository; see load_clips")
    validation_fraction: float = setting(0.1, "of every label's source groups, which training held out")
    seed: int = setting(0, "of that choice and of the mixtures")
    num_sources: list[int] = setting([1, 3], "fewest and most sources of a mixture")
    num_mixtures: int = setting(1000, "mixtures to calibrate with, plain, not augmented")
    batch_size: int = setting(16, "mixtures at a time")


def main(argv: list[str] | None = None) -> None:
    config = parse_config(CalibrationConfig, __doc__, argv)
    if config.pretrained_model_name_or_path is None:
        raise ValueError("pretrained_model_name_or_path is needed: the checkpoint to calibrate.")
    if Path(config.output_dir, "model_index.json").exists():
        raise ValueError(f"{config.output_dir}: holds a checkpoint already.")
    pipe = AVGASPipeline.from_pretrained(config.pretrained_model_name_or_path, dtype=torch.float32)
    num_slots = pipe.separator.config.num_slots
    if not 1 <= config.num_sources[0] < config.num_sources[1] <= num_slots:
        raise ValueError(
            f"num_sources has to be two numbers from 1 to {num_slots}, the separator's slots, but is"
            f" {config.num_sources}."
        )
    logits, counts = hear_mixtures(pipe, config)
    separator = AudioVisualSeparator.from_config(
        pipe.separator.config, presence_calibration=fit_presence(logits, counts)
    )
    separator.load_state_dict(pipe.separator.state_dict())

    half = len(counts) // 2
    separator.register_to_config(presence_calibration=fit_presence(logits[:half], counts[:half]))
    before = count_accuracy(logits[half:], counts[half:])
    after = count_accuracy(separator.calibrate_presence(logits[half:]), counts[half:])
    print(f"of the second half, by the first: number of sources right {before:.3f} -> {after:.3f}")

    separator.register_to_config(presence_calibration=fit_presence(logits, counts))
    pipe.register_modules(separator=separator)
    pipe.save_pretrained(config.output_dir)


@torch.no_grad()
def hear_mixtures(pipe: AVGASPipeline, config: CalibrationConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Presence logits `(M, K)` of mixtures of held-out recordings, as they are, and how many sources those have."""
    clips, pictures = load_clips(config.dataset)
    label2id = check_labels(clips["label"], pipe.separator.id2label, config.pretrained_model_name_or_path)
    _, held_out = hold_out_groups(clips, config.validation_fraction, config.seed)
    if len(set(held_out["label"])) < config.num_sources[1]:
        raise ValueError(f"validation_fraction: {config.validation_fraction} holds out too few labels for a mixture.")
    extractor = pipe.audio_feature_extractor
    sampler = MixtureSampler(
        held_out,
        pictures,
        seed=config.seed,
        num_sources=tuple(config.num_sources),
        duration_s=window_s(extractor),
        sampling_rate=extractor.sampling_rate,
        target=None,
    )
    hearing = Hearing(pipe.audio_encoder, pipe.separator).eval()
    collate = Collator(extractor, pipe.audio_encoder, label2id, config.num_sources[1])
    mixtures = [sampler.plan(number) for number in range(config.num_mixtures)]
    loader = DataLoader(mixtures, config.batch_size, collate_fn=rendered(sampler, collate))
    heard, counts = [], []
    for batch in tqdm(loader, desc="hearing"):
        heard.append(AudioVisualSeparatorOutput(*hearing(batch["encoder"], None)).presence_logits)
        counts.append((batch["labels"] >= 0).sum(dim=1))
    return torch.cat(heard), torch.cat(counts)


def rendered(sampler: MixtureSampler, collate: Collator) -> Callable[[list], dict]:
    """A batch of plans."""
    return lambda plans: collate([sampler.render(plan) for plan in plans])


def fit_presence(logits: torch.Tensor, counts: torch.Tensor) -> list[list[float]]:
    """
    The rows of `presence_calibration`: logistic regressions (L2 penalty of 1, as scikit-learn's default) of there
    being at least 2 sources, 3 and so on, up to the most there are.

    Args:
        logits (`torch.Tensor` of shape `(M, K)`): Presence logits of mixtures.
        counts (`torch.Tensor` of shape `(M,)`): How many sources they have.
    """
    ranked = logits.double().sort(dim=1, descending=True).values.numpy()
    inputs = np.concatenate([ranked, np.ones((len(ranked), 1))], axis=1)
    rows = []
    for least in range(2, int(counts.max()) + 1):
        sign = np.where(counts.numpy() >= least, 1.0, -1.0)

        def loss(row: np.ndarray, sign: np.ndarray = sign) -> tuple[float, np.ndarray]:
            margin = sign * (inputs @ row)
            slope = -sign * scipy.special.expit(-margin)
            penalised = np.append(row[:-1], 0.0)
            return np.logaddexp(0, -margin).sum() + 0.5 * penalised @ penalised, slope @ inputs + penalised

        found = scipy.optimize.minimize(loss, np.zeros(inputs.shape[1]), jac=True, method="L-BFGS-B")
        rows.append(found.x.round(4).tolist())
    return rows


def count_accuracy(logits: torch.Tensor, counts: torch.Tensor) -> float:
    """How often as many slots are present as there are sources, over numbers of sources."""
    right = ((logits >= 0).sum(dim=1) == counts).double()
    return float(torch.stack([right[counts == count].mean() for count in counts.unique()]).mean())


if __name__ == "__main__":
    run_script(main)
