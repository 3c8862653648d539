"""
Train the drawing half of a pipeline: LoRA on the U-Net and the separator's token head, on mixtures and their pictures.

    accelerate launch training/train.py --pretrained_model_name_or_path runs/separator \\
        --dataset data/soundscapes-mini --output_dir runs/generator

`--full` trains all weights of the U-Net and the token head, `--train_separator` the audio encoder and the separator as
well, end to end: on the separator's losses, with its teachers, and through the condition tokens. Writes a pipeline,
with LoRA layers beside it unless `--full`, curves, and grids of pictures (`validation-<step>.png`).
`--resume_from_checkpoint latest` goes on exactly.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from checkpoints import save_trainable_only
from config import parse_config, run_script, setting
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from diffusers.training_utils import EMAModel, cast_training_params
from example_cache import ExampleCache
from latents import encode
from listening import Hearing, drawing_layers, drawing_weights, hear_sources, train_mode
from losses import diffusion_loss, losses_for
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from processes import Processes
from randomness import RowRandom
from run import Run, SoundscapeRunConfig
from run_card import finish
from soundscape_dataset import Collator, SoundscapeDataset, window_s
from teachers import Lessons, Teacher, see_pictures
from training_data import check_labels, most_colourful

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.data.clips import load_clips
from avgas_pipeline.data.mixtures import TARGETS, MixtureSampler
from avgas_pipeline.data.scenes import collage


# Of the averaged audio encoder and separator that teach A2A.
TEACHER_DECAY = 0.999
# Of a label that is known, beside zeros, at a temperature of 1.
CERTAIN_LOGIT = 20.0
# Layers of the separator that get LoRA; the last only if it has them.
TOKEN_LAYERS = ["token_head.0", "token_head.2", "label_tokens"]


@dataclass
class GeneratorConfig(SoundscapeRunConfig):
    """Settings of `train.py`."""

    output_dir: str = setting("runs/generator", "the run's folder")
    full: bool = setting(False, "train all weights of the U-Net and the token head, instead of LoRA layers")
    train_separator: bool = setting(False, "train audio encoder and separator, too: end to end")
    rank: int = setting(16, "of the LoRA layers")
    lora_alpha: int | None = setting(None, "their scale times the rank; the rank if not given")
    lora_dropout: float = setting(0.0, "in the LoRA layers")
    lora_target_modules: list[str] = setting(["to_q", "to_k", "to_v", "to_out.0"], "layers of the U-Net that get them")
    cache_examples: bool = setting(False, "hear and encode them once, and keep that on disk; implies repeat_examples")
    max_pictures_per_label: int | None = setting(
        None, "learn to draw so many pictures of each label, the most colourful; all if not given"
    )
    mixture_target: str = setting("compose", "picture of a mixture: compose, collage or single")
    separated_fraction: float = setting(0.5, "of examples, which show one of their sources alone")
    resolution: int | None = setting(None, "side of the pictures, in pixels; the checkpoint's if not given")
    train_batch_size: int = setting(8, "mixtures per step and process")
    learning_rate: float = setting(1e-4, "highest learning rate")
    separator_learning_rate: float = setting(1e-4, "that of audio encoder and separator, with train_separator")
    separation_weight: float = setting(1.0, "of the separation losses, with train_separator")
    lr_scheduler: str = setting("constant_with_warmup", "one of diffusers' schedules")
    use_8bit_adam: bool = setting(False, "AdamW of bitsandbytes")
    condition_dropout: float = setting(0.1, "of examples, which learn the null tokens, for guidance")
    slot_noise: float = setting(
        0.0, "on slots, as a multiple of their spread: recordings never heard have less certain ones"
    )
    slot_shuffle: float = setting(
        0.0, "of mixtures, whose sources get each other's slots but keep their labels, so that labels decide"
    )
    snr_gamma: float | None = setting(None, "min-SNR weighting; 5 is usual")
    noise_offset: float = setting(0.0, "of the noise's mean; 0.1 is usual")
    ema_decay: float = setting(0.0, "of averaged weights, which are saved; 0 does without")
    num_validation_mixtures: int = setting(4, "mixtures in the grid")
    num_inference_steps: int = setting(25, "denoising steps of the grid")
    guidance_scale: float = setting(4.0, "of the grid")


class Generator(torch.nn.Module):
    """
    U-Net, separator and audio encoder as one module, one call a step, as distributed training wants it.

    Args:
        unet (`UNet2DConditionModel`): Predicts the noise.
        hearing ([`Hearing`]): Audio encoder and separator.
    """

    def __init__(self, unet: UNet2DConditionModel, hearing: Hearing) -> None:
        super().__init__()
        self.unet = unet
        self.hearing = hearing

    def forward(
        self,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        shown: torch.Tensor,
        dropped: torch.Tensor,
        slots: torch.Tensor | None = None,
        class_logits: torch.Tensor | None = None,
        heard: dict[str, Any] | None = None,
    ) -> tuple[torch.Tensor, tuple | None]:
        """
        Args:
            noisy (`torch.Tensor` of shape `(B, C, H, W)`): Latents.
            timesteps (`torch.Tensor` of shape `(B,)`): Their noise levels.
            shown (`torch.Tensor` of shape `(B, N)`): Which sources the picture shows.
            dropped (`torch.Tensor` of shape `(B,)`): Which rows see the null tokens instead.
            slots (`torch.Tensor` of shape `(B, N, D)`, *optional*): The sources' slots, heard before.
            class_logits (`torch.Tensor` of shape `(B, N, num_labels)`, *optional*): Their labels, if not by `slots`.
            heard (`dict`, *optional*): What to hear, in place of `slots`: see [`hear_sources`].

        Returns:
            The U-Net's prediction, and the separator's output if it has heard.
        """
        output = None
        if heard is not None:
            slots, found, output = hear_sources(self.hearing, **heard)
            shown = shown & found
        separator = self.hearing.separator
        # (B, N, M, C)
        tokens = separator.condition(slots.to(separator.null_tokens.dtype), class_logits)
        nothing = dropped | ~shown.any(dim=1)
        tokens = torch.where(nothing[:, None, None, None], separator.null_tokens.expand_as(tokens), tokens)
        first = torch.zeros_like(shown)
        first[:, 0] = True
        mask = torch.where(nothing[:, None], first, shown)
        prediction = self.unet(
            noisy,
            timesteps,
            encoder_hidden_states=tokens.flatten(1, 2),
            encoder_attention_mask=mask.repeat_interleave(tokens.shape[2], dim=1),
            return_dict=False,
        )[0]
        return prediction, output


def prepare_weights(config: GeneratorConfig, generator: Generator) -> list[dict[str, Any]]:
    """Adds LoRA layers or frees what is trained; returns the optimiser's parameter groups."""
    unet, hearing = generator.unet, generator.hearing
    generator.requires_grad_(False)
    separator = hearing.separator
    alpha = config.rank if config.lora_alpha is None else config.lora_alpha
    lora = {"r": config.rank, "lora_alpha": alpha, "lora_dropout": config.lora_dropout}
    lora["init_lora_weights"] = "gaussian"
    if config.full:
        unet.requires_grad_(True)
    else:
        unet.add_adapter(LoraConfig(target_modules=config.lora_target_modules, **lora))
    if config.train_separator:
        hearing.requires_grad_(True)
    elif config.full:
        for weight in drawing_weights(separator):
            weight.requires_grad_(True)
    else:
        layers = TOKEN_LAYERS if separator.label_tokens is not None else TOKEN_LAYERS[:-1]
        separator.add_adapter(LoraConfig(target_modules=layers, **lora))
    draws = {id(weight) for weight in (*unet.parameters(), *drawing_weights(separator))}
    trained = [weight for weight in generator.parameters() if weight.requires_grad]
    drawing = [weight for weight in trained if id(weight) in draws]
    listening = [weight for weight in trained if id(weight) not in draws]
    groups = [{"params": drawing, "lr": config.learning_rate}]
    return [*groups, {"params": listening, "lr": config.separator_learning_rate}] if listening else groups


def set_mode(generator: Generator, config: GeneratorConfig) -> None:
    """Training mode, with its dropouts, for what is trained; what only listens hears as it does in use."""
    generator.train()
    if config.train_separator:
        train_mode(generator.hearing)
    else:
        generator.hearing.eval()
        for layer in drawing_layers(generator.hearing.separator):
            layer.train()


def build_optimizer(config: GeneratorConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """AdamW, of bitsandbytes if asked for."""
    if not config.use_8bit_adam:
        return torch.optim.AdamW(groups, weight_decay=config.weight_decay)
    try:
        import bitsandbytes
    except ImportError:
        raise ValueError("use_8bit_adam needs bitsandbytes: pip install bitsandbytes.") from None
    return bitsandbytes.optim.AdamW8bit(groups, weight_decay=config.weight_decay)


class Noise:
    """
    Noised latents and what is to be predicted of them, as the scheduler says: epsilon, v, sample or flow.

    Args:
        scheduler (`SchedulerMixin`): The pipeline's. One of its own is made of its configuration: drawing changes the
            pipeline's timesteps, and many schedulers add noise only in their own order, or at another scale.
        noise_offset (`float`): Of the noise's mean.

    Attributes:
        scheduler (`SchedulerMixin`): Its own.
    """

    def __init__(self, scheduler: Any, noise_offset: float) -> None:
        self.noise_offset = noise_offset
        self.is_flow = hasattr(scheduler, "scale_noise")
        if not self.is_flow and "beta_schedule" not in scheduler.config:
            raise ValueError(f"A U-Net can't be trained with {type(scheduler).__name__}.")
        self.scheduler = (type(scheduler) if self.is_flow else DDPMScheduler).from_config(scheduler.config)

    def add(self, latents: torch.Tensor, random: RowRandom) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Noisy latents, timesteps `(B,)`, and the target, all of `latents`' shape but the timesteps."""
        device = latents.device
        noise = random.normal(latents.shape, device)
        if self.noise_offset:
            noise = noise + self.noise_offset * random.normal((*latents.shape[:2], 1, 1), device)
        steps = random.integers(self.scheduler.config.num_train_timesteps, device)
        if self.is_flow:
            # Noise levels in the scheduler's own order, the highest first.
            sigmas = self.scheduler.sigmas.to(device)[steps].view(-1, 1, 1, 1)
            timesteps = self.scheduler.timesteps.to(device)[steps]
            return (1 - sigmas) * latents + sigmas * noise, timesteps, noise - latents
        noisy = self.scheduler.add_noise(latents, noise, steps)
        kind = self.scheduler.config.prediction_type
        targets = {"epsilon": lambda: noise, "sample": lambda: latents}
        targets["v_prediction"] = lambda: self.scheduler.get_velocity(latents, noise, steps)
        if kind not in targets:
            raise ValueError(f"The scheduler's prediction_type {kind!r} can't be trained here.")
        return noisy, steps, targets[kind]()


def main(argv: list[str] | None = None) -> None:
    config = parse_config(GeneratorConfig, __doc__, argv)
    check(config)
    run = Run(config)
    accelerator = run.accelerator
    pipe = AVGASPipeline.from_pretrained(config.pretrained_model_name_or_path, dtype=torch.float32)
    if config.slot_shuffle and pipe.separator.label_tokens is None:
        raise ValueError(f"slot_shuffle: {config.pretrained_model_name_or_path} draws by slots alone, not by labels.")
    clips, pictures = load_clips(config.dataset)
    label2id = check_labels(clips["label"], pipe.separator.id2label, config.pretrained_model_name_or_path)
    if config.max_pictures_per_label and pictures is not None:
        pictures = most_colourful(pictures, config.max_pictures_per_label)
    resolution = config.resolution or pipe.default_size[0]
    extractor = pipe.audio_feature_extractor
    sampler = MixtureSampler(
        clips,
        pictures,
        seed=config.seed,
        num_sources=tuple(config.num_sources),
        duration_s=window_s(extractor),
        sampling_rate=extractor.sampling_rate,
        augment=config.augment_fraction,
        target=config.mixture_target,
        image_size=resolution,
    )
    picture_embeds, picture_rows = see_pictures(
        config.image_encoder if config.train_separator and config.a2v_weight else None,
        pictures or clips,
        pipe.separator,
        accelerator.device,
    )
    shows_all = pipe.separator.config.num_slots == 1
    collate = Collator(
        extractor,
        pipe.audio_encoder,
        label2id,
        config.num_sources[1],
        sampler=sampler,
        separated_fraction=0.0 if shows_all else config.separated_fraction,
        picture_rows=picture_rows,
        with_stems=config.train_separator and config.a2a_weight > 0,
    )
    cache = None
    if config.cache_examples:
        models = {"audio_encoder": pipe.audio_encoder, "separator": pipe.separator, "vae": pipe.vae}
        cache = ExampleCache(Path(config.output_dir) / "cache", run.settings | {"dataset": config.dataset}, models)
    generator = Generator(pipe.unet, Hearing(pipe.audio_encoder, pipe.separator))
    groups = prepare_weights(config, generator)
    num_pixels = (resolution // pipe.vae_scale_factor) ** 2
    if accelerator.device.type == "cpu" and accelerator.mixed_precision == "bf16" and num_pixels <= 256:
        # PyTorch's fused attention would take half of a step; in float32, and on larger latents, it is the faster one.
        pipe.unet.set_attn_processor(AttnProcessor())
    if config.gradient_checkpointing:
        pipe.unet.enable_gradient_checkpointing()
    dtypes = {"fp16": torch.float16, "bf16": torch.bfloat16}
    weight_dtype = dtypes.get(accelerator.mixed_precision, torch.float32)
    pipe.vae.requires_grad_(False).to(accelerator.device, weight_dtype)
    if not config.full:
        pipe.unet.to(weight_dtype)
    if weight_dtype != torch.float32:
        cast_training_params([generator], dtype=torch.float32)

    optimizer = build_optimizer(config, groups)
    schedule = run.schedule(optimizer)
    trained = [weight for group in groups for weight in group["params"]]
    save_trainable_only(accelerator)
    model, optimizer, schedule = accelerator.prepare(generator, optimizer, schedule)
    ema = EMAModel(trained, decay=config.ema_decay) if config.ema_decay else None
    if ema is not None:
        ema.to(accelerator.device)
        accelerator.register_for_checkpointing(ema)

    teacher = None
    if config.train_separator and config.a2a_weight:
        teacher = Teacher(generator.hearing, EMAModel(generator.hearing.parameters(), decay=TEACHER_DECAY))
        teacher.to(accelerator.device)
        accelerator.register_for_checkpointing(teacher.ema)
    lessons = Lessons(teacher, picture_embeds, extractor.sampling_rate, accelerator)

    step = run.checkpoints.resume(config.resume_from_checkpoint)
    if teacher is not None:
        teacher.update(generator.hearing)
    examples: Any = SoundscapeDataset(
        sampler,
        config.num_examples,
        math.ceil(config.max_train_steps * run.examples_per_step / config.num_examples),
        config.repeat_examples or config.cache_examples,
    )
    collate_fn: Any = collate
    if cache is not None:
        cache.build(examples, collate, generator.hearing, pipe.vae, accelerator, config.dataloader_num_workers)
        examples, collate_fn = cache.dataset(examples), None
    loader = run.loader(examples, step, collate_fn)
    run.start_trackers("generator")
    compute_losses = StepLosses(config, model, pipe, lessons, accelerator)
    progress = run.progress_bar(step)
    weights = {name: config.separation_weight * weight for name, weight in config.loss_weights().items()}
    weights["diffusion"] = 1.0
    set_mode(generator, config)
    accumulated = 0
    for batch in loader:
        with accelerator.accumulate(model):
            # Of all batches so far, processes take turns.
            turn = step * config.gradient_accumulation_steps + accumulated
            first = (turn * accelerator.num_processes + accelerator.process_index) * config.train_batch_size
            random = RowRandom(config.seed, range(first, first + config.train_batch_size))
            losses = compute_losses(batch, random)
            loss = sum(weights[name] * value for name, value in losses.items())
            run.check_finite(loss, step)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(trained, config.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        accumulated = 0 if accelerator.sync_gradients else accumulated + 1
        if not accelerator.sync_gradients:
            continue
        if ema is not None:
            ema.step(trained)
        if teacher is not None:
            teacher.ema.step(generator.hearing.parameters())
            teacher.update(generator.hearing)
        step += 1
        stopping = run.end_step(step, losses, schedule, progress)
        if run.is_due(step, config.validation_steps) and accelerator.is_main_process:
            validate(accelerator, pipe, generator, sampler, ema, trained, config, step)
            set_mode(generator, config)
        if stopping:
            break
    progress.close()
    accelerator.wait_for_everyone()

    if step == config.max_train_steps and accelerator.is_main_process:
        if ema is not None:
            ema.copy_to(trained)
        save(pipe, config, weight_dtype)
        finish(run, pipe, Path(__file__).name)
    del model, compute_losses
    run.end()


def check(config: GeneratorConfig) -> None:
    """
    Raises:
        ValueError: For settings that are missing or do not go together.
    """
    if config.pretrained_model_name_or_path is None:
        raise ValueError("pretrained_model_name_or_path is needed: the checkpoint to begin with.")
    if config.mixture_target not in TARGETS:
        raise ValueError(f"mixture_target has to be one of {', '.join(TARGETS)} but is {config.mixture_target!r}.")
    if config.cache_examples and config.train_separator:
        raise ValueError("cache_examples and train_separator do not go together: what is heard changes every step.")
    if config.slot_noise and config.train_separator:
        raise ValueError("slot_noise and train_separator do not go together: slots would learn to drown it.")
    if config.slot_shuffle and config.train_separator:
        raise ValueError("slot_shuffle and train_separator do not go together: sources would learn to be alike.")


class StepLosses:
    """
    The losses of a batch.

    Args:
        config ([`GeneratorConfig`]): The run's.
        model (`torch.nn.Module`): [`Generator`], as it was prepared for training.
        pipe ([`AVGASPipeline`]): Its autoencoder and scheduler are used.
        lessons ([`Lessons`]): What the separator is taught, with `train_separator`.
        accelerator (`Accelerator`): The run's.
    """

    def __init__(
        self,
        config: GeneratorConfig,
        model: torch.nn.Module,
        pipe: AVGASPipeline,
        lessons: Lessons,
        accelerator: Accelerator,
    ) -> None:
        self.config = config
        self.model = model
        self.vae = pipe.vae
        self.lessons = lessons
        self.accelerator = accelerator
        self.hearing = accelerator.unwrap_model(model).hearing
        self.noise = Noise(pipe.scheduler, config.noise_offset)
        self.processes = Processes(accelerator)

    def __call__(self, batch: dict[str, Any], random: RowRandom) -> dict[str, torch.Tensor]:
        """By name: `diffusion`, and with `train_separator` those of the separator."""
        config, shown = self.config, batch["shown"]
        with torch.no_grad():
            latents = encode_pictures(self.vae, batch, random)
        noisy, timesteps, target = self.noise.add(latents, random)
        dropped = random.uniform(shown.device) < config.condition_dropout
        heard = slots = class_logits = None
        if "slots" in batch:
            slots = batch["slots"]
        else:
            heard = {"inputs": batch["encoder"], "spectrogram": None, "labels": batch["labels"]}
            if config.train_separator:
                heard["spectrogram"], targets = self.lessons.of(batch, self.hearing.separator.config)
            else:
                with torch.no_grad():
                    slots, found, _ = hear_sources(self.hearing, **heard)
                shown, heard = shown & found, None
        separator = self.hearing.separator
        if slots is not None and separator.label_tokens is not None:
            with torch.no_grad():
                class_logits = separator.class_head(slots)
            # One slot has the labels of all sources.
            if separator.config.num_slots > 1:
                class_logits = correct(class_logits, batch["labels"], separator.config.label_temperature)
        if config.slot_noise:
            slots = blur(slots, config.slot_noise, random)
        if config.slot_shuffle:
            slots = shuffle(slots, config.slot_shuffle, random)
        prediction, output = self.model(noisy.to(latents.dtype), timesteps, shown, dropped, slots, class_logits, heard)
        losses = {"diffusion": diffusion_loss(prediction, target, timesteps, self.noise.scheduler, config.snr_gamma)}
        if config.train_separator:
            separation = losses_for(output)(
                output, targets, config.temperature, config.label_smoothing, self.processes
            )
            losses |= separation[0]
        return losses


def correct(class_logits: torch.Tensor, labels: torch.Tensor, temperature: float) -> torch.Tensor:
    """
    Label logits `(B, N, num_labels)` of sources with labels `(B, N)`, -1 for none: where they are wrong, those of the
    true label, since that is what the picture shows. `temperature` is what they will be divided by.
    """
    right = class_logits.argmax(dim=-1) == labels
    true = CERTAIN_LOGIT * temperature * F.one_hot(labels.clamp(min=0), class_logits.shape[-1]).to(class_logits)
    return torch.where((right | (labels < 0))[..., None], class_logits, true)


def blur(slots: torch.Tensor, amount: float, random: RowRandom) -> torch.Tensor:
    """Slots `(B, N, D)` with noise, a multiple of each one's spread (conditioning augmentation, arXiv 2106.15282)."""
    return slots + amount * slots.std(dim=-1, keepdim=True) * random.normal(slots.shape, slots.device)


def shuffle(slots: torch.Tensor, fraction: float, random: RowRandom) -> torch.Tensor:
    """Slots `(B, N, D)`, in a fraction of the rows each from any place of its row, even from one of no source."""
    places = torch.arange(slots.shape[1], device=slots.device).expand(slots.shape[:2])
    anywhere = torch.stack([random.integers(slots.shape[1], slots.device) for _ in range(slots.shape[1])], dim=1)
    moved = random.uniform(slots.device) < fraction
    places = torch.where(moved[:, None], anywhere, places)
    return slots.gather(1, places[..., None].expand_as(slots))


def encode_pictures(vae: Any, batch: dict[str, torch.Tensor], random: RowRandom) -> torch.Tensor:
    """Latents `(B, C, H, W)`, float32, scaled as the U-Net wants them; of a cached batch, a new sample of them."""
    if "latent_mean" in batch:
        mean, deviation = batch["latent_mean"].float(), batch["latent_std"].float()
    else:
        mean, deviation = encode(vae, batch["pixel_values"])
    latents = mean + deviation * random.normal(mean.shape, mean.device)
    return (latents - (vae.config.get("shift_factor") or 0.0)) * vae.config.scaling_factor


@torch.no_grad()
def validate(
    accelerator: Accelerator,
    pipe: AVGASPipeline,
    generator: Generator,
    sampler: MixtureSampler,
    ema: EMAModel | None,
    trained: list[torch.nn.Parameter],
    config: GeneratorConfig,
    step: int,
) -> None:
    """A grid of the same mixtures with the same noise every time: real picture, mixed image, separated images."""
    generator.eval()
    if ema is not None:
        ema.store(trained)
        ema.copy_to(trained)
    drawn = AVGASPipeline(**pipe.components, speed_variation=pipe.config.speed_variation).to(accelerator.device)
    drawn.set_progress_bar_config(disable=True)
    most, rows = config.num_sources[1], []
    # Mixtures of an epoch that is never trained on, without augmentation.
    for number in range(config.num_validation_mixtures):
        plan = replace(sampler.plan(number, epoch=10**6), augment=False)
        mixture = sampler.render(plan)
        with accelerator.autocast():
            output = drawn(
                mixture.waveform,
                sampling_rate=mixture.sampling_rate,
                num_sources=min(len(mixture.labels), drawn.separator.config.num_slots),
                separate=True,
                num_inference_steps=config.num_inference_steps,
                guidance_scale=config.guidance_scale,
                height=sampler.image_size,
                width=sampler.image_size,
                generator=torch.Generator().manual_seed(number),
                return_audio=False,
            )
        pictures = [mixture.image, output.images[0], *(source.images[0] for source in output.sources[0])]
        blank = np.full((sampler.image_size, sampler.image_size, 3), 255, np.uint8)
        cells = [np.asarray(collage([picture], sampler.image_size)) for picture in pictures]
        rows.append(np.concatenate([*cells, *[blank] * (most + 2 - len(cells))], axis=1))
    if ema is not None:
        ema.restore(trained)
    grid = np.concatenate(rows)
    PIL.Image.fromarray(grid).save(Path(config.output_dir) / f"validation-{step}.png")
    for tracker in accelerator.trackers:
        if tracker.name == "tensorboard":
            tracker.writer.add_images("validation", grid[None], step, dataformats="NHWC")


def save(pipe: AVGASPipeline, config: GeneratorConfig, weight_dtype: torch.dtype) -> None:
    """The pipeline; LoRA layers, with rank and alpha, beside it."""
    out = Path(config.output_dir)
    pipe.to("cpu")
    layers: dict[str, Any] = {}
    for name in ("unet", "separator"):
        part = getattr(pipe, name)
        if getattr(part, "peft_config", None):
            layers[f"{name}_lora_layers"] = get_peft_model_state_dict(part, adapter_name="default")
            layers[f"{name}_lora_adapter_metadata"] = part.peft_config["default"].to_dict()
            part.unload_lora()
    if weight_dtype != torch.float32:
        # What is not trained was rounded for training, and is saved as it came.
        frozen = ["vae"] if config.full else ["vae", "unet"]
        given = AVGASPipeline.from_pretrained(config.pretrained_model_name_or_path, dtype=torch.float32)
        pipe.register_modules(**{name: getattr(given, name) for name in frozen})
    pipe.save_pretrained(out)
    if layers:
        AVGASPipeline.save_lora_weights(out, **layers)


if __name__ == "__main__":
    run_script(main)
