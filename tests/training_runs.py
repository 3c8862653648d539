"""Runs of training scripts on the tests' small inputs."""

import os
import subprocess
import sys
from pathlib import Path

import forked
import psutil
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


TRAINING = Path(__file__).parents[1] / "training"


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def arguments(script, settings):
    options = []
    for name, value in settings.items():
        if value is not None:
            options += [f"--{name}", *str(value).split(" ")]
    return [str(TRAINING / script), *options]


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
    return [sys.executable, *launcher, *arguments(script, settings)]


def kill_after(checkpoint, arguments):
    """Starts a run, and kills it when it has written a checkpoint."""
    forked.kill_once(arguments, checkpoint.exists)
    assert not (checkpoint.parent / "model_index.json").exists()


def train(script, inputs, out, **changed):
    return forked.run(command(script, inputs, out, **changed))


def launch(script, *args, variables=None, **changed):
    """As `train`, in processes launched as users launch them."""
    return run_to_the_end(command(script, *args, **changed), environment() | (variables or {}))


def run_to_the_end(arguments, variables):
    """As `subprocess.run`; whatever goes wrong, no process of a launcher is left."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(arguments, env=variables, **pipes) as process:
        try:
            output, errors = process.communicate()
        except BaseException:
            kill_family(process)
            raise
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)


def kill_family(process):
    """A launcher's processes have sessions of their own."""
    if process.poll() is None:
        family = psutil.Process(process.pid)
        for member in (*family.children(recursive=True), family):
            member.kill()


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
