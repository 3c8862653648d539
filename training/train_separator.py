"""
Train the hearing half of a pipeline: audio encoder and separator, on mixtures of clips.

    accelerate launch training/train_separator.py --pretrained_model_name_or_path untrained \\
        --config training/configs/mini-separator.yaml --output_dir runs/separator
    accelerate launch training/train_separator.py --pretrained_model_name_or_path untrained \\
        --dataset vggsound-shards --image_encoder openai/clip-vit-base-patch32 --output_dir runs/separator

The checkpoint it begins with may be untrained (`AVGASPipeline.from_stable_diffusion`); the one it writes is a pipeline
with the trained audio encoder and separator in place of the old ones. `--preset single_embedding` and `--preset paper`
train the baselines. `--resume_from_checkpoint latest` goes on exactly.
"""

import math
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from config import parse_config, run_script, setting
from device_mixtures import DeviceMixer
from diffusers.training_utils import EMAModel
from listening import Hearing, drawing_weights, train_mode
from losses import SeparationTargets, losses_for, match_sources
from processes import Processes
from run import Run, SoundscapeRunConfig
from run_card import finish
from soundscape_dataset import Collator, SoundscapeDataset, window_s
from teachers import Lessons, Teacher, see_pictures
from training_data import add_sounds, check_labels, hold_out_groups
from transformers import ASTFeatureExtractor, ResNetConfig, ResNetModel

from avgas_pipeline import AudioVisualSeparator, AudioVisualSeparatorOutput, AVGASPipeline
from avgas_pipeline.data.clips import load_clips
from avgas_pipeline.data.mixtures import MixtureSampler
from avgas_pipeline.evaluation import MixtureSet
from avgas_pipeline.evaluation.scoring import presence_average_precision, score_sound
from avgas_pipeline.evaluation.systems import hear
from avgas_pipeline.models.encoder_adapters import token_layout


PRESETS = ("separator", "single_embedding", "paper")


@dataclass
class SeparatorConfig(SoundscapeRunConfig):
    """Settings of `train_separator.py`."""

    output_dir: str = setting("runs/separator", "the run's folder")
    preset: str = setting("separator", "separator, single_embedding (no separation) or paper (AV-GAS's ResNet-18)")
    num_sources: list[int] = setting([1, 3], "fewest and most sources of a mixture")
    made_sounds: str | None = setting(None, "folder of make_sounds.py: learnt with the recordings, never validated on")
    balance: str = setting("label", "draw labels evenly, or source groups: label or source_group")
    gain_range_db: float = setting(6.0, "levels of sources, plus or minus")
    learning_rate: float = setting(3e-4, "highest learning rate of the separator")
    encoder_learning_rate: float = setting(3e-5, "that of the audio encoder; 0 freezes it")
    mix_on_device: bool = setting(
        False, "make mixtures on the GPU, if all clips fit there, instead of in a loader's processes"
    )
    encoder_trainable: str | None = setting(
        None, "train only encoder weights whose name begins with one of these, ','"
    )
    mask_fraction: float = setting(1.0, "of a batch's mixtures, whose masks are learnt: they cost half of a step")
    ema_decay: float = setting(0.999, "of the averaged weights, which teach A2A and are saved")
    validation_fraction: float = setting(0.1, "of every label's source groups, held out to validate on; 0 for none")
    num_validation_mixtures: int = setting(200, "mixtures of held-out clips")


def build_models(config: SeparatorConfig, pipe: AVGASPipeline) -> tuple[Any, Any, AudioVisualSeparator]:
    """Feature extractor, audio encoder and separator of a preset, from the checkpoint's."""
    if config.preset not in PRESETS:
        raise ValueError(f"preset has to be one of {', '.join(PRESETS)} but is {config.preset!r}.")
    extractor, encoder, separator = pipe.audio_feature_extractor, pipe.audio_encoder, pipe.separator
    if config.preset == "separator":
        return extractor, encoder, separator
    slots = {"single_embedding": 1, "paper": 2}[config.preset]
    settings = {**separator.config, "num_slots": slots, "num_layers": 0, "mask_channels": 0}
    if config.preset == "single_embedding" and settings["label_temperature"]:
        # Its one slot has all labels, not one of them.
        settings["label_temperature"] = 1.0
    if config.preset == "paper":
        if encoder.main_input_name != "pixel_values":
            # Features of encoders that take no pictures need not be spectrograms.
            extractor = ASTFeatureExtractor(num_mel_bins=64, max_length=round(100 * pipe.window_s))
        encoder = ResNetModel(
            ResNetConfig(
                num_channels=1,
                embedding_size=64,
                hidden_sizes=[64, 128, 256, 512],
                depths=[2, 2, 2, 2],
                layer_type="basic",
            )
        )
        settings = {**settings, "num_prefix_tokens": 0, "num_frequency_patches": 1, **token_layout(encoder)}
    settings = {key: value for key, value in settings.items() if not key.startswith("_")}
    baseline = AudioVisualSeparator(**settings)
    # The checkpoint's U-Net goes on with the condition tokens it knows.
    with torch.no_grad():
        for own, known in zip(drawing_weights(baseline), drawing_weights(separator), strict=True):
            own.copy_(known)
    return extractor, encoder, baseline


def loss_weights(config: SeparatorConfig) -> dict[str, float]:
    """Of every loss. The paper's separator learns from A2A and A2V; presence and label only read it out."""
    if config.preset == "paper":
        return {"presence": 0.01, "label": 0.01, "a2a": 1.0, "a2v": 1.0, "mask": 0.0, "aux": 0.0}
    return config.loss_weights()


def parameter_groups(config: SeparatorConfig, hearing: Hearing) -> list[dict[str, Any]]:
    """The separator without what only the generator trains, and the trainable part of the encoder."""
    for weight in drawing_weights(hearing.separator):
        weight.requires_grad_(False)
    prefixes = tuple(config.encoder_trainable.replace(" ", "").split(",")) if config.encoder_trainable else ("",)
    rate = config.learning_rate if config.preset == "paper" else config.encoder_learning_rate
    if not any(name.startswith(prefixes) for name, _ in hearing.audio_encoder.named_parameters()):
        raise ValueError(f"encoder_trainable: no weight's name begins with {config.encoder_trainable!r}.")
    for name, weight in hearing.audio_encoder.named_parameters():
        weight.requires_grad_(rate > 0 and name.startswith(prefixes))
    groups = [{"params": [w for w in hearing.separator.parameters() if w.requires_grad], "lr": config.learning_rate}]
    encoder = [weight for weight in hearing.audio_encoder.parameters() if weight.requires_grad]
    return [*groups, {"params": encoder, "lr": rate}] if encoder else groups


def main(argv: list[str] | None = None) -> None:
    config = parse_config(SeparatorConfig, __doc__, argv)
    if config.pretrained_model_name_or_path is None:
        raise ValueError("pretrained_model_name_or_path is needed: the checkpoint to begin with.")
    if not 0 < config.mask_fraction <= 1:
        raise ValueError(f"mask_fraction has to be above 0 and at most 1 but is {config.mask_fraction}.")
    if config.mix_on_device and config.repeat_examples:
        raise ValueError("mix_on_device makes new mixtures for every batch: repeat_examples can't be.")
    run = Run(config)
    accelerator = run.accelerator
    pipe = AVGASPipeline.from_pretrained(config.pretrained_model_name_or_path, dtype=torch.float32)
    extractor, encoder, separator = build_models(config, pipe)
    weights = loss_weights(config)
    clips, pictures = load_clips(config.dataset)
    label2id = check_labels(clips["label"], separator.id2label, config.pretrained_model_name_or_path)
    known, held_out = hold_out_groups(clips, config.validation_fraction, config.seed)
    if config.made_sounds:
        known = add_sounds(known, config.made_sounds)
    picture_embeds, picture_rows = see_pictures(
        config.image_encoder if weights["a2v"] else None, pictures or clips, separator, accelerator.device
    )
    fewest, most = config.num_sources if config.preset != "paper" else (2, 2)
    options = {"duration_s": window_s(extractor), "sampling_rate": extractor.sampling_rate, "target": None}
    sampler = MixtureSampler(
        known,
        pictures,
        seed=config.seed,
        num_sources=(fewest, most),
        gain_range_db=config.gain_range_db,
        augment=config.augment_fraction,
        balance=config.balance,
        cache_clips=not config.mix_on_device,
        **options,
    )
    num_epochs = math.ceil(config.max_train_steps * run.examples_per_step / config.num_examples)
    collate = Collator(
        extractor,
        encoder,
        label2id,
        most,
        picture_rows,
        with_stems=weights["a2a"] > 0,
    )

    if config.gradient_checkpointing:
        encoder.gradient_checkpointing_enable()
        separator.enable_gradient_checkpointing()
    hearing = Hearing(encoder, separator)
    groups = parameter_groups(config, hearing)
    optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
    schedule = run.schedule(optimizer)
    ema = EMAModel(hearing.parameters(), decay=config.ema_decay)
    teacher = Teacher(hearing, ema)
    lessons = Lessons(
        teacher if weights["a2a"] else None,
        picture_embeds,
        extractor.sampling_rate,
        accelerator,
        config.mask_fraction,
    )
    model, optimizer, schedule = accelerator.prepare(hearing, optimizer, schedule)
    teacher.to(accelerator.device)
    accelerator.register_for_checkpointing(ema)

    step = run.checkpoints.resume(config.resume_from_checkpoint)
    teacher.update(hearing)
    if config.mix_on_device:
        mixer = DeviceMixer(sampler, label2id, accelerator.device, picture_rows, accelerator.is_main_process)
        loader = mixer.batches(collate, config.train_batch_size, run.batch_numbers(step))
    else:
        examples = SoundscapeDataset(sampler, config.num_examples, num_epochs, config.repeat_examples)
        loader = run.loader(examples, step, collate)
    validation = None
    if len(held_out):
        validation_sampler = MixtureSampler(
            held_out, pictures, config.seed, (1, min(most, len(set(held_out["label"])))), **options
        )
        plans = [validation_sampler.plan(number) for number in range(config.num_validation_mixtures)]
        validation = MixtureSet(validation_sampler, plans, config.dataset, "train", "held-out source groups")
    run.start_trackers("separator")
    processes = Processes(accelerator)

    progress = run.progress_bar(step)
    train_mode(hearing)
    for batch in loader:
        with accelerator.accumulate(model):
            spectrogram, targets = lessons.of(batch, separator.config)
            output = AudioVisualSeparatorOutput(*model(batch["encoder"], spectrogram))
            losses, _ = losses_for(output)(output, targets, config.temperature, config.label_smoothing, processes)
            loss = sum(weights[name] * value for name, value in losses.items())
            run.check_finite(loss, step)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), config.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        if not accelerator.sync_gradients:
            continue
        ema.step(hearing.parameters())
        teacher.update(hearing)
        step += 1
        stopping = run.end_step(step, {**losses, "loss": loss}, schedule, progress)
        if validation is not None and run.is_due(step, config.validation_steps) and accelerator.is_main_process:
            measured = validate(teacher, pipe, extractor, validation, picture_embeds, collate)
            run.log(measured, step)
            accelerator.print(f"step {step}: " + ", ".join(f"{name} {value:.3f}" for name, value in measured.items()))
        if stopping:
            break
    progress.close()

    if step == config.max_train_steps and accelerator.is_main_process:
        save(teacher, pipe, extractor, config)
        finish(run, pipe, Path(__file__).name)
    del model
    run.end()


@torch.no_grad()
def validate(
    teacher: Teacher,
    pipe: AVGASPipeline,
    extractor: Any,
    validation: MixtureSet,
    picture_embeds: torch.Tensor | None,
    collate: Collator,
) -> dict[str, float]:
    """
    What the averaged model hears in mixtures of held-out clips: label recall, count accuracy, presence AP, median
    SI-SDRi, and alignment R@1: how often a slot is nearest to its own clean clip, or picture, among those of 32
    mixtures.
    """
    listening = AVGASPipeline(
        vae=None,
        unet=None,
        scheduler=pipe.scheduler,
        audio_encoder=teacher.hearing.audio_encoder,
        audio_feature_extractor=extractor,
        separator=teacher.hearing.separator,
        speed_variation=pipe.config.speed_variation,
    )
    drawings = []
    for number in range(len(validation)):
        drawings += hear(listening, [validation[number]], presence_threshold=None)[1]
    values = score_sound(drawings, validation)
    result = {
        "val/label_recall": float(np.nanmean(values["label_recall"])),
        "val/label_recall_by_group": float(np.nanmean(values["label_recall_by_group"])),
        "val/all_labels": float(np.nanmean(values["label_all"])),
        "val/count_accuracy": float(np.nanmean(values["count_accuracy"])),
        "val/presence_ap": presence_average_precision(drawings),
    }
    if not np.isnan(values["si_sdri_db"]).all():
        result["val/si_sdri_db"] = float(np.nanmedian(values["si_sdri_db"]))
    return {**result, **alignment_recall(teacher, validation, picture_embeds, collate)}


@torch.no_grad()
def alignment_recall(
    teacher: Teacher, validation: MixtureSet, picture_embeds: torch.Tensor | None, collate: Collator
) -> dict[str, float]:
    """R@1 of slots' embeddings against their own among all clean clips, and pictures, of 32 mixtures."""
    mixtures = [validation.sampler.render(plan) for plan in validation.plans[:32]]
    collate = copy(collate)
    collate.with_stems = True
    device = next(teacher.hearing.parameters()).device
    batch = send_to_device(collate(mixtures), device)
    labels = batch["labels"]
    clean = teacher.embed(batch["clean_encoder"], labels)
    output = AudioVisualSeparatorOutput(*teacher.hearing(batch["encoder"], None))
    slots = match_sources(output, SeparationTargets(labels, audio_embeds=clean))
    rows, sources = (slots >= 0).nonzero(as_tuple=True)
    heard = {"val/a2a_recall": (output.audio_embeds, clean[rows, sources])}
    if picture_embeds is not None:
        shown = picture_embeds.to(device)[batch["picture_rows"][rows, sources]]
        heard["val/a2v_recall"] = (output.visual_embeds, shown)
    result = {}
    for name, (embeds, references) in heard.items():
        nearest = (embeds[rows, slots[rows, sources]] @ references.T).argmax(dim=1)
        # Several sources may share a picture.
        result[name] = float((references[nearest] == references).all(dim=1).float().mean())
    return result


def save(teacher: Teacher, pipe: AVGASPipeline, extractor: Any, config: SeparatorConfig) -> None:
    """The checkpoint with the averaged audio encoder and separator."""
    pipe.register_modules(
        audio_encoder=teacher.hearing.audio_encoder,
        separator=teacher.hearing.separator,
        audio_feature_extractor=extractor,
    )
    out = Path(config.output_dir)
    pipe.save_pretrained(out)


if __name__ == "__main__":
    run_script(main)
