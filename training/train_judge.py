"""
Train the judge of soundscapes-mini: a small classifier that says which objects a scene shows, for metrics alone.

    python training/train_judge.py data/soundscapes-mini --out judges/soundscapes-mini

It shares no weights and no stage with the generator. It judges and does not compete, so it learns from the pictures of
both splits. `--holdout-fold 0` leaves out one of `--num-folds` parts of the pictures (by source group) and reports on
them, which shows how far it goes beyond pictures it knows. Run again to go on after an interruption.
"""

import argparse
import json
import math
import os
import shutil
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration, set_seed
from datasets import Dataset, concatenate_datasets
from scene_dataset import SceneDataset
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm
from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessorPil

from avgas_pipeline.data.soundscapes_mini import load_soundscapes_mini


IMAGE_SIZE = 128


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="the folder of soundscapes-mini")
    parser.add_argument("--out", type=Path, required=True, help="folder for the judge")
    parser.add_argument("--hidden-sizes", type=int, nargs=4, default=(24, 48, 96, 176))
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--checkpointing-steps", type=int, default=500)
    parser.add_argument("--workers", type=int, default=1, help="processes that compose scenes")
    parser.add_argument("--holdout-fold", type=int, default=None, help="leave out this part, and report on it")
    parser.add_argument("--num-folds", type=int, default=5)
    parser.add_argument("--eval-scenes", type=int, default=2000, help="scenes of each kind in the report")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def split_pictures(pictures: Dataset, fold: int | None, num_folds: int) -> tuple[Dataset, Dataset | None]:
    """Pictures to learn from and pictures left out, by source group; a label's only group stays."""
    if fold is None:
        return pictures, None
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
    model: ResNetForImageClassification, pictures: Dataset, labels: list[str], args: argparse.Namespace
) -> dict:
    """Accuracy on compositions never seen in training."""
    model.eval()
    names = {1: "one_object_top1", 2: "two_objects_both_in_top2", 3: "three_objects_all_in_top3"}
    accuracy = {}
    for count, name in names.items():
        scenes = SceneDataset(pictures, labels, args.eval_scenes, seed=10**6 + args.seed, num_objects=(count, count))
        accuracy[name] = round(top_k_accuracy(model, scenes, count, args.workers), 4)
    return accuracy


def main() -> None:
    args = parse_args()
    state_dir = args.out.with_name(f"{args.out.name}-state")
    accelerator = Accelerator(project_config=ProjectConfiguration(project_dir=str(state_dir)))
    set_seed(args.seed)
    splits = [load_soundscapes_mini(args.dataset, split)[1] for split in ("train", "test")]
    pictures = concatenate_datasets(splits)
    labels = sorted(set(pictures["label"]))
    known, held_out = split_pictures(pictures, args.holdout_fold, args.num_folds)

    model = build_model(labels, args.hidden_sizes)
    decayed = [weight for weight in model.parameters() if weight.ndim > 1]
    plain = [weight for weight in model.parameters() if weight.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": args.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=args.learning_rate,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, args.learning_rate, total_steps=args.steps, pct_start=0.05, anneal_strategy="cos"
    )
    model, optimizer = accelerator.prepare(model, optimizer)
    accelerator.register_for_checkpointing(schedule)

    step = 0
    if (state_dir / "step.json").exists():
        step = json.loads((state_dir / "step.json").read_text())["step"]
        accelerator.load_state(str(state_dir / f"step-{step}"))
    # From no object at all on: the judge has to know an empty scene, too.
    scenes = SceneDataset(
        known, labels, args.steps * args.batch_size, args.seed, IMAGE_SIZE, (0, 3), augment=True, degrade=True
    )
    rest = Subset(scenes, range(step * args.batch_size, len(scenes)))
    loader = DataLoader(rest, batch_size=args.batch_size, num_workers=args.workers)

    model.train()
    progress = tqdm(loader, initial=step, total=args.steps, disable=not accelerator.is_main_process, mininterval=10)
    for batch in progress:
        batch = {name: value.to(accelerator.device) for name, value in batch.items()}
        loss = model(**batch).loss
        accelerator.backward(loss)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        step += 1
        if step % 20 == 0:
            progress.set_postfix(loss=f"{loss.item():.4f}", lr=f"{schedule.get_last_lr()[0]:.1e}")
        if step % args.checkpointing_steps == 0:
            save_state(accelerator, state_dir, step)

    model = accelerator.unwrap_model(model)
    accuracy = {"new_compositions": report(model, known, labels, args)}
    if held_out is not None:
        accuracy["pictures_left_out"] = report(model, held_out, labels, args)
        accuracy["num_pictures_left_out"] = len(held_out)
    print(json.dumps(accuracy, indent=2))
    save(model, args.out, accuracy)


def save_state(accelerator: Accelerator, state_dir: Path, step: int) -> None:
    """A state to go on from; the one before goes when this one is complete."""
    accelerator.save_state(str(state_dir / f"step-{step}"), safe_serialization=True)
    partial = state_dir / "step.json.partial"
    partial.write_text(json.dumps({"step": step}))
    os.replace(partial, state_dir / "step.json")
    for other in state_dir.glob("step-*"):
        if other.name != f"step-{step}":
            shutil.rmtree(other)


def save(model: ResNetForImageClassification, out: Path, accuracy: dict) -> None:
    """The judge as half-precision safetensors, with its image processor and what it was measured at."""
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.half().save_pretrained(partial)
    processor = ViTImageProcessorPil(
        size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    processor.save_pretrained(partial)
    (partial / "accuracy.json").write_text(json.dumps(accuracy, indent=2) + "\n")
    if out.exists():
        for file in partial.iterdir():
            os.replace(file, out / file.name)
        partial.rmdir()
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        os.replace(partial, out)


if __name__ == "__main__":
    main()
