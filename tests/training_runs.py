"""Training scripts, run as users run them, on the tests' small inputs."""

import os
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


TRAINING = Path(__file__).parents[1] / "training"


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def command(script, inputs, out, launcher=(), **changed):
    settings = {
        "pretrained_model_name_or_path": inputs / "untrained",
        "dataset": inputs / "clips",
        "output_dir": out,
        "num_sources": "1 2",
        "num_examples": 8,
        "train_batch_size": 4,
        "max_train_steps": 20,
        "checkpointing_steps": 10,
        "learning_rate": 1e-3,
        "lr_warmup_steps": 2,
        "validation_steps": 1000,
        "dataloader_num_workers": 0,
        "logging_steps": 1,
        **changed,
    }
    options = []
    for name, value in settings.items():
        if value is not None:
            options += [f"--{name}", *str(value).split(" ")]
    return [sys.executable, *launcher, str(TRAINING / script), *options]


def train(script, *args, **changed):
    return subprocess.run(command(script, *args, **changed), env=environment(), capture_output=True, text=True)


def curve(out, name):
    """Values by step, of all runs in a folder."""
    values = {}
    for folder in (out / "logs").glob("*"):
        events = EventAccumulator(str(folder)).Reload()
        values |= {event.step: event.value for event in events.Scalars(name)}
    return values


def weights(out, part="separator"):
    name = "model.safetensors" if part == "audio_encoder" else "diffusion_pytorch_model.safetensors"
    return load_file(out / part / name)
