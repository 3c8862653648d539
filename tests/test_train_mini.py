"""The recipe of avgas-mini goes from nothing to a checkpoint, and its results become a table."""

import sys

import forked
import pytest
import torch
import yaml
from mini_parts import NUM_INFERENCE_STEPS, SPEED_VARIATION
from results_table import results_table
from training_runs import TRAINING, environment, run_to_the_end

from avgas_pipeline import AVGASPipeline, YamnetEncoder, YamnetFeatureExtractor
from avgas_pipeline.data.soundscapes_mini import find_soundscapes_mini, load_soundscapes_mini
from avgas_pipeline.models.yamnet import YamnetConfig


SMALL = {
    "max_train_steps": 1,
    "train_batch_size": 2,
    "num_examples": 2,
    "lr_warmup_steps": 0,
    "mixed_precision": "no",
    "num_validation_mixtures": 1,
    "validation_fraction": 0.0,
}


def recipes(folder):
    """The mini recipes, of one step each."""
    folder.mkdir()
    for path in TRAINING.glob("configs/mini-*.yaml"):
        settings = yaml.safe_load(path.read_text())
        fitting = {
            name: value for name, value in SMALL.items() if name in settings or name == "dataloader_num_workers"
        }
        (folder / path.name).write_text(yaml.safe_dump(settings | fitting))
    return folder


@pytest.mark.slow
def test_from_nothing_to_a_checkpoint(tmp_path):
    encoder = YamnetEncoder(YamnetConfig(depth_multiplier=0.02))
    for part in (encoder, YamnetFeatureExtractor()):
        part.save_pretrained(tmp_path / "mini/audio-encoder")
    sounds, _ = load_soundscapes_mini()
    sounds = sounds.select(range(3)).select_columns(["id", "label", "source_group", "audio"])
    (tmp_path / "mini/made-sounds").mkdir()
    sounds.to_parquet(tmp_path / "mini/made-sounds/train.parquet")
    command = [sys.executable, TRAINING / "train_mini.py", "--wheel", "none.whl", "--output_dir", tmp_path / "mini"]
    command += ["--dataset", find_soundscapes_mini(), "--configs", recipes(tmp_path / "configs")]
    command += ["--calibration_mixtures", 1]
    command = list(map(str, command))
    stages = ["audio-encoder", "made-sounds", "autoencoder", "image-teacher", "untrained"]
    for system in ("separator", "single-embedding", "paper"):
        parts = ("hearing",) if system == "paper" else ("hearing", "alignment", "refinement")
        stages += [*(f"{system}-{part}" for part in parts), system]
    stages += ["calibrated", "draft"]

    result = run_to_the_end([*command, "--only", *stages[:-1]], environment())
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0] == "audio-encoder: is there."
    # A step of training counts no better wherever presence is moved to.
    calibrated = AVGASPipeline.from_pretrained(tmp_path / "mini/calibrated")
    torch.nn.init.constant_(calibrated.separator.presence_head.bias, 0.75)
    calibrated.save_pretrained(tmp_path / "mini/calibrated")

    result = run_to_the_end([*command, "--only", *stages], environment())
    assert result.returncode == 0, result.stderr
    pipe = AVGASPipeline.from_pretrained(tmp_path / "mini/draft")
    assert (pipe.default_num_inference_steps, pipe.separator.config.num_slots) == (NUM_INFERENCE_STEPS, 4)
    assert pipe.speed_variation == SPEED_VARIATION
    assert pipe.separator.presence_head.bias.item() == 0.75
    assert (tmp_path / "mini/draft/samples.jpg").exists()

    again = run_to_the_end([*command, "--only", *stages], environment())
    assert again.stdout.splitlines() == [f"{stage}: is there." for stage in stages]


def test_unknown_stage(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, str(TRAINING / "train_mini.py"), "--wheel", "none.whl", "--only", "magic"]
    result = forked.run(command)
    assert result.returncode == 2
    assert "there is no stage 'magic'; stages are audio-encoder, made-sounds, autoencoder" in result.stderr


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
