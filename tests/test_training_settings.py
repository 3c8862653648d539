"""Settings come from defaults, files and the command line; every recipe is understood by its script."""

from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file

from avgas_training.command_line import parse_settings, read_recipe
from avgas_training.run import precision
from avgas_training.settings import (
    AutoencoderSettings,
    DistillSettings,
    DrawingSettings,
    GeneratorSettings,
    JudgeSettings,
    SeparatorSettings,
)


TRAINING = Path(__file__).parents[1] / "training"
FOLDER = TRAINING / "configs"
SETTINGS = {
    "generator": GeneratorSettings,
    "lora": GeneratorSettings,
    "autoencoder": AutoencoderSettings,
    "image-teacher": JudgeSettings,
    "drawing": DrawingSettings,
    "distill": DistillSettings,
}
CHECKPOINT = ["--pretrained_model_name_or_path", "untrained"]


def parse(*argv):
    return parse_settings(SeparatorSettings, "", [*CHECKPOINT, *map(str, argv)])


def write(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.yaml")), ids=lambda path: path.stem)
def test_recipe(path):
    settings_class = next((each for name, each in SETTINGS.items() if path.stem.endswith(name)), SeparatorSettings)
    needed = CHECKPOINT if settings_class in (GeneratorSettings, SeparatorSettings) else []
    settings = parse_settings(settings_class, "", ["--seed", "7", "--config", str(path), *needed])
    assert settings.seed == 7
    for name, value in read_recipe(path, settings_class).items():
        assert getattr(settings, name) == value or name == "pretrained_model_name_or_path"


def test_base_files_recipes_and_options_override_each_other(tmp_path):
    write(tmp_path / "presets/far.yaml", "learning_rate: 1e-1\nmax_train_steps: 1\nnum_sources: [1, 2]\nseed: 1\n")
    write(tmp_path / "near.yaml", "base: presets/far.yaml\nmax_train_steps: 2\nmixed_precision: 'no'\n")
    write(tmp_path / "other.yaml", "gain_range_db: 1\nseed: 2\n")
    recipe = write(tmp_path / "recipe.yaml", "base: [near.yaml, other.yaml]\nmixed_precision: bf16\nseed: 3\n")
    for argv in (["--config", recipe, "--seed", 4], ["--seed", 4, "--config", recipe]):
        settings = parse(*argv)
        assert (settings.learning_rate, settings.max_train_steps, settings.num_sources) == (0.1, 2, [1, 2])
        assert (settings.gain_range_db, settings.mixed_precision, settings.seed) == (1.0, "bf16", 4)
    assert parse("--config", recipe, "--config", tmp_path / "other.yaml").seed == 2
    assert parse("--config", tmp_path / "other.yaml", "--config", recipe).seed == 3


def test_a_preset_overrides_nothing_that_was_set(tmp_path):
    preset = FOLDER / "presets/paper.yaml"
    recipe = write(tmp_path / "mine.yaml", f"base: {preset}\npresence_weight: 2.0\n")
    settings = parse("--config", recipe, "--num_slots", 3)
    assert (settings.presence_weight, settings.num_slots, settings.label_weight) == (2.0, 3, 0.01)


def test_how_values_are_written():
    settings = parse(
        "--num_sources", 1, 2, "--gradient_checkpointing", "--push_to_hub", "false", "--num_slots", "null"
    )
    assert settings.num_sources == [1, 2]
    assert (settings.gradient_checkpointing, settings.push_to_hub, settings.num_slots) == (True, False, None)
    assert parse("--encoder_trainable", "layer.1", "layer.2").encoder_trainable == ["layer.1", "layer.2"]
    assert parse("--encoder_trainable").encoder_trainable == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rte: 1", "there is no setting 'learning_rte'"),
        ("max_train_steps: many", "max_train_steps has to be a whole number but is many"),
        ("push_to_hub: 1", "push_to_hub has to be true or false but is 1"),
        ("push_to_hub:", "push_to_hub has to be true or false but is null"),
        ("num_sources: 3", "num_sources has to be a list, each item a whole number but is 3"),
        ("num_sources: [a]", "num_sources has to be a list, each item a whole number but is"),
        ("balance: magic", "balance has to be one of label, square_root, source_group but is magic"),
        ("mixed_precision: no", "mixed_precision has to be one of no, fp16, bf16 or null but is False"),
        ("a list", "has to hold settings as `name: value`"),
        ("a: [", "while parsing"),
        ("base: 3", "base has to be a file or a list of files"),
        ("base: gone.yaml", "gone.yaml: no such file"),
        ("base: bad.yaml", "is its own base"),
    ],
)
def test_errors_name_file_and_setting(tmp_path, text, message):
    path = write(tmp_path / "bad.yaml", text)
    with pytest.raises((ValueError, OSError)) as caught:
        parse("--config", path)
    assert str(caught.value).startswith(str(tmp_path)) and message in str(caught.value)


@pytest.mark.parametrize(
    "junk",
    [
        b"\xff\xfe\x00",
        b"\x00\x1b[31m",
        b"[" * 1_100,
        b"seed: " + b"[" * 1_100,
        b"seed: " + b"[" * 200 + b"]" * 200,
        b"{a: b}: c",
        b"1: 2",
        b"null: 2",
        b"seed: 2024-99-99",
        b"seed: 2024-01-01",
        b"seed: !!bool maybe",
        b"seed: !!int x",
        b"seed: !!timestamp x",
        b"seed: !!python/object/apply:os.system [true]",
        b"seed: " + b"1" * 5000,
        b"- a\n- b",
        b"seed: *gone",
        b"--- 1\n--- 2",
        b"base: [[x]]",
        b"seed: !!binary x",
        b"seed: !!set {a, b}",
    ],
    ids=range(21),
)
def test_junk_is_one_line_that_names_the_file(tmp_path, junk):
    path = tmp_path / "junk.yaml"
    path.write_bytes(junk)
    with pytest.raises(ValueError, match=r"junk\.yaml"):
        parse("--config", path)


def test_a_folder_is_no_recipe(tmp_path):
    with pytest.raises(ValueError, match="can't be read"):
        parse("--config", tmp_path)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--learning_rate", "fast"], "learning_rate has to be a number but is fast"),
        (["--num_sources", "a"], "num_sources has to be a list, each item a whole number but is a"),
        (["--seed"], "--seed: expected one argument"),
        # Names are not guessed.
        (["--conf", FOLDER / "mini-separator.yaml"], "--conf"),
        (["--config", "gone.yaml"], "gone.yaml: no such file"),
        (["--seed", -1], "seed has to be from 0 to 2147483647 but is -1"),
        (["--logging_steps", 0], "logging_steps has to be at least 1 but is 0"),
        (["--num_sources", 2], "num_sources has to be the fewest and the most, such as 1 3, but is [2]"),
        (["--augment_fraction", 1.5], "augment_fraction has to be from 0 to 1 but is 1.5"),
        (["--learning_rate", "nan"], "learning_rate has to be a number but is nan"),
        (["--learning_rate", "-1"], "learning_rate has to be at least 0 but is -1"),
        (["--a2a_weight", "1e31"], "a2a_weight has to be at most 1e+30 but is 1e+31"),
        (["--max_train_steps", "1" * 400], "max_train_steps has to be at most 1e+30 but is 111"),
        (["--dataloader_num_workers", -1], "dataloader_num_workers has to be at least 0 but is -1"),
        (["--num_sources", -1, 2], "num_sources has to be at least 1 but is [-1, 2]"),
        (["--ema_decay", 5], "ema_decay has to be from 0 to 1 but is 5"),
        (["--validation_fraction", 10], "validation_fraction has to be from 0 to 1 but is 10"),
        (["--lr_scheduler", "magic"], "lr_scheduler"),
        (
            ["--lr_scheduler", "polynomial", "--max_train_steps", 200],
            "lr_warmup_steps has to be below max_train_steps",
        ),
        (["--mask_fraction", 0], "mask_fraction has to be above 0"),
        (["--mask_fraction", 1.5], "mask_fraction has to be from 0 to 1 but is 1.5"),
    ],
)
def test_errors_of_the_command_line(argv, message):
    with pytest.raises((ValueError, OSError)) as caught:
        parse(*argv)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("settings_class", "changed", "message"),
    [
        (GeneratorSettings, {"pretrained_model_name_or_path": None}, "pretrained_model_name_or_path is needed"),
        (
            GeneratorSettings,
            {"cache_examples": True, "train_separator": True},
            "cache_examples and train_separator do",
        ),
        (GeneratorSettings, {"slot_noise": 0.3, "train_separator": True}, "slot_noise and train_separator do not go"),
        (GeneratorSettings, {"slot_shuffle": 0.5, "train_separator": True}, "slot_shuffle and train_separator do not"),
        (GeneratorSettings, {"resolution": 0}, "resolution has to be at least 1"),
        (GeneratorSettings, {"rank": 0}, "rank has to be at least 1 but is 0"),
        (GeneratorSettings, {"num_validation_mixtures": 0}, "num_validation_mixtures has to be at least 1"),
        (GeneratorSettings, {"condition_dropout": 5.0}, "condition_dropout has to be from 0 to 1"),
        (GeneratorSettings, {"full": True, "rank": 3}, "rank has no effect with full: leave it out"),
        (GeneratorSettings, {"image_encoder": "x"}, "image_encoder has no effect without train_separator"),
        (DistillSettings, {"full": True, "rank": 3}, "rank has no effect with full"),
        (
            AutoencoderSettings,
            {"pretrained_model_name_or_path": "x", "latent_channels": 9},
            "latent_channels has no effect with pretrained_model_name_or_path",
        ),
        (AutoencoderSettings, {"block_out_channels": [8]}, "block_out_channels has to be of two resolutions"),
        (
            JudgeSettings,
            {"pretrained_model_name_or_path": "x", "hidden_sizes": [8, 8, 8, 8]},
            "hidden_sizes has no effect with pretrained_model_name_or_path",
        ),
        (JudgeSettings, {"holdout_fold": 5}, "holdout_fold has to be from 0 to 4 but is 5"),
        (AutoencoderSettings, {"validation_steps": 0}, "validation_steps has to be at least 1"),
    ],
)
def test_settings_check_themselves(settings_class, changed, message):
    if issubclass(settings_class, GeneratorSettings):
        changed = {"pretrained_model_name_or_path": "untrained", **changed}
    with pytest.raises(ValueError, match=message):
        settings_class(**changed)


@pytest.mark.parametrize(("capability", "expected"), [("AVX2", "no"), ("AVX512", "bf16")])
def test_a_cpu_without_fast_bfloat16_trains_in_float32(monkeypatch, caplog, capability, expected):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert precision(parse("--mixed_precision", "bf16")) == expected
    assert ("float32" in caplog.text) == (expected == "no")
    assert precision(parse()) is None
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert precision(parse()) == ("no" if expected == "no" else None)


def test_float16_on_a_cpu_trains_in_float32(monkeypatch, caplog):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert precision(parse("--mixed_precision", "fp16")) == "no"
    assert "This CPU has no fast float16: training in float32 instead." in caplog.text
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    assert precision(parse()) == "no"
    assert precision(parse("--mixed_precision", "no")) == "no"


@pytest.mark.parametrize("path", sorted((TRAINING / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_launch_configuration(path):
    """accelerate refuses unknown keys."""
    config = load_config_from_file(str(path))
    assert config.mixed_precision == "bf16"
    assert config.num_processes % config.num_machines == 0
