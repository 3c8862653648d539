"""A checkpoint, a judge and a manifest over soundscapes-mini, small enough to evaluate in seconds."""

from dataclasses import replace
from pathlib import Path

from tiny import save_tiny_judge, tiny_components, tiny_separator

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.data.mixtures import MixtureSampler, write_manifest
from avgas_pipeline.data.soundscapes_mini import find_soundscapes_mini, load_soundscapes_mini


DATA = find_soundscapes_mini()


def write_evaluation_inputs(folder: Path, num_mixtures: int = 6) -> Path:
    """`model`, `single-embedding` and `no-masks` beside it, `judge`, and `manifest.jsonl`."""
    sounds, pictures = load_soundscapes_mini(DATA, "test")
    id2label = dict(enumerate(sorted(set(sounds["label"]))))
    separators = {
        "model": {},
        "single-embedding": {"num_slots": 1, "num_layers": 0},
        "no-masks": {"mask_channels": 0},
    }
    for name, config in separators.items():
        components = tiny_components()
        components["separator"] = tiny_separator(id2label=id2label, **config)
        AVGASPipeline(**components).save_pretrained(folder / name)
    save_tiny_judge(folder / "judge", list(id2label.values()))
    sampler = MixtureSampler(sounds, pictures, num_sources=2, duration_s=1.0, balance="source_group")
    plans = [replace(sampler.plan(number), id=f"mixture {number}") for number in range(num_mixtures)]
    write_manifest(plans, folder / "manifest.jsonl")
    return folder
