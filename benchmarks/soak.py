"""
Damaged input, threads and kills at random for a number of minutes; needs a checkout with its tests.

    python benchmarks/soak.py --minutes 20

Takes turns in damaged recordings, odd samples, damaged archives and damaged checkpoints (tests/fuzzing.py, with other
seeds than the tests), a pipeline and its copies in eight threads, and kills of `avgas generate`, `prepare` and
`evaluate`, `train.py` and `train_separator.py`, each begun again until it ends by itself. Prints for each how often it
was tried, how often a clear error refused the input, and everything that went wrong; exits with 1 if anything did.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np


ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import PIL.Image  # noqa: E402
import soundfile  # noqa: E402
import torch  # noqa: E402
from evaluation_data import arguments as evaluation_arguments  # noqa: E402
from evaluation_data import write_evaluation_inputs  # noqa: E402
from fuzzing import (  # noqa: E402
    Tally,
    archive,
    recordings,
    try_archive,
    try_checkpoint,
    try_recording,
    try_samples,
)
from safetensors.torch import load_file  # noqa: E402
from tiny import tiny_audio, tiny_components  # noqa: E402
from training_inputs import write_training_inputs  # noqa: E402
from training_runs import arguments as training_arguments  # noqa: E402
from training_runs import mixture_settings  # noqa: E402
from vggsound_tree import make_clips, write_folder  # noqa: E402

from avgas_pipeline import AVGASPipeline  # noqa: E402


# Input that is damaged quickly is tried often before it is something else's turn.
TRIES_PER_TURN = {"recording": 200, "samples": 200, "archive": 200, "checkpoint": 10}
NUM_THREADS = 8
# A run that is killed again and again has to end in the end.
KILLS_PER_RUN = 3

_seconds: dict[str, float] = {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0, help="how long, about")
    parser.add_argument("--seed", type=int, default=None, help="to repeat a run; different every time if not given")
    args = parser.parse_args()
    seed = random.randrange(10**6) if args.seed is None else args.seed
    print(f"seed {seed}")
    tally, end = Tally(), time.monotonic() + 60 * args.minutes
    with tempfile.TemporaryDirectory() as folder:
        turns = [*damaged_input(Path(folder), tally), lambda rng: threads(tally, rng)]
        turns += [lambda rng, name=name: kills(Path(folder), name, tally, rng) for name in COMMANDS]
        number = 0
        # Every turn once, however short the time.
        while time.monotonic() < end or number < len(turns):
            turns[number % len(turns)](np.random.default_rng([seed, number]))
            number += 1
    print(tally)
    sys.exit(bool(tally.wrong))


def damaged_input(folder: Path, tally: Tally) -> Iterator[Callable[[np.random.Generator], None]]:
    """Turns that try what tests/fuzzing.py damages."""
    (folder / "recordings").mkdir()
    files, tar = recordings(folder / "recordings"), archive(folder)
    checkpoint = folder / "checkpoint"
    AVGASPipeline(**tiny_components()).save_pretrained(checkpoint)
    tries: dict[str, Callable[[np.random.Generator], str | None]] = {
        "recording": lambda rng: try_recording(files, rng),
        "samples": try_samples,
        "archive": lambda rng: try_archive(folder, tar, rng),
        "checkpoint": lambda rng: try_checkpoint(checkpoint, folder / "damaged", rng),
    }

    def turn(kind: str, rng: np.random.Generator) -> None:
        for seed in rng.integers(0, 2**62, TRIES_PER_TURN[kind]).tolist():
            tally.attempt(kind, seed, lambda seed=seed: tries[kind](np.random.default_rng(seed)))

    for kind in tries:
        yield lambda rng, kind=kind: turn(kind, rng)


def threads(tally: Tally, rng: np.random.Generator) -> None:
    """One pipeline, or its copies, in eight threads: what is drawn is what one thread draws, or it is refused."""
    pipe = AVGASPipeline(**tiny_components())
    pipe.set_progress_bar_config(disable=True)
    has_copies = bool(rng.integers(2))
    kind = "copies in threads" if has_copies else "pipeline in threads"
    settings = [
        {
            "num_inference_steps": int(rng.integers(1, 6)),
            "guidance_scale": float(rng.uniform(1, 9)),
            "num_sources": int(rng.integers(1, 4)),
            "separate": bool(rng.integers(2)),
        }
        for _ in range(NUM_THREADS)
    ]

    def draw(pipeline: AVGASPipeline, number: int) -> np.ndarray:
        audio, rate = tiny_audio(seed=number)
        generator = torch.Generator().manual_seed(number)
        return pipeline(audio, rate, generator=generator, output_type="np", **settings[number]).images

    expected = [draw(pipe, number) for number in range(NUM_THREADS)]
    pipes = [
        AVGASPipeline.from_pipe(pipe, scheduler=type(pipe.scheduler).from_config(pipe.scheduler.config))
        if has_copies
        else pipe
        for _ in range(NUM_THREADS)
    ]

    def work(number: int) -> None:
        def check() -> str | None:
            try:
                return None if np.array_equal(draw(pipes[number], number), expected[number]) else "another picture"
            except RuntimeError as error:
                if has_copies or "from_pipe" not in str(error):
                    raise
                raise ValueError("in use") from None

        tally.attempt(kind, number, check)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(NUM_THREADS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def _generate(inputs: Path, out: Path) -> list[str]:
    recording = inputs / "x.wav"
    if not recording.exists():
        soundfile.write(recording, tiny_audio(2.0)[0], 16000)
        AVGASPipeline(**tiny_components()).save_pretrained(inputs / "model")
    options = [
        "--separate",
        "--num-sources",
        "3",
        "--steps",
        "20",
        "--out",
        str(out),
        "--model",
        str(inputs / "model"),
    ]
    return ["-m", "avgas_pipeline", "generate", str(recording), *options]


def _prepare(inputs: Path, out: Path) -> list[str]:
    if not (inputs / "videos").exists():
        (inputs / "videos").mkdir()
        write_folder(inputs / "videos", make_clips())
    return ["-m", "avgas_pipeline", "prepare", str(inputs / "videos"), "--out", str(out), "--clips-per-shard", "2"]


def _evaluate(inputs: Path, out: Path) -> list[str]:
    if not (inputs / "manifest.jsonl").exists():
        write_evaluation_inputs(inputs)
    return ["-m", "avgas_pipeline", *evaluation_arguments(inputs, out)]


def _train(script: str, inputs: Path, out: Path) -> list[str]:
    if not (inputs / "untrained").exists():
        write_training_inputs(inputs)
    # `latest` begins anew where there is no checkpoint yet.
    changed = {"resume_from_checkpoint": "latest", "checkpointing_steps": 5}
    return [str(ROOT / "training" / script), *training_arguments(mixture_settings(inputs, out, changed))]


COMMANDS: dict[str, Callable[[Path, Path], list[str]]] = {
    "generate": _generate,
    "prepare": _prepare,
    "evaluate": _evaluate,
    "train.py": lambda inputs, out: _train("train.py", inputs, out),
    "train_separator.py": lambda inputs, out: _train("train_separator.py", inputs, out),
}


def kills(folder: Path, name: str, tally: Tally, rng: np.random.Generator) -> None:
    """A command killed at random moments, then run to its end; what it leaves has to be whole."""
    inputs = folder / f"inputs-{name}"
    inputs.mkdir(exist_ok=True)
    out = folder / f"{name}-{rng.integers(2**31)}"
    command = [sys.executable, *COMMANDS[name](inputs, out)]

    def check() -> str | None:
        seconds = _seconds_of(name, inputs, folder)
        for _ in range(KILLS_PER_RUN):
            how = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT][rng.integers(3)]
            _run(command, kill_after=float(rng.uniform(0.5, 1.0)) * seconds, how=how)
            fault = _fault_in(out)
            if fault:
                return f"after {how.name}: {fault}"
        code, errors = _run(command)
        if code:
            return f"did not go on: {errors[-300:]}"
        left = [str(path) for path in out.rglob(".partial-*")]
        return _fault_in(out) or (f"left {left}" if left else None)

    tally.attempt(f"kills of {name}", 0, check)


def _seconds_of(name: str, inputs: Path, folder: Path) -> float:
    """How long the whole command takes; measured once."""
    if name not in _seconds:
        start = time.monotonic()
        _run([sys.executable, *COMMANDS[name](inputs, folder / f"{name}-whole")])
        _seconds[name] = time.monotonic() - start
    return _seconds[name]


def _run(command: list[str], kill_after: float | None = None, how: signal.Signals = signal.SIGKILL) -> tuple[int, str]:
    """Exit code and standard error of a command, which is sent a signal after some seconds if it still runs."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=errors
        )
        try:
            process.wait(timeout=kill_after)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, how)
            process.wait()
        errors.seek(0)
        return process.returncode, errors.read().decode(errors="replace")


def _fault_in(out: Path) -> str | None:
    """A file that can't be read, other than those under a temporary name."""
    readers = {".json": _read_json, ".png": _read_picture, ".wav": soundfile.info, ".safetensors": load_file}
    for path in sorted(out.rglob("*")) if out.exists() else ():
        if not path.is_file() or any(part.startswith(".partial-") for part in path.parts):
            continue
        try:
            readers.get(path.suffix, Path.read_bytes)(path)
        except Exception as error:
            return f"{path.name}: {error}"
    return None


def _read_json(path: Path) -> None:
    json.loads(path.read_text(encoding="utf-8"))


def _read_picture(path: Path) -> None:
    with PIL.Image.open(path) as picture:
        picture.load()


if __name__ == "__main__":
    main()
