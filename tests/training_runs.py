"""Runs of training scripts on the tests' small inputs."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import forked
import psutil
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


TRAINING = Path(__file__).parents[1] / "training"


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def arguments(settings):
    """Options of a command line; `None` leaves one out, and spaces are between items of a list."""
    options = []
    for name, value in settings.items():
        if value is not None:
            options += [f"--{name}", *str(value).split(" ")]
    return options


def mixture_settings(inputs, out, changed):
    """Of a short run that learns from mixtures."""
    return {
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


def holds_averages(saved, checkpoint):
    """Whether the averages in a checkpoint are all among saved weights, by name."""
    means = load_file(checkpoint / "averages_0.safetensors").values()
    return all(any(torch.equal(mean, weight) for weight in saved.values()) for mean in means)


def run(main, settings):
    """A run in this process; raises what its script raises."""
    # A process has one accelerator, which other runs have set up in their ways.
    AcceleratorState._reset_state(reset_partial_state=True)
    before = signal.getsignal(signal.SIGTERM)
    try:
        main(arguments(settings))
    finally:
        signal.signal(signal.SIGTERM, before)
        AcceleratorState._reset_state(reset_partial_state=True)


def command(script, settings, launcher=()):
    """The command of a run in a process of its own."""
    return [sys.executable, *launcher, str(TRAINING / script), *arguments(settings)]


def kill_after(checkpoint, result, command):
    """Starts a run, and kills it when it has written a checkpoint and not yet its result."""
    forked.kill_once(command, checkpoint.exists)
    assert not (checkpoint.parent / result).exists()


def launch(command, variables=None):
    """
    As `subprocess.run`, in processes launched as users launch them; whatever goes wrong, none of them is left.
    """
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment() | (variables or {}), **pipes) as process:
        try:
            output, errors = process.communicate()
        except BaseException:
            kill_family(process)
            raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


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
