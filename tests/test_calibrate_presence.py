"""`calibrate_presence.py` finds the number of sources of recordings that training held out."""

import subprocess
import sys

import pytest
import torch
from calibrate_presence import count_accuracy, fit_presence
from tiny import tiny_separator
from training_inputs import write_training_inputs
from training_runs import arguments, environment, train, weights

from avgas_pipeline import AVGASPipeline


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Read-only by convention."""
    return write_training_inputs(tmp_path_factory.mktemp("training"))


def calibrate(inputs, out, **changed):
    settings = {
        "pretrained_model_name_or_path": inputs / "untrained",
        "dataset": inputs / "clips",
        "output_dir": out,
        "validation_fraction": 0.4,
        "num_mixtures": 40,
        **changed,
    }
    command = [sys.executable, *arguments("calibrate_presence.py", settings)]
    return subprocess.run(command, capture_output=True, text=True, env=environment())


def uncertain_logits(num_mixtures, seed):
    """Of 1 to 3 sources of 4 slots: the more sources, the less certain each but the first."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(1, 4, (num_mixtures,), generator=generator)
    rank = torch.arange(4)
    certain = torch.where(rank < counts[:, None], 3.0 - 2.0 * rank, -5.0 + counts[:, None])
    return certain + 0.7 * torch.randn(num_mixtures, 4, generator=generator), counts


def test_uncertain_sources_are_counted():
    separator = tiny_separator(presence_calibration=fit_presence(*uncertain_logits(500, seed=0)))
    logits, counts = uncertain_logits(500, seed=1)
    assert count_accuracy(logits, counts) < 0.75
    assert count_accuracy(separator.calibrate_presence(logits), counts) > 0.9


def test_only_the_calibration_changes(inputs, tmp_path):
    result = calibrate(inputs, tmp_path / "calibrated")
    assert result.returncode == 0, result.stderr
    assert "number of sources right 0." in result.stdout
    before = AVGASPipeline.from_pretrained(inputs / "untrained").separator
    after = AVGASPipeline.from_pretrained(tmp_path / "calibrated").separator
    assert before.config.presence_calibration is None
    rows = after.config.presence_calibration
    assert [len(row) for row in rows] == [4, 4]
    for name, weight in weights(inputs / "untrained").items():
        assert torch.equal(weight, weights(tmp_path / "calibrated")[name])

    again = calibrate(inputs, tmp_path / "again", pretrained_model_name_or_path=tmp_path / "calibrated")
    assert again.returncode == 0, again.stderr
    assert AVGASPipeline.from_pretrained(tmp_path / "again").separator.config.presence_calibration == rows


def test_a_pipeline_hears_with_it(inputs, tmp_path):
    pipe = AVGASPipeline.from_pretrained(inputs / "untrained")
    noise = torch.randn(16000, generator=torch.Generator().manual_seed(0)) * 0.1
    heard = pipe.separate_audio(noise, 16000, num_sources=3)[0]
    # At least two are certain, at least three are not.
    pipe.separator.register_to_config(presence_calibration=[[0, 0, 0, 9.0], [0, 0, 0, -9.0]])
    found = pipe.separate_audio(noise, 16000, presence_threshold=0.0)[0]
    assert found[0].score == found[1].score == pytest.approx(heard[0].score)
    assert found[2].score == pytest.approx(torch.tensor(-9.0).sigmoid().item())


def test_training_on_forgets_it(inputs, tmp_path):
    calibrated = tmp_path / "calibrated"
    pipe = AVGASPipeline.from_pretrained(inputs / "untrained")
    pipe.separator.register_to_config(presence_calibration=[[0, 0, 0, 9.0]])
    pipe.save_pretrained(calibrated)
    runs = {
        "separator": ("train_separator.py", {"preset": "separator"}),
        "paper": ("train_separator.py", {"preset": "paper"}),
        "whole": ("train.py", {"train_separator": True}),
    }
    changed = {"image_encoder": inputs / "image-encoder", "max_train_steps": 1}
    for name, (script, options) in runs.items():
        result = train(script, inputs, tmp_path / name, pretrained_model_name_or_path=calibrated, **changed, **options)
        assert result.returncode == 0, result.stderr
        trained = AVGASPipeline.from_pretrained(tmp_path / name)
        assert trained.separator.config.presence_calibration is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"pretrained_model_name_or_path": None}, "pretrained_model_name_or_path is needed"),
        ({"num_sources": "1 4"}, "num_sources has to be two numbers from 1 to 3"),
        ({"num_sources": "2 2"}, "num_sources has to be two numbers from 1 to 3"),
        ({"validation_fraction": 0.0}, "validation_fraction: 0.0 holds out too few labels"),
    ],
)
def test_what_can_not_be_calibrated(inputs, tmp_path, changed, message):
    result = calibrate(inputs, tmp_path / "calibrated", **changed)
    assert result.returncode == 2
    assert message in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "calibrated").exists()


def test_a_checkpoint_is_never_written_over(inputs):
    result = calibrate(inputs, inputs / "untrained")
    assert result.returncode == 2
    assert "holds a checkpoint already" in result.stderr
