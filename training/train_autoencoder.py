"""
Train a small autoencoder of pictures, the `vae` of a small pipeline, on scenes composed from soundscapes-mini.

    accelerate launch training/train_autoencoder.py --dataset data/soundscapes-mini --output_dir runs/autoencoder

Writes checkpoints to go on from (`--resume_from_checkpoint latest`), reconstructions of scenes from unseen pictures
(`validation-<step>.png`), curves, and at the end the model, an `AutoencoderKL` with its latents' scale in the config.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration, set_seed
from autoencoder_losses import PatchDiscriminator, discriminator_loss, multiscale_l1
from checkpoints import FREE, Checkpoints, StepSampler, StopSignal, claim_output_dir, leave_sigterm_to_parent
from config import parse_config, setting
from diffusers import AutoencoderKL
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from scene_dataset import SceneDataset
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from avgas_pipeline.data.soundscapes_mini import load_soundscapes_mini


@dataclass
class AutoencoderConfig:
    """Settings of `train_autoencoder.py`."""

    dataset: str = setting("data/soundscapes-mini", "folder or Hub repository of soundscapes-mini")
    output_dir: str = setting("runs/autoencoder", "the run's folder")
    overwrite_output_dir: bool = setting(False, "begin anew in a folder that is not empty")
    resume_from_checkpoint: str | None = setting(None, "'latest', or a checkpoint's folder")
    block_out_channels: list[int] = setting([16, 32, 64, 96, 128], "channels at every resolution")
    layers_per_block: int = setting(1, "residual blocks at every resolution")
    latent_channels: int = setting(16, "channels of the latents")
    resolution: int = setting(128, "side of the pictures, in pixels")
    train_batch_size: int = setting(16, "scenes per step and process")
    max_train_steps: int = setting(20000, "optimiser steps")
    learning_rate: float = setting(1e-3, "highest learning rate")
    lr_scheduler: str = setting("cosine", "one of diffusers' schedules")
    lr_warmup_steps: int = setting(200, "steps until the highest learning rate")
    weight_decay: float = setting(1e-4, "of AdamW")
    max_grad_norm: float = setting(1.0, "gradients are clipped to this norm")
    kl_weight: float = setting(1e-6, "of the latents' divergence from a normal distribution, per latent")
    adversarial_weight: float = setting(0.0, "of the patch discriminator; 0 does without")
    adversarial_start: int = setting(0, "step from which on the discriminator counts")
    ema_decay: float = setting(0.999, "of the averaged weights that are saved")
    mixed_precision: str = setting("no", "no, fp16 or bf16")
    dataloader_num_workers: int = setting(1, "processes that compose scenes")
    checkpointing_steps: int = setting(500, "steps from one checkpoint to the next")
    checkpoints_total_limit: int = setting(2, "checkpoints to keep")
    validation_steps: int = setting(1000, "steps from one validation to the next")
    num_validation_scenes: int = setting(64, "scenes from unseen pictures")
    logging_steps: int = setting(20, "steps from one point of the curves to the next")
    report_to: str | None = setting("tensorboard", "accelerate's tracker, or none")
    seed: int = setting(0, "of weights and scenes")


# Scenes that the latents' scale is measured on.
NUM_SCALE_SCENES = 512


def build_autoencoder(config: AutoencoderConfig) -> AutoencoderKL:
    """Stable Diffusion's kind, small; no attention."""
    levels = len(config.block_out_channels)
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        block_out_channels=config.block_out_channels,
        layers_per_block=config.layers_per_block,
        latent_channels=config.latent_channels,
        norm_num_groups=8,
        sample_size=config.resolution,
        mid_block_add_attention=False,
        force_upcast=False,
    )


def main(argv: list[str] | None = None) -> None:
    config = parse_config(AutoencoderConfig, __doc__, argv)
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),
        mixed_precision=config.mixed_precision,
        log_with=config.report_to,
        project_config=ProjectConfiguration(project_dir=config.output_dir, logging_dir=f"{config.output_dir}/logs"),
    )
    if accelerator.is_main_process:
        claim_output_dir(config.output_dir, config.overwrite_output_dir, config.resume_from_checkpoint)
    accelerator.wait_for_everyone()
    set_seed(config.seed)

    pictures = {split: load_soundscapes_mini(config.dataset, split)[1] for split in ("train", "test")}
    labels = sorted(set(pictures["train"]["label"]))
    step_size = config.train_batch_size * accelerator.num_processes
    scenes = SceneDataset(
        pictures["train"], labels, config.max_train_steps * step_size, config.seed, config.resolution, augment=True
    )
    unseen = SceneDataset(pictures["test"], labels, config.num_validation_scenes, config.seed, config.resolution)

    # Channels last: convolutions on a CPU are faster so.
    autoencoder = build_autoencoder(config).to(memory_format=torch.channels_last)
    ema = EMAModel(autoencoder.parameters(), decay=config.ema_decay)
    optimizer = torch.optim.AdamW(
        autoencoder.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.99)
    )
    schedule = get_scheduler(
        config.lr_scheduler,
        optimizer,
        num_warmup_steps=config.lr_warmup_steps * accelerator.num_processes,
        num_training_steps=config.max_train_steps * accelerator.num_processes,
    )
    model, optimizer, schedule = accelerator.prepare(NoisyAutoencoder(autoencoder), optimizer, schedule)
    adversary = Adversary(config, accelerator) if config.adversarial_weight else None
    ema.to(accelerator.device)
    accelerator.register_for_checkpointing(ema)

    settings = {key: value for key, value in asdict(config).items() if key not in FREE}
    checkpoints = Checkpoints(
        accelerator,
        config.output_dir,
        {**settings, "num_processes": accelerator.num_processes},
        config.checkpoints_total_limit,
    )
    step = checkpoints.resume(config.resume_from_checkpoint)
    loader = accelerator.prepare(
        DataLoader(
            scenes,
            batch_size=config.train_batch_size,
            sampler=StepSampler(step, config.max_train_steps, step_size),
            num_workers=config.dataloader_num_workers,
            worker_init_fn=leave_sigterm_to_parent,
        )
    )
    accelerator.init_trackers("autoencoder", {key: str(value) for key, value in asdict(config).items()})
    stop = StopSignal()
    progress = tqdm(
        total=config.max_train_steps, initial=step, disable=not accelerator.is_main_process, mininterval=10
    )
    generator = torch.Generator(device=accelerator.device)
    latent_side = config.resolution // 2 ** (len(config.block_out_channels) - 1)
    latent_shape = (config.train_batch_size, config.latent_channels, latent_side, latent_side)
    for batch in loader:
        target = batch["pixel_values"]
        # Noise by step and process, so that going on draws the same.
        generator.manual_seed((config.seed * 10**6 + step) * accelerator.num_processes + accelerator.process_index)
        noise = torch.randn(latent_shape, generator=generator, device=accelerator.device)
        reconstruction, divergence = model(target, noise)
        losses = {"reconstruction": multiscale_l1(reconstruction, target), "kl": divergence}
        loss = losses["reconstruction"] + config.kl_weight * losses["kl"]
        if adversary is not None and step >= config.adversarial_start:
            losses["adversarial"] = adversary.loss(reconstruction)
            loss = loss + config.adversarial_weight * losses["adversarial"]
        if not math.isfinite(loss.item()):
            raise ValueError(
                f"The loss is {loss.item()} at step {step}; {checkpoints.output_dir} keeps the last good one."
            )

        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        ema.step(autoencoder.parameters())
        if "adversarial" in losses:
            losses["discriminator"] = adversary.step(target, reconstruction.detach())
        step += 1

        progress.update()
        if step % config.logging_steps == 0:
            values = {name: value.item() for name, value in losses.items()}
            progress.set_postfix({name: f"{value:.4f}" for name, value in values.items()})
            accelerator.log({**values, "lr": schedule.get_last_lr()[0]}, step=step)
        if step % config.checkpointing_steps == 0 or stop.received:
            checkpoints.save(step)
        if step % config.validation_steps == 0 and accelerator.is_main_process:
            validate(accelerator, autoencoder, ema, unseen, config, step)
        if stop.received:
            break
    progress.close()

    if step == config.max_train_steps and accelerator.is_main_process:
        save(accelerator, autoencoder, ema, scenes, config)
    accelerator.end_training()


class NoisyAutoencoder(torch.nn.Module):
    """One call from pictures to reconstructions, as distributed training wants it."""

    def __init__(self, autoencoder: AutoencoderKL) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, pixel_values: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Reconstructions `(B, 3, H, W)` of a sample of the latents, and the latents' mean divergence from normal."""
        posterior = self.autoencoder.encode(pixel_values).latent_dist
        latents = posterior.mean + posterior.std * noise
        divergence = posterior.kl().mean() / posterior.mean[0].numel()
        return self.autoencoder.decode(latents).sample, divergence


class Adversary:
    """A patch discriminator that trains beside the autoencoder."""

    def __init__(self, config: AutoencoderConfig, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        network = PatchDiscriminator()
        optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate / 4, betas=(0.5, 0.9))
        self.network, self.optimizer = accelerator.prepare(network, optimizer)

    def loss(self, reconstruction: torch.Tensor) -> torch.Tensor:
        """What the autoencoder pays for being found out."""
        self.network.requires_grad_(False)
        loss = -self.network(reconstruction).mean()
        self.network.requires_grad_(True)
        return loss

    def step(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        """Learn to tell them apart."""
        loss = discriminator_loss(self.network(real), self.network(fake))
        self.accelerator.backward(loss)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss


@torch.no_grad()
def validate(
    accelerator: Accelerator,
    autoencoder: AutoencoderKL,
    ema: EMAModel,
    scenes: SceneDataset,
    config: AutoencoderConfig,
    step: int,
) -> None:
    """PSNR on scenes from unseen pictures, and a sheet of the first ones above their reconstructions."""
    target = torch.stack([scenes[number]["pixel_values"] for number in range(len(scenes))]).to(accelerator.device)
    ema.store(autoencoder.parameters())
    ema.copy_to(autoencoder.parameters())
    parts = [autoencoder.encode(part).latent_dist.mode() for part in target.split(config.train_batch_size)]
    reconstruction = torch.cat([autoencoder.decode(part).sample for part in parts])
    ema.restore(autoencoder.parameters())
    # In [-1, 1] the peak is 2.
    psnr = (10 * (4 / (reconstruction.clamp(-1, 1) - target).square().mean(dim=(1, 2, 3))).log10()).mean()
    accelerator.log({"psnr_db": psnr.item()}, step=step)
    accelerator.print(f"step {step}: {psnr.item():.2f} dB on unseen pictures")
    rows = torch.cat([torch.cat(list(images[:12]), dim=2) for images in (target, reconstruction)], dim=1)
    sheet = ((rows.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
    PIL.Image.fromarray(np.ascontiguousarray(sheet)).save(Path(config.output_dir) / f"validation-{step}.png")


@torch.no_grad()
def save(
    accelerator: Accelerator,
    autoencoder: AutoencoderKL,
    ema: EMAModel,
    scenes: SceneDataset,
    config: AutoencoderConfig,
) -> None:
    """The averaged model, with the factor that brings its latents to a standard deviation of 1."""
    ema.copy_to(autoencoder.parameters())
    latents = []
    for index in range(min(len(scenes), NUM_SCALE_SCENES)):
        pixels = scenes[index]["pixel_values"][None].to(accelerator.device)
        latents.append(autoencoder.encode(pixels).latent_dist.mode())
    autoencoder.register_to_config(scaling_factor=round(1 / torch.cat(latents).std().item(), 6))
    autoencoder.save_pretrained(config.output_dir)


if __name__ == "__main__":
    main()
