"""`train_autoencoder.py` learns pictures, goes on exactly, and ends with a VAE whose latents have unit scale."""

import sys

import forked
import numpy as np
import pytest
import torch
from autoencoder_losses import discriminator_loss, edge_l1, multiscale_mse
from diffusers import AutoencoderDC
from scene_dataset import SceneDataset
from training_runs import arguments, curve, kill_after

from avgas_pipeline.data.soundscapes_mini import find_soundscapes_mini, load_soundscapes_mini


def command(out, **changed):
    settings = {
        "dataset": find_soundscapes_mini(),
        "output_dir": out,
        "block_out_channels": "8 16",
        "latent_channels": 4,
        "resolution": 32,
        "train_batch_size": 4,
        "max_train_steps": 8,
        "checkpointing_steps": 4,
        "validation_steps": 8,
        "num_validation_scenes": 4,
        "lr_warmup_steps": 2,
        "dataloader_num_workers": 0,
        "logging_steps": 1,
        **changed,
    }
    return [sys.executable, *arguments("train_autoencoder.py", settings)]


def train(out, **changed):
    return forked.run(command(out, **changed))


def test_losses_by_hand():
    target = torch.zeros(1, 3, 16, 16)
    # A constant error of 0.5 at five sizes, and no edge.
    assert multiscale_mse(target + 0.5, target).item() == pytest.approx(5 * 0.25)
    assert edge_l1(target + 0.5, target).item() == pytest.approx(0.5)
    checkers = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2.0 - 1
    # Gone at half size; edges differ by 2, both ways.
    assert multiscale_mse(target + checkers, target).item() == pytest.approx(1.0)
    assert edge_l1(target + checkers, target).item() == pytest.approx(1.0 + 2 * 2.0)


def test_discriminator_loss_by_hand():
    assert discriminator_loss(torch.tensor([2.0]), torch.tensor([-2.0])).item() == 0.0
    assert discriminator_loss(torch.tensor([0.0]), torch.tensor([0.5])).item() == pytest.approx(0.5 * (1 + 1.5))


@pytest.mark.slow
def test_learns_and_scales_its_latents(tmp_path):
    result = train(
        tmp_path / "run", max_train_steps=300, train_batch_size=16, learning_rate=3e-3, checkpointing_steps=1000
    )
    assert result.returncode == 0, result.stderr
    losses = curve(tmp_path / "run", "reconstruction")
    assert np.mean([losses[step] for step in range(281, 301)]) < 0.5 * np.mean([losses[step] for step in range(1, 11)])
    assert (tmp_path / "run/validation-296.png").exists()
    vae = AutoencoderDC.from_pretrained(tmp_path / "run")
    pictures = load_soundscapes_mini(find_soundscapes_mini())[1]
    scenes = SceneDataset(pictures, sorted(set(pictures["label"])), 64, image_size=32)
    pixels = torch.stack([scenes[number]["pixel_values"] for number in range(64)])
    with torch.no_grad():
        latents = vae.encode(pixels).latent * vae.config.scaling_factor
    assert latents.std().item() == pytest.approx(1.0, abs=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("adversarial_weight", [0.0, 0.1])
def test_killed_run_goes_on_exactly(tmp_path, adversarial_weight):
    options = {"adversarial_weight": adversarial_weight}
    assert train(tmp_path / "straight", **options).returncode == 0
    out = tmp_path / "run"
    kill_after(out / "checkpoint-4", command(out, **options))
    result = train(out, resume_from_checkpoint="latest", **options)
    assert result.returncode == 0, result.stderr
    expected, got = (curve(folder, "reconstruction") for folder in (tmp_path / "straight", out))
    assert got == pytest.approx(expected, abs=1e-6)
    name = "diffusion_pytorch_model.safetensors"
    assert (out / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
