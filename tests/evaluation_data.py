"""A checkpoint, a judge and a manifest over soundscapes-mini, evaluated in seconds; and `avgas evaluate` over them."""

import json
from dataclasses import replace
from pathlib import Path

from tiny import save_tiny_judge, tiny_components, tiny_separator
from typer.testing import CliRunner

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.cli import app
from avgas_pipeline.data.mixtures import MixtureSampler
from avgas_pipeline.data.plans import write_manifest
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


def arguments(inputs, out, *options, **changed):
    """Of `avgas evaluate`, with two steps and batches of two."""
    values = {
        "model": inputs / "model",
        "data": DATA,
        "judge": inputs / "judge",
        "manifest": inputs / "manifest.jsonl",
        "steps": 2,
        "batch_size": 2,
        "out": out,
        **changed,
    }
    named = [f"--{name.replace('_', '-')}={value}" for name, value in values.items() if value is not None]
    return ["evaluate", *named, *map(str, options)]


def run(inputs, out, *options, **changed):
    """Evaluates in this process."""
    return CliRunner().invoke(app, arguments(inputs, out, *options, **changed))


def report_of(out):
    return json.loads((out / "report.json").read_text())


def fails(result, *words):
    """It has to be one line that has these words."""
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("avgas: error:")]
    assert len(errors) == 1
    for word in words:
        assert str(word) in errors[0]


def drawn(out):
    """When each batch of each system appeared."""
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in out.glob("systems/*/*/records.json")}
