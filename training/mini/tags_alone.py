"""
Have a separator name labels that it has no recordings of by its audio classifier's scores alone.

    python training/mini/tags_alone.py runs/calibrated --learnt runs/sounds/labelled data/soundscapes-mini/audio \\
        --clips runs/sounds/held-out --output_dir runs/tags-alone

Labels that never sound in training are unlearnt: they are always wrong. Here the logit of each of them becomes
`bias + weight * evidence`, with the classifier's evidence from 0 (a score of 0.001 or less) to 1 (see
`TagEvidence`), and nothing of what was learnt. Both numbers are chosen on clips that were held out: every clip's own
label is treated as if it had not been learnt, and they are those with which most are named, among those that spoil at
most one clip in fifty of what is named otherwise.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from datasets import Dataset
from tqdm.auto import tqdm

from avgas_pipeline import AudioVisualSeparator, AVGASPipeline
from avgas_pipeline.data.clips import load_clips
from avgas_pipeline.data.mixtures import MixtureSampler
from avgas_pipeline.files import atomic_folder
from avgas_pipeline.models.separator import UNKNOWN_LABEL


WEIGHTS = (8.0, 10.0, 12.0, 14.0)
# Below 0, so that labels without evidence take hardly any probability from others.
BIASES = tuple(float(bias) for bias in range(-6, 0))
# Of what is named without it.
MOST_SPOILT = 0.02
# What one clip says: the number of its label, label logits and evidence of its most probable slot.
Heard = tuple[int, torch.Tensor, torch.Tensor]


def never_heard(separator: AudioVisualSeparator, folders: Sequence[Path]) -> list[int]:
    """Numbers of the labels that no clip of Parquet tables in these folders has."""
    heard = {UNKNOWN_LABEL}
    for folder in folders:
        for path in sorted(folder.glob("*.parquet")):
            heard |= set(Dataset.from_parquet(str(path))["label"])
    return [number for number, label in separator.id2label.items() if label not in heard]


def listen(pipe: AVGASPipeline, mixtures: MixtureSampler) -> list[Heard]:
    """What every clip says, alone and at its own speed."""
    said: list[tuple[torch.Tensor, ...]] = []

    def note(module: torch.nn.Module, args: tuple, named: dict, output: tuple) -> None:
        presence, class_logits, slots = output[0], output[1], output[7]
        evidence = module.tag_evidence.named(
            slots, module.tag_evidence.frames(named["tag_logits"]), named["tag_logits"]
        )
        slot = int(presence[0].argmax())
        said.append((class_logits[0, slot].float(), evidence[0, slot].float()))

    hook = pipe.separator.register_forward_hook(note, with_kwargs=True)
    label2id = {label: number for number, label in pipe.separator.id2label.items()}
    heard = []
    groups = mixtures.clip_table.groups
    for label in tqdm([label for label in mixtures.labels if label in label2id], unit="label"):
        for clip in (clip for group in groups[label] for clip in group):
            said.clear()
            waveform = mixtures.render(mixtures.plan_single(clip)).waveform
            pipe.separate_audio(waveform, pipe.sampling_rate, num_sources=1, return_audio=False)
            heard.append((label2id[label], *said[0]))
    hook.remove()
    return heard


def named(heard: Sequence[Heard], unlearnt: Sequence[int], weight: float, bias: float, leave_out: bool) -> int:
    """How many clips are named rightly with these labels by evidence alone, and a clip's own one if it is left out."""
    right = 0
    for label, logits, evidence in heard:
        changed = logits.clone()
        numbers = [*unlearnt, *([label] if leave_out else [])]
        changed[numbers] = bias + weight * evidence[numbers]
        right += int(changed.argmax()) == label
    return right


def choose(heard: Sequence[Heard], unlearnt: Sequence[int]) -> tuple[float, float]:
    """Weight and bias, and a table of them."""
    before = sum(int(logits.argmax()) == label for label, logits, _ in heard)
    best, most = None, -1
    for weight in WEIGHTS:
        for bias in BIASES:
            kept = named(heard, unlearnt, weight, bias, leave_out=False)
            found = named(heard, unlearnt, weight, bias, leave_out=True)
            if kept >= before - MOST_SPOILT * len(heard) and found > most:
                best, most = (weight, bias), found
            print(
                f"weight {weight:4.0f}  bias {bias:3.0f}  named {kept} of {before}, unlearnt {found} of {len(heard)}"
            )
    if best is None:
        raise ValueError("Every weight spoils what is named otherwise.")
    return best


@torch.no_grad()
def name_by_tags(separator: AudioVisualSeparator, numbers: Sequence[int], weight: float, bias: float) -> None:
    """Leave nothing of labels but the evidence of their tags."""
    separator.class_head.weight[numbers] = 0
    separator.class_head.bias[numbers] = bias
    separator.tag_evidence.label_weight[numbers] = weight
    separator.tag_evidence.label_proj.weight[numbers] = 0


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="folder or Hub repository of a pipeline with tags")
    parser.add_argument("--learnt", type=Path, nargs="+", required=True, help="folders of the clips it learnt from")
    parser.add_argument("--clips", type=Path, required=True, help="recordings that it was not trained on")
    parser.add_argument("--output_dir", type=Path, required=True, help="a new folder")
    args = parser.parse_args(argv)
    try:
        pipe = AVGASPipeline.from_pretrained(args.checkpoint, dtype=torch.float32)
        if pipe.separator.tag_evidence is None:
            raise ValueError(f"{args.checkpoint}: its separator takes no tags.")
        unlearnt = never_heard(pipe.separator, args.learnt)
        window = {"duration_s": pipe.window_s, "sampling_rate": pipe.sampling_rate, "target": None}
        clips = MixtureSampler(load_clips(args.clips)[0], num_sources=1, **window)
        weight, bias = choose(listen(pipe, clips), unlearnt)
        name_by_tags(pipe.separator, unlearnt, weight, bias)
        with atomic_folder(args.output_dir) as folder:
            pipe.save_pretrained(folder)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(f"{args.output_dir}: {len(unlearnt)} labels by tags alone, weight {weight:g}, bias {bias:g}")


if __name__ == "__main__":
    main()
