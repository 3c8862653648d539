"""Every recipe under training/configs is understood by its script."""

from pathlib import Path

import pytest
from config import parse_config
from train import GeneratorConfig
from train_separator import SeparatorConfig


FOLDER = Path(__file__).parents[1] / "training/configs"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_recipe(path):
    config_class = GeneratorConfig if "generator" in path.stem else SeparatorConfig
    config = parse_config(config_class, "", ["--config", str(path), "--seed", "7"])
    assert config.seed == 7
    assert config != config_class(seed=7)
