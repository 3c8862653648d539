"""The recipe of avgas-mini goes from nothing to a checkpoint, and its results become a table."""

import dataclasses
import sys

import pytest
import torch
import train_mini
import yaml
from build_mini import SPEED_VARIATION
from results_table import results_table
from training_runs import TRAINING, launch

from avgas_pipeline import AVGASPipeline, YamnetEncoder, YamnetFeatureExtractor
from avgas_pipeline.data.soundscapes_mini import find_soundscapes_mini, load_soundscapes_mini
from avgas_pipeline.models.yamnet import YamnetConfig
from avgas_training.settings import (
    AutoencoderSettings,
    DistillSettings,
    DrawingSettings,
    GeneratorSettings,
    JudgeSettings,
    SeparatorSettings,
)


SMALL = {
    "max_train_steps": 1,
    "train_batch_size": 2,
    "num_examples": 8,
    "lr_warmup_steps": 0,
    "mixed_precision": "no",
    "num_validation_mixtures": 1,
    "num_validation_scenes": 1,
    "validation_fraction": 0.0,
}
SETTINGS = {
    "autoencoder": AutoencoderSettings,
    "distill": DistillSettings,
    "drawing": DrawingSettings,
    "generator": GeneratorSettings,
    "lora": GeneratorSettings,
    "image-teacher": JudgeSettings,
}


def recipes(folder):
    """The mini recipes, of one step each."""
    folder.mkdir()
    for path in TRAINING.glob("configs/mini-*.yaml"):
        settings_class = next((each for name, each in SETTINGS.items() if path.stem.endswith(name)), SeparatorSettings)
        known = {field.name for field in dataclasses.fields(settings_class)}
        small = {name: value for name, value in SMALL.items() if name in known}
        (folder / path.name).write_text(yaml.safe_dump({"base": str(path), **small}))
    return folder


@pytest.mark.slow
def test_from_nothing_to_a_checkpoint(tmp_path):
    encoder = YamnetEncoder(YamnetConfig(depth_multiplier=0.02))
    for part in (encoder, YamnetFeatureExtractor()):
        part.save_pretrained(tmp_path / "mini/audio-encoder")
    sounds, _ = load_soundscapes_mini()
    sounds = sounds.select(range(3)).select_columns(["id", "label", "source_group", "audio"])
    (tmp_path / "mini/synthetic-clips").mkdir()
    sounds.to_parquet(tmp_path / "mini/synthetic-clips/train.parquet")
    command = [
        sys.executable,
        TRAINING / "mini/train_mini.py",
        "--wheel",
        "none.whl",
        "--output_dir",
        tmp_path / "mini",
    ]
    command += ["--dataset", find_soundscapes_mini(), "--configs", recipes(tmp_path / "configs")]
    command += ["--calibration_mixtures", 1]
    command = list(map(str, command))
    stages = ["audio-encoder", "synthetic-clips", "autoencoder", "image-teacher", "untrained"]
    for system in ("separator", "single-embedding", "paper"):
        parts = ("encoding",) if system == "paper" else ("encoding", "alignment", "refinement")
        stages += [f"{system}-{part}" for part in parts]
        if system == "separator":
            stages += ["by-labels", "autoencoder-256", "drawing", "decoder", "many-steps"]
        stages.append(system)
    stages += ["calibrated", "draft"]

    result = launch([*command, "--only", *stages[:-1]])
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0] == "audio-encoder: is there."
    # A step of training counts no better wherever presence is moved to.
    calibrated = AVGASPipeline.from_pretrained(tmp_path / "mini/calibrated")
    torch.nn.init.constant_(calibrated.separator.presence_head.bias, 0.75)
    calibrated.save_pretrained(tmp_path / "mini/calibrated")

    result = launch([*command, "--only", *stages])
    assert result.returncode == 0, result.stderr
    pipe = AVGASPipeline.from_pretrained(tmp_path / "mini/draft")
    assert (pipe.default_num_inference_steps, pipe.separator.config.num_slots) == (4, 4)
    assert pipe.speed_variation == SPEED_VARIATION
    assert pipe.separator.presence_head.bias.item() == 0.75
    assert (tmp_path / "mini/draft/samples.jpg").exists()

    again = launch([*command, "--only", *stages])
    assert again.stdout.splitlines() == [f"{stage}: is there." for stage in stages]


def test_unknown_stage(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        train_mini.main(["--wheel", "none.whl", "--only", "magic"])
    assert stopped.value.code == 2
    message = "there is no stage 'magic'; stages are audio-encoder, synthetic-clips, autoencoder"
    assert message in capsys.readouterr().err


def test_table_of_results():
    def interval(value):
        return {"value": value, "low": value - 0.05, "high": value + 0.05}

    report = {
        "results": {
            "sound": {"mine": {"label_recall": interval(0.5), "si_sdri_db": interval(6.25)}, "other": {}},
            "mixed": {"mine": {"crs": interval(0.125)}, "real scene": {"crs": interval(0.9)}},
            "separated": {"real scene": {"sep_recall": interval(0.5)}},
        }
    }
    assert results_table(report).splitlines() == [
        "| | mine | other | real scene |",
        "|---|---|---|---|",
        "| a source's label found | 50.0 [45.0, 55.0] |  |  |",
        "| SI-SDR improvement, median, dB | 6.2 [6.2, 6.3] |  |  |",
        "| CRS of mixed images | 12.5 [7.5, 17.5] |  | 90.0 [85.0, 95.0] |",
    ]
