"""Every recipe under training/configs is understood by its script."""

from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from config import parse_config
from run import precision
from train import GeneratorConfig
from train_autoencoder import AutoencoderConfig
from train_judge import JudgeConfig
from train_separator import SeparatorConfig


TRAINING = Path(__file__).parents[1] / "training"
FOLDER = TRAINING / "configs"
CONFIGS = {"generator": GeneratorConfig, "autoencoder": AutoencoderConfig, "image-teacher": JudgeConfig}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_recipe(path):
    config_class = next((each for name, each in CONFIGS.items() if path.stem.endswith(name)), SeparatorConfig)
    config = parse_config(config_class, "", ["--config", str(path), "--seed", "7"])
    assert config.seed == 7
    assert config != config_class(seed=7)


@pytest.mark.parametrize(("capability", "expected"), [("AVX2", "no"), ("AVX512", "bf16")])
def test_a_cpu_without_fast_bfloat16_trains_in_float32(monkeypatch, caplog, capability, expected):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert precision(SeparatorConfig(mixed_precision="bf16")) == expected
    assert ("float32" in caplog.text) == (expected == "no")
    assert precision(SeparatorConfig()) is None


@pytest.mark.parametrize("path", sorted((TRAINING / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_launch_configuration(path):
    """accelerate refuses unknown keys."""
    config = load_config_from_file(str(path))
    assert config.mixed_precision == "bf16"
    assert config.num_processes % config.num_machines == 0


def test_names_of_settings_are_not_guessed(capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_config(SeparatorConfig, "", ["--conf", str(FOLDER / "mini-separator.yaml")])
    assert stopped.value.code == 2
    assert "--conf" in capsys.readouterr().err
