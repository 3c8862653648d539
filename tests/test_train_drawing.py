"""`train_drawing.py` learns labels from pictures alone, goes on exactly, and ends with a pipeline."""

import numpy as np
import pytest
import torch
import train_drawing as script
import training_runs as runs
from tiny import tiny_audio, tiny_components, tiny_separator
from train_autoencoder import build_autoencoder
from training_runs import curve

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.data.soundscapes_mini import find_soundscapes_mini, load_soundscapes_mini
from avgas_training.data.objects import ObjectDataset
from avgas_training.models.drawing import DrawingModel
from avgas_training.settings import AutoencoderSettings


@pytest.fixture(scope="module")
def pictures():
    return load_soundscapes_mini(find_soundscapes_mini(), "train")[1]


@pytest.fixture(scope="module")
def checkpoint(pictures, tmp_path_factory):
    """A pipeline whose pictures follow from labels alone; read-only by convention."""
    torch.manual_seed(0)
    settings = AutoencoderSettings(block_out_channels=[8, 16], latent_channels=4)
    separator = tiny_separator(id2label=dict(enumerate(sorted(set(pictures["label"])))))
    for weight in separator.token_head[-1].parameters():
        torch.nn.init.zeros_(weight)
    pipe = AVGASPipeline(**{**tiny_components(), "vae": build_autoencoder(settings), "separator": separator})
    folder = tmp_path_factory.mktemp("checkpoint")
    pipe.save_pretrained(folder)
    return folder


def settings(checkpoint, out, **changed):
    return {
        "pretrained_model_name_or_path": checkpoint,
        "dataset": find_soundscapes_mini(),
        "output_dir": out,
        "new_unet": "16 32",
        "resolution": 32,
        "num_examples": 24,
        "train_batch_size": 4,
        "max_train_steps": 8,
        "checkpointing_steps": 4,
        "validation_steps": 8,
        "num_inference_steps": 1,
        "lr_warmup_steps": 1,
        "learning_rate": 1e-3,
        "mixed_precision": "no",
        "dataloader_num_workers": 0,
        "logging_steps": 1,
        **changed,
    }


@pytest.fixture(scope="module")
def straight(checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp("straight") / "run"
    runs.run(script.main, settings(checkpoint, out))
    return out


def test_the_result_draws_one_source_at_a_time(checkpoint, straight):
    pipe = AVGASPipeline.from_pretrained(straight)
    assert pipe.config.compose_sources and pipe.default_size == (32, 32)
    assert AVGASPipeline(**pipe.components).config.compose_sources
    assert (straight / "validation-8.png").exists() and (straight / "README.md").exists()
    saved = runs.weights(straight, "unet") | runs.weights(straight, "separator")
    assert runs.holds_averages(saved, straight / "checkpoint-8")
    pipe.set_progress_bar_config(disable=True)
    out = pipe(*tiny_audio(), num_sources=2, separate=True, num_inference_steps=1, generator=torch.manual_seed(0))
    assert out.images[0].size == (32, 32)
    given = AVGASPipeline.from_pretrained(checkpoint).separator.state_dict()
    for name, weight in pipe.separator.state_dict().items():
        moved = name.startswith(("label_tokens", "token_norm", "null_tokens"))
        assert torch.equal(weight, given[name]) != moved, name


@pytest.mark.slow
def test_it_learns(checkpoint, tmp_path):
    changed = {"max_train_steps": 120, "num_examples": 8, "learning_rate": 3e-3, "validation_steps": 1000}
    runs.run(script.main, settings(checkpoint, tmp_path / "run", checkpointing_steps=1000, **changed))
    losses = list(curve(tmp_path / "run", "diffusion").values())
    assert np.mean(losses[-20:]) < 0.8 * np.mean(losses[:10])


@pytest.mark.slow
def test_killed_run_goes_on_exactly(checkpoint, straight, tmp_path):
    out = tmp_path / "run"
    command = runs.command("train_drawing.py", settings(checkpoint, out, max_train_steps=8))
    runs.kill_after(out / "checkpoint-4", "model_index.json", command)
    result = runs.launch([*command, "--resume_from_checkpoint", "latest"])
    assert result.returncode == 0, result.stderr
    for part in ("unet", "separator"):
        expected = runs.weights(straight, part)
        assert all(torch.equal(weight, expected[name]) for name, weight in runs.weights(out, part).items())


def test_tokens_are_those_of_the_pipeline(checkpoint):
    separator = AVGASPipeline.from_pretrained(checkpoint).separator
    labels = torch.tensor([3, 7])
    certain = torch.nn.functional.one_hot(labels, len(separator.id2label)).float() * 100
    with torch.no_grad():
        expected = separator.condition(torch.zeros(2, 16), certain)
        conditions = DrawingModel(None, separator).conditions(labels, torch.tensor([False, True]))
    tokens = conditions["encoder_hidden_states"]
    assert torch.allclose(tokens[0], expected[0], atol=1e-5) and torch.equal(tokens[1], separator.null_tokens)


def test_labels_are_drawn_evenly_and_pictures_mirrored(pictures):
    labels = sorted(set(pictures["label"]))
    examples = ObjectDataset(pictures, labels, 400, 800, image_size=32)
    assert len(examples) == 800 and len(examples.drawable) == len(labels) == 204
    drawn = [examples[number] for number in range(400)]
    assert len({int(example["label"]) for example in drawn}) > 150
    for example in drawn:
        pixels = example["pixel_values"]
        assert pixels.shape == (3, 32, 32) and (pixels < 0.9).any()
    assert torch.equal(examples[400]["pixel_values"], drawn[0]["pixel_values"])


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"designs": "missing.csv"}, "missing.csv"),
        ({"num_examples": 0}, "num_examples"),
        ({"resolution": 33}, "resolution"),
        ({"resolution": 128, "new_unet": None}, "resolution"),
    ],
)
def test_wrong_use(checkpoint, tmp_path, changed, word):
    with pytest.raises(ValueError, match=word):
        runs.run(script.main, settings(checkpoint, tmp_path / "run", **changed))


def test_a_pipeline_that_does_not_draw_by_labels_alone(tmp_path):
    AVGASPipeline(**tiny_components()).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="labels alone"):
        runs.run(script.main, settings(tmp_path / "other", tmp_path / "run"))
