"""
Train what draws of a small pipeline, U-Net and label tokens, on pictures alone: labels in, pictures out.

    accelerate launch training/train_drawing.py --config training/configs/mini-drawing.yaml \\
        --pretrained_model_name_or_path avgas-mini --autoencoder runs/autoencoder --output_dir runs/drawing

It is for pipelines whose pictures follow from labels alone (`training/mini/tokens_of_labels.py`), so that no sound is
needed. Each picture has one object or more, each in the box that the pipeline gives a source of its weight
(`avgas_pipeline.layout`); the last channels of condition tokens say where it is. Pictures are encoded once, into the
run's folder. Writes checkpoints (`--resume_from_checkpoint latest` goes on exactly), curves, pictures of a few labels
with the same noise every time (`validation-<step>.png`), and at the end the pipeline.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from diffusers import AutoencoderDC, DDIMScheduler, UNet2DConditionModel
from diffusers.training_utils import EMAModel

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.data.soundscapes_mini import load_soundscapes_mini
from avgas_pipeline.files import atomic_path
from avgas_pipeline.layout import place_sources
from avgas_pipeline.models.latent_scale import scale_latents, unscale_latents
from avgas_training.command_line import parse_settings, run_script
from avgas_training.data.example_cache import ExampleCache
from avgas_training.data.layouts import LayoutDataset
from avgas_training.losses.diffusion import diffusion_loss
from avgas_training.models.drawing import DrawingModel
from avgas_training.models.latents import Noise, encode_pictures
from avgas_training.randomness import RowRandom
from avgas_training.run import Run, build_schedule
from avgas_training.settings import DrawingSettings


FIELDS = ("latents", "labels", "boxes")
EXAMPLE_SETTINGS = ("dataset", "seed", "num_examples", "resolution")
# Rows of the sheet that is looked at, by how many objects they have, and pictures in each.
SHEET = (1, 1, 2, 2, 3, 6)
SHEET_COLUMNS = 6


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse_settings(DrawingSettings, __doc__, argv)
    run = Run(settings)
    accelerator = run.accelerator
    pipe = AVGASPipeline.from_pretrained(settings.pretrained_model_name_or_path, dtype=torch.float32)
    replace_parts(pipe, settings)
    separator = pipe.separator
    labels = [separator.id2label[number] for number in range(len(separator.id2label))]
    pictures = load_soundscapes_mini(settings.dataset, "train")[1]
    length = settings.max_train_steps * run.examples_per_step
    examples = LayoutDataset(pictures, labels, settings.num_examples, length, settings.seed, settings.resolution)
    missing = sorted(set(labels) - {labels[number] for number in examples.drawable})
    accelerator.print(f"{len(examples.drawable)} labels have pictures; {len(missing)} have none: {missing[:10]}")

    model = DrawingModel(pipe.unet, separator, settings.layout_channels)
    trained = list(model.parameters())
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = build_schedule(settings, optimizer, accelerator.num_processes)
    ema = EMAModel(trained, decay=settings.ema_decay)
    prepared, optimizer, schedule = accelerator.prepare(model, optimizer, schedule)
    ema.to(accelerator.device)
    accelerator.register_for_checkpointing(ema)
    step = run.checkpoints.resume(settings.resume_from_checkpoint)

    vae = pipe.vae.requires_grad_(False).to(accelerator.device).eval()
    cache = ExampleCache(Path(settings.output_dir) / "cache", vars(settings), {"vae": vae}, FIELDS, EXAMPLE_SETTINGS)
    cache.build(
        examples,
        torch.utils.data.default_collate,
        lambda batch: {**batch, "latents": latents_of(vae, batch.pop("pixel_values").to(accelerator.device)).half()},
        accelerator,
        settings.dataloader_num_workers,
    )
    loader = run.loader(cache.dataset(examples), step)
    noise = Noise(pipe.scheduler, 0.0)
    run.start_trackers("drawing")
    progress = run.progress_bar(step)
    model.train()
    for batch in loader:
        first = (step * accelerator.num_processes + accelerator.process_index) * settings.train_batch_size
        random = RowRandom(settings.seed, range(first, first + settings.train_batch_size))
        latents = batch["latents"].float()
        noisy, timesteps, target = noise.add(latents, random)
        dropped = random.uniform(latents.device) < settings.condition_dropout
        prediction = prepared(noisy, timesteps, batch["labels"], batch["boxes"], dropped)
        loss = diffusion_loss(prediction, target, timesteps, noise.scheduler, settings.snr_gamma)
        run.check_finite(loss, step)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(trained, settings.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        ema.step(trained)
        step += 1
        stopping = run.end_step(step, {"diffusion": loss}, schedule, progress)
        if run.is_due(step, settings.validation_steps) and accelerator.is_main_process:
            ema.store(trained)
            ema.copy_to(trained)
            sheet = draw_sheet(model, pipe, examples.drawable, settings, accelerator.device)
            ema.restore(trained)
            with atomic_path(Path(settings.output_dir) / f"validation-{step}.png") as path:
                PIL.Image.fromarray(sheet).save(path)
            model.train()
        if stopping:
            break
    progress.close()
    accelerator.wait_for_everyone()
    if step == settings.max_train_steps and accelerator.is_main_process:
        ema.copy_to(trained)
        pipe.to("cpu").save_pretrained(settings.output_dir)
    del prepared
    run.end()


def replace_parts(pipe: AVGASPipeline, settings: DrawingSettings) -> None:
    """
    The autoencoder and U-Net that settings ask for, in place of the checkpoint's.

    Raises:
        ValueError: If the checkpoint does not draw by labels, or tokens are too narrow for the layout.
    """
    config = pipe.separator.config
    name, separator = settings.pretrained_model_name_or_path, pipe.separator
    if separator.label_tokens is None or any(weight.any() for weight in separator.token_head[-1].parameters()):
        raise ValueError(f"{name}: does not draw by labels alone; see training/mini/tokens_of_labels.py.")
    if separator.token_norm is None:
        raise ValueError(f"{name}: its condition tokens are not normalised.")
    if settings.layout_channels >= config.cross_attention_dim:
        raise ValueError(
            f"layout_channels has to be below the width of condition tokens, {config.cross_attention_dim}, but is"
            f" {settings.layout_channels}."
        )
    if settings.autoencoder is not None:
        pipe.register_modules(vae=AutoencoderDC.from_pretrained(settings.autoencoder, use_safetensors=True))
    if not isinstance(pipe.vae, AutoencoderDC):
        raise ValueError(f"{name}: its autoencoder is an {type(pipe.vae).__name__}, not an AutoencoderDC.")
    side, rest = divmod(settings.resolution, 2 ** (len(pipe.vae.config.encoder_block_out_channels) - 1))
    if settings.new_unet and not rest:
        pipe.register_modules(unet=build_unet(settings.new_unet, pipe, side))
    if rest or pipe.unet.config.sample_size != side:
        raise ValueError(f"resolution: U-Net and autoencoder do not draw pictures of {settings.resolution} pixels.")
    pipe.register_to_config(layout_channels=settings.layout_channels)
    # So that a pipeline made of this one's components has it, too.
    known = {**(config.pipeline_settings or {}), "layout_channels": settings.layout_channels}
    separator.register_to_config(pipeline_settings=known)


def build_unet(channels: Sequence[int], pipe: AVGASPipeline, side: int) -> UNet2DConditionModel:
    """A new U-Net for latents of a side, without cross-attention at full resolution, where it costs most."""
    torch.manual_seed(0)
    attending = len(channels) - 1
    return UNet2DConditionModel(
        sample_size=side,
        in_channels=pipe.vae.config.latent_channels,
        out_channels=pipe.vae.config.latent_channels,
        block_out_channels=channels,
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * attending,
        up_block_types=("CrossAttnUpBlock2D",) * attending + ("UpBlock2D",),
        layers_per_block=1,
        cross_attention_dim=pipe.separator.config.cross_attention_dim,
        attention_head_dim=[max(width // 32, 1) for width in channels],
        norm_num_groups=16,
    )


def latents_of(vae: AutoencoderDC, pixels: torch.Tensor) -> torch.Tensor:
    """Scaled latents of pictures `(B, 3, H, W)` in [-1, 1]."""
    with torch.no_grad():
        return scale_latents(vae, encode_pictures(vae, pixels)[0])


@torch.no_grad()
def draw_sheet(
    model: DrawingModel,
    pipe: AVGASPipeline,
    drawable: Sequence[int],
    settings: DrawingSettings,
    device: torch.device,
) -> np.ndarray:
    """Pictures of the same labels with the same noise every time, in rows of one object, two and more."""
    model.eval()
    rng = np.random.default_rng(0)
    rows = []
    for number, count in enumerate(SHEET):
        count = min(count, len(drawable))
        chosen = np.stack([rng.choice(drawable, size=count, replace=False) for _ in range(SHEET_COLUMNS)])
        boxes = torch.tensor(place_sources([1.0] * count)).expand(SHEET_COLUMNS, -1, -1)
        pictures = draw(model, pipe, torch.from_numpy(chosen).to(device), boxes.to(device), settings, number)
        rows.append(np.concatenate(list(pictures), axis=1))
    return np.concatenate(rows)


def draw(
    model: DrawingModel, pipe: AVGASPipeline, labels: torch.Tensor, boxes: torch.Tensor, settings: Any, seed: int
) -> np.ndarray:
    """Pictures `(B, H, W, 3)`, uint8, of labels `(B, N)` in boxes `(B, N, 4)`, by DDIM with guidance."""
    scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    scheduler.set_timesteps(settings.num_inference_steps)
    side = model.unet.config.sample_size
    shape = (len(labels), model.unet.config.in_channels, side, side)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(labels.device)
    conditioned = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)
    for t in scheduler.timesteps:
        times = t.expand(len(labels)).to(labels.device)
        with_labels, without = (
            model(latents, times, labels, boxes, dropped) for dropped in (conditioned, ~conditioned)
        )
        latents = scheduler.step(without + settings.guidance_scale * (with_labels - without), t, latents)[0]
    pixels = pipe.vae.decode(unscale_latents(pipe.vae, latents)).sample
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()


if __name__ == "__main__":
    run_script(main)
