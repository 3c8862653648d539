"""
The mean of pipelines' weights (model soups, arXiv 2203.05482), such as of a checkpoint and what it was trained on to.

    python training/average_weights.py runs/before runs/after --output_dir runs/mean

All but weights is the first one's.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.files import atomic_folder
from avgas_training.command_line import run_script


@torch.no_grad()
def average(checkpoints: Sequence[str]) -> AVGASPipeline:
    """
    A pipeline with the mean of several pipelines' weights, in float32.

    Raises:
        ValueError: If there is but one, or their labels or models' shapes differ.
    """
    if len(checkpoints) < 2:
        raise ValueError("A mean needs two checkpoints at least.")
    pipe = AVGASPipeline.from_pretrained(checkpoints[0], dtype=torch.float32)
    means = {name: part.state_dict() for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    for number, checkpoint in enumerate(checkpoints[1:], start=2):
        other = AVGASPipeline.from_pretrained(checkpoint, dtype=torch.float32)
        if other.separator.id2label != pipe.separator.id2label:
            raise ValueError(f"{checkpoint}: its labels are not those of {checkpoints[0]}, in their order.")
        for name, mean in means.items():
            weights = getattr(other, name).state_dict() if getattr(other, name) is not None else {}
            if {key: value.shape for key, value in weights.items()} != {key: x.shape for key, x in mean.items()}:
                raise ValueError(f"{checkpoint}: its {name} has not the shapes of {checkpoints[0]}'s.")
            for key, value in mean.items():
                # Counters of batch norms stay as they are.
                if value.is_floating_point():
                    value.lerp_(weights[key], 1 / number)
    return pipe


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", help="folders or Hub repositories of pipelines")
    parser.add_argument("--output_dir", type=Path, required=True, help="a new folder")
    args = parser.parse_args(argv)
    with atomic_folder(args.output_dir) as folder:
        average(args.checkpoints).save_pretrained(folder)


if __name__ == "__main__":
    run_script(main)
