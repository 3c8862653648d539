"""
Train the judge of soundscapes-mini: a small classifier that says which objects a scene shows, for metrics alone.

    python training/train_judge.py --dataset data/soundscapes-mini --output_dir runs/judge

It shares no weights and no stage with the generator. It judges and does not compete, so it learns from the pictures of
both splits. `--holdout_fold 0` leaves out one of `--num_folds` parts of the pictures (by source group) and reports on
them, which shows how far it goes beyond pictures it knows. `--splits train` makes a teacher for A2V instead.
`--resume_from_checkpoint latest` goes on.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from checkpoints import FREE, Checkpoints, StepSampler, claim_output_dir, start_worker
from config import parse_config, run_script, setting
from datasets import Dataset, concatenate_datasets
from run import RunConfig
from scene_dataset import SceneDataset
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessorPil

from avgas_pipeline.data.soundscapes_mini import load_soundscapes_mini


IMAGE_SIZE = 128


@dataclass
class JudgeConfig(RunConfig):
    """Settings of `train_judge.py`."""

    output_dir: str = setting("runs/judge", "the run's folder")
    hidden_sizes: list[int] = setting([24, 48, 96, 176], "channels of the ResNet's four stages")
    train_batch_size: int = setting(64, "scenes per step")
    max_train_steps: int = setting(4500, "optimiser steps")
    learning_rate: float = setting(2e-3, "highest learning rate")
    weight_decay: float = setting(0.05, "of AdamW")
    splits: list[str] = setting(["train", "test"], "splits whose pictures it learns; train alone for an A2V teacher")
    holdout_fold: int | None = setting(None, "leave out this part of the pictures, and report on it")
    num_folds: int = setting(5, "parts of the pictures, by source group")
    num_validation_scenes: int = setting(2000, "scenes of each kind in the report")


def split_pictures(pictures: Dataset, fold: int | None, num_folds: int) -> tuple[Dataset, Dataset | None]:
    """Pictures to learn from and pictures left out, by source group; a label's only group stays."""
    if fold is None:
        return pictures, None
    if not 0 <= fold < num_folds:
        raise ValueError(f"holdout_fold has to be from 0 to {num_folds - 1} but is {fold}.")
    groups: dict[str, set[str]] = {}
    for label, group in zip(pictures["label"], pictures["source_group"], strict=True):
        groups.setdefault(label, set()).add(group)
    left_out = {
        (label, group)
        for label, members in groups.items()
        for number, group in enumerate(sorted(members))
        if number % num_folds == fold and len(members) > 1
    }
    rows = list(enumerate(zip(pictures["label"], pictures["source_group"], strict=True)))
    kept = [row for row, key in rows if key not in left_out]
    held = [row for row, key in rows if key in left_out]
    return pictures.select(kept), pictures.select(held)


def build_model(labels: list[str], hidden_sizes: list[int]) -> ResNetForImageClassification:
    """A narrow ResNet-18 that says of every label whether the scene shows it."""
    config = ResNetConfig(
        embedding_size=hidden_sizes[0],
        hidden_sizes=list(hidden_sizes),
        depths=[2, 2, 2, 2],
        layer_type="basic",
        problem_type="multi_label_classification",
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
    )
    model = ResNetForImageClassification(config)
    # Most labels are absent from most scenes.
    torch.nn.init.constant_(model.classifier[-1].bias, -math.log(len(labels) / 2))
    return model


@torch.no_grad()
def top_k_accuracy(model: ResNetForImageClassification, scenes: SceneDataset, count: int, workers: int) -> float:
    """Share of scenes of `count` objects whose `count` highest scores are exactly those objects."""
    correct = total = 0
    for batch in DataLoader(scenes, batch_size=128, num_workers=workers):
        logits = model(pixel_values=batch["pixel_values"].to(model.device)).logits.cpu()
        found = torch.zeros_like(logits).scatter_(1, logits.topk(count, dim=1).indices, 1.0)
        correct += int((found * batch["labels"]).sum(dim=1).eq(count).sum())
        total += len(logits)
    return correct / total


def report(
    model: ResNetForImageClassification, pictures: Dataset, labels: list[str], config: JudgeConfig
) -> dict[str, float]:
    """Accuracy on compositions never seen in training."""
    names = {1: "one_object_top1", 2: "two_objects_both_in_top2", 3: "three_objects_all_in_top3"}
    accuracy = {}
    for count, name in names.items():
        scenes = SceneDataset(
            pictures, labels, config.num_validation_scenes, seed=10**6 + config.seed, num_objects=(count, count)
        )
        accuracy[name] = round(top_k_accuracy(model, scenes, count, config.dataloader_num_workers), 4)
    return accuracy


def main(argv: list[str] | None = None) -> None:
    config = parse_config(JudgeConfig, __doc__, argv)
    accelerator = Accelerator(cpu=not torch.accelerator.is_available())
    claim_output_dir(config.output_dir, config.overwrite_output_dir, config.resume_from_checkpoint)
    set_seed(config.seed)
    pictures = concatenate_datasets([load_soundscapes_mini(config.dataset, split)[1] for split in config.splits])
    labels = sorted(set(pictures["label"]))
    known, held_out = split_pictures(pictures, config.holdout_fold, config.num_folds)

    model = build_model(labels, config.hidden_sizes)
    decayed = [weight for weight in model.parameters() if weight.ndim > 1]
    plain = [weight for weight in model.parameters() if weight.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=config.learning_rate,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.max_train_steps, pct_start=0.05, anneal_strategy="cos"
    )
    model, optimizer, schedule = accelerator.prepare(model, optimizer, schedule)

    settings = {key: value for key, value in asdict(config).items() if key not in FREE}
    checkpoints = Checkpoints(accelerator, config.output_dir, settings, config.checkpoints_total_limit)
    step = checkpoints.resume(config.resume_from_checkpoint)
    # From no object at all on: the judge has to know an empty scene, too.
    scenes = SceneDataset(
        known,
        labels,
        config.max_train_steps * config.train_batch_size,
        config.seed,
        IMAGE_SIZE,
        (0, 3),
        augment=True,
        degrade=True,
    )
    loader = accelerator.prepare(
        DataLoader(
            scenes,
            batch_size=config.train_batch_size,
            sampler=StepSampler(step, config.max_train_steps, config.train_batch_size),
            num_workers=config.dataloader_num_workers,
            worker_init_fn=start_worker,
        )
    )
    model.train()
    progress = tqdm(total=config.max_train_steps, initial=step, mininterval=10)
    for batch in loader:
        loss = model(**batch).loss
        accelerator.backward(loss)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        step += 1
        progress.update()
        if step % 20 == 0:
            progress.set_postfix(loss=f"{loss.item():.4f}")
        if step % config.checkpointing_steps == 0:
            checkpoints.save(step)
    progress.close()

    # What is saved is what is measured.
    model = accelerator.unwrap_model(model).half().float().eval()
    accuracy = {"new_compositions": report(model, known, labels, config)}
    if held_out is not None:
        accuracy["pictures_left_out"] = report(model, held_out, labels, config)
        accuracy["num_pictures_left_out"] = len(held_out)
    print(json.dumps(accuracy, indent=2))
    save(model, Path(config.output_dir), accuracy)


def save(model: ResNetForImageClassification, out: Path, accuracy: dict) -> None:
    """The judge as half-precision safetensors, with its image processor and what it was measured at."""
    model.half().save_pretrained(out)
    processor = ViTImageProcessorPil(
        size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    processor.save_pretrained(out)
    (out / "accuracy.json").write_text(json.dumps(accuracy, indent=2) + "\n")


if __name__ == "__main__":
    run_script(main)
