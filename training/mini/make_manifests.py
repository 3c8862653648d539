"""
Write the standard evaluation manifests of soundscapes-mini's test split: every sound alone, and 500 mixtures each of
two and of three sources, drawn evenly over source groups.

    python training/mini/make_manifests.py data/soundscapes-mini
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from avgas_pipeline.data.mixtures import MixtureSampler
from avgas_pipeline.data.plans import write_manifest
from avgas_pipeline.data.soundscapes_mini import load_soundscapes_mini


NUM_MIXTURES = 500


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="the folder of soundscapes-mini")
    dataset = parser.parse_args(argv).dataset
    sampler = MixtureSampler(*load_soundscapes_mini(dataset, "test"), seed=0, balance="source_group")
    write_manifest([sampler.plan_single(clip) for clip in sampler.clips["id"]], dataset / "manifests/test-1.jsonl")
    for count in (2, 3):
        plans = [sampler.plan(index, epoch=count, num_sources=count) for index in range(NUM_MIXTURES)]
        write_manifest(plans, dataset / f"manifests/test-{count}.jsonl")


if __name__ == "__main__":
    main()
