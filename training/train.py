"""
Train the drawing half of a pipeline: LoRA layers on the U-Net and on what makes condition tokens, on mixtures and
their pictures.

    accelerate launch training/train.py --pretrained_model_name_or_path runs/separator \\
        --dataset data/soundscapes-mini --output_dir runs/generator

`--full` trains all weights of these two, `--train_separator` the audio encoder and the separator as well, end to end:
on the separator's losses, with its teachers, and through the condition tokens. Writes a pipeline, with LoRA layers
beside it unless `--full`, curves, and grids of pictures (`validation-<step>.png`). After an interruption
`--resume_from_checkpoint latest` goes on exactly.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.data.clips import load_clips
from avgas_pipeline.data.mixtures import MixtureSampler
from avgas_pipeline.data.scenes import collage
from avgas_pipeline.files import atomic_path
from avgas_pipeline.models.added_conditions import time_ids
from avgas_training.averages import averaged
from avgas_training.card import create_repo, finish
from avgas_training.checkpoints import save_trainable_only
from avgas_training.command_line import parse_settings, run_script
from avgas_training.data.example_cache import ExampleCache
from avgas_training.data.selection import check_labels, choose_designs
from avgas_training.data.soundscapes import Collator, SoundscapeDataset
from avgas_training.losses.diffusion import diffusion_loss
from avgas_training.losses.separation import losses_for
from avgas_training.models.examples import build_sampler, separated_fraction
from avgas_training.models.generator import Generator, encode_example, prepare_weights, set_generator_mode
from avgas_training.models.image_teacher import load_picture_embeds
from avgas_training.models.latents import Noise, sample_latents
from avgas_training.models.separation import SeparationModel, encode_sources
from avgas_training.models.slots import add_slot_noise, correct_labels, shuffle_slots
from avgas_training.models.target_builder import TargetBuilder
from avgas_training.models.teacher import Teacher
from avgas_training.precision import set_precision
from avgas_training.processes import Processes
from avgas_training.randomness import RowRandom
from avgas_training.result import save_pipeline
from avgas_training.run import Run, build_schedule
from avgas_training.settings import GeneratorSettings


# Of the averaged audio encoder and separator that teach A2A.
TEACHER_DECAY = 0.999
DRAWN = "Real picture, mixed image and separated images of mixtures of known clips, drawn with fixed seeds:"


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse_settings(GeneratorSettings, __doc__, argv)
    run = Run(settings, settings.gradient_accumulation_steps)
    accelerator = run.accelerator
    repo_id = create_repo(run)
    pipe = AVGASPipeline.from_pretrained(settings.pretrained_model_name_or_path, dtype=torch.float32)
    if settings.slot_shuffle and pipe.separator.label_tokens is None:
        raise ValueError(
            f"slot_shuffle: {settings.pretrained_model_name_or_path} draws by slots alone, not by labels."
        )
    clips, pictures = load_clips(**settings.clips_of_dataset())
    label2id = check_labels(clips["label"], pipe.separator.id2label, settings.pretrained_model_name_or_path)
    if settings.designs is not None and pictures is not None:
        pictures = choose_designs(pictures, settings.designs)
    extractor = pipe.audio_feature_extractor
    sampler = build_sampler(pipe, clips, pictures, settings)
    picture_embeds, picture_rows = load_picture_embeds(
        settings.image_encoder if settings.train_separator and settings.a2v_weight else None,
        pictures or clips,
        pipe.separator,
        accelerator.device,
    )
    has_teacher = settings.train_separator and settings.a2a_weight > 0
    collate = Collator(
        extractor,
        pipe.audio_encoder,
        label2id,
        settings.num_sources[1],
        sampler=sampler,
        separated_fraction=separated_fraction(pipe, settings),
        picture_rows=picture_rows,
        with_stems=has_teacher,
    )
    cache = None
    if settings.cache_examples:
        models = {"audio_encoder": pipe.audio_encoder, "separator": pipe.separator, "vae": pipe.vae}
        cache = ExampleCache(Path(settings.output_dir) / "cache", vars(settings), models)

    generator = Generator(pipe.unet, SeparationModel(pipe.audio_encoder, pipe.separator))
    groups = prepare_weights(settings, generator)
    trained = [weight for group in groups for weight in group["params"]]
    weight_dtype = set_precision(settings, accelerator, pipe, generator, sampler.image_size)
    optimizer = build_optimizer(settings, groups)
    schedule = build_schedule(settings, optimizer, accelerator.num_processes)
    save_trainable_only(accelerator)
    model, optimizer, schedule = accelerator.prepare(generator, optimizer, schedule)
    ema = EMAModel(trained, decay=settings.ema_decay) if settings.ema_decay else None
    if ema is not None:
        run.checkpoints.keep(ema)
    teacher = None
    if has_teacher:
        teacher = Teacher(generator.separation, EMAModel(generator.separation.parameters(), decay=TEACHER_DECAY))
        teacher.to(accelerator.device)
        run.checkpoints.keep(teacher.ema)
    target_builder = TargetBuilder(teacher, picture_embeds, extractor.sampling_rate, accelerator)

    step = run.checkpoints.resume(settings.resume_from_checkpoint)
    if teacher is not None:
        teacher.update(generator.separation)
    num_epochs = math.ceil(settings.max_train_steps * run.examples_per_step / settings.num_examples)
    examples: Any = SoundscapeDataset(sampler, settings.num_examples, num_epochs, repeat=settings.cache_examples)
    collate_fn: Any = collate
    if cache is not None:
        encoder, device = generator.separation.to(accelerator.device).eval(), accelerator.device
        cache.build(
            examples,
            collate,
            lambda batch: encode_example(encoder, pipe.vae, batch, device),
            accelerator,
            settings.dataloader_num_workers,
        )
        examples, collate_fn = cache.dataset(examples), None
    loader = run.loader(examples, step, collate_fn)
    run.start_trackers("generator")
    compute_losses = StepLosses(settings, model, pipe, target_builder, accelerator, sampler.image_size)
    progress = run.progress_bar(step)
    set_generator_mode(generator, settings.train_separator)
    weights = {**settings.loss_weights(), "diffusion": 1.0}
    accumulated = 0
    for batch in loader:
        with accelerator.accumulate(model):
            losses = compute_losses(batch, run.random(step, accumulated))
            loss = sum(weights[name] * value for name, value in losses.items())
            run.check_finite(loss, step)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(trained, settings.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        accumulated = 0 if accelerator.sync_gradients else accumulated + 1
        if not accelerator.sync_gradients:
            continue
        if ema is not None:
            ema.step(trained)
        if teacher is not None:
            teacher.ema.step(generator.separation.parameters())
            teacher.update(generator.separation)
        step += 1
        stopping = run.end_step(step, losses, schedule, progress)
        if run.is_due(step, settings.validation_steps) and accelerator.is_main_process:
            with averaged(ema, trained):
                validate(accelerator, pipe, generator, sampler, settings, step)
            set_generator_mode(generator, settings.train_separator)
        if stopping:
            break
    progress.close()
    accelerator.wait_for_everyone()

    if step == settings.max_train_steps and accelerator.is_main_process:
        if ema is not None:
            ema.copy_to(trained)
        save_pipeline(pipe, settings, weight_dtype)
        finish(run, pipe, Path(__file__).name, repo_id, DRAWN)
    del model, compute_losses
    run.end(step, "avgas generate recording.wav --model {}")


def build_optimizer(settings: GeneratorSettings, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """
    AdamW, of bitsandbytes if asked for.

    Raises:
        ValueError: If bitsandbytes is asked for and missing.
    """
    if not settings.use_8bit_adam:
        return torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
    try:
        import bitsandbytes
    except ImportError:
        raise ValueError("use_8bit_adam needs bitsandbytes: pip install bitsandbytes.") from None
    return bitsandbytes.optim.AdamW8bit(groups, weight_decay=settings.weight_decay)


class StepLosses:
    """
    The losses of a batch.

    Args:
        settings ([`GeneratorSettings`]): The run's.
        model (`torch.nn.Module`): [`Generator`], as it was prepared for training.
        pipe ([`AVGASPipeline`]): Its autoencoder and scheduler are used.
        target_builder ([`TargetBuilder`]): Of the separator's targets, with `train_separator`.
        accelerator (`Accelerator`): The run's.
        picture_side (`int`): Of the target pictures, in pixels.
    """

    def __init__(
        self,
        settings: GeneratorSettings,
        model: torch.nn.Module,
        pipe: AVGASPipeline,
        target_builder: TargetBuilder,
        accelerator: Accelerator,
        picture_side: int,
    ) -> None:
        self.settings = settings
        self.model = model
        self.vae = pipe.vae
        self.picture_size = (picture_side, picture_side)
        self.target_builder = target_builder
        self.separation = accelerator.unwrap_model(model).separation
        self.noise = Noise(pipe.scheduler, settings.noise_offset, settings.snr_gamma)
        self.processes = Processes(accelerator)

    def __call__(self, batch: dict[str, Any], random: RowRandom) -> dict[str, torch.Tensor]:
        """By name: `diffusion`, and with `train_separator` those of the separator."""
        settings, shown = self.settings, batch["shown"]
        with torch.no_grad():
            latents = sample_latents(self.vae, batch, random)
        noisy, timesteps, target = self.noise.add(latents, random)
        dropped = random.uniform(shown.device) < settings.condition_dropout
        mixtures = slots = class_logits = None
        if "slots" in batch:
            slots = batch["slots"]
        else:
            mixtures = {"inputs": batch["encoder"], "spectrogram": None, "labels": batch["labels"]}
            if settings.train_separator:
                mixtures["spectrogram"], targets = self.target_builder.build(batch, self.separation.separator.config)
            else:
                with torch.no_grad():
                    slots, found, _ = encode_sources(self.separation, **mixtures)
                shown, mixtures = shown & found, None
        separator = self.separation.separator
        if slots is not None and separator.label_tokens is not None:
            with torch.no_grad():
                class_logits = separator.class_head(slots)
            # One slot has the labels of all sources.
            if separator.config.num_slots > 1:
                class_logits = correct_labels(class_logits, batch["labels"], separator.config.label_temperature)
        if settings.slot_noise:
            slots = add_slot_noise(slots, settings.slot_noise, random)
        if settings.slot_shuffle:
            slots = shuffle_slots(slots, settings.slot_shuffle, random)
        sizes = time_ids(batch["picture_sizes"].to(noisy.device), *self.picture_size)
        prediction, output = self.model(
            noisy.to(latents.dtype), timesteps, shown, dropped, slots, class_logits, mixtures, sizes
        )
        losses = {
            "diffusion": diffusion_loss(prediction, target, timesteps, self.noise.scheduler, self.noise.snr_gamma)
        }
        if settings.train_separator:
            losses |= losses_for(output)(output, targets, settings.label_smoothing, self.processes)
        return losses


@torch.no_grad()
def validate(
    accelerator: Accelerator,
    pipe: AVGASPipeline,
    generator: Generator,
    sampler: MixtureSampler,
    settings: GeneratorSettings,
    step: int,
) -> None:
    """A grid of the same mixtures with the same noise every time: real picture, mixed image, separated images."""
    generator.eval()
    drawn = AVGASPipeline(**pipe.components).to(accelerator.device)
    drawn.set_progress_bar_config(disable=True)
    most, rows = settings.num_sources[1], []
    # Mixtures of an epoch that is never trained on, without augmentation.
    for number in range(settings.num_validation_mixtures):
        plan = replace(sampler.plan(number, epoch=10**6), augment=False)
        mixture = sampler.render(plan)
        with accelerator.autocast():
            output = drawn(
                mixture.waveform,
                sampling_rate=mixture.sampling_rate,
                num_sources=min(len(mixture.labels), drawn.separator.config.num_slots),
                separate=True,
                num_inference_steps=settings.num_inference_steps,
                guidance_scale=settings.guidance_scale,
                height=sampler.image_size,
                width=sampler.image_size,
                generator=torch.Generator().manual_seed(number),
                return_audio=False,
            )
        pictures = [mixture.image, output.images[0], *(source.images[0] for source in output.sources[0])]
        blank = np.full((sampler.image_size, sampler.image_size, 3), 255, np.uint8)
        cells = [np.asarray(collage([picture], sampler.image_size)) for picture in pictures]
        rows.append(np.concatenate([*cells, *[blank] * (most + 2 - len(cells))], axis=1))
    grid = np.concatenate(rows)
    with atomic_path(Path(settings.output_dir) / f"validation-{step}.png") as path:
        PIL.Image.fromarray(grid).save(path)
    for tracker in accelerator.trackers:
        if tracker.name == "tensorboard":
            tracker.writer.add_images("validation", grid[None], step, dataformats="NHWC")


if __name__ == "__main__":
    run_script(main)
