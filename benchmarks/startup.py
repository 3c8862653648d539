"""
How long commands and imports take to start, and how OpenMP's threads should wait; ratios within one run.

    python benchmarks/startup.py

Every variant runs in fresh processes; all take turns in each of `--repeats` rounds, each begun by another one. Times
are medians over rounds, and ratios medians of the rounds' own ratios, which need not be the ratios of these times. The
bound of each ratio stands behind it.

The last lines compare the whole of `avgas generate` as the command has OpenMP's threads wait with OpenMP's default, on
this machine as it is, and with one more process that is always busy. Set OMP_WAIT_POLICY or GOMP_SPINCOUNT to compare
that setting with the default instead.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path


RECORDING = Path(__file__).parents[1] / "examples/mixture-dog-bird.flac"
OUT = "out"
# How OpenMP's threads wait, as far as the environment says.
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


@dataclass(frozen=True)
class Variant:
    """
    A command to time.

    Attributes:
        name (`str`): For the table.
        arguments (`tuple[str, ...]`): Of the Python interpreter.
        waits_as_default (`bool`): Whether to leave out what the environment says on how OpenMP waits.
        is_busy (`bool`): Whether another process is busy meanwhile.
        exit_code (`int`): What it has to end with.
    """

    name: str
    arguments: tuple[str, ...]
    waits_as_default: bool = False
    is_busy: bool = False
    exit_code: int = 0

    def seconds(self) -> float:
        """Time from start to end, in a folder of its own."""
        environment = dict(os.environ)
        if self.waits_as_default:
            environment = {name: value for name, value in environment.items() if name not in WAITING}
        with tempfile.TemporaryDirectory() as folder, other_process() if self.is_busy else nullcontext():
            start = time.perf_counter()
            result = subprocess.run(
                [sys.executable, *self.arguments], cwd=folder, env=environment, capture_output=True, text=True
            )
            seconds = time.perf_counter() - start
        if result.returncode != self.exit_code:
            raise RuntimeError(f"{self.name}: {result.stderr}")
        return seconds


@contextmanager
def other_process() -> Iterator[None]:
    """A process that keeps one core busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def statement(code: str) -> Variant:
    return Variant(code, ("-c", code))


def generate(is_busy: bool) -> tuple[Variant, Variant]:
    """The whole command, and the same without what `main` does for OpenMP."""
    name = "avgas generate" + is_busy * ", busy machine"
    arguments = ("generate", str(RECORDING), "--separate", "--out", OUT)
    plain = ("-c", "from avgas_pipeline.cli import app; app()")
    return (
        Variant(name, ("-m", "avgas_pipeline", *arguments), is_busy=is_busy),
        Variant("OpenMP's default", (*plain, *arguments), waits_as_default=True, is_busy=is_busy),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10, help="rounds")
    parser.add_argument("--no-busy", action="store_true", help="leave out the busy machine, which takes longest")
    args = parser.parse_args()

    torch = statement("import torch")
    diffusers = statement("from diffusers import StableDiffusionPipeline")
    missing_file = ("-m", "avgas_pipeline", "generate", "missing.wav", "--out", OUT)
    # What is timed, against what, and how much it may be.
    ratios = [
        (Variant("avgas --help", ("-m", "avgas_pipeline", "--help")), torch, 0.25),
        (Variant("avgas generate missing.wav", missing_file, exit_code=2), torch, 0.3),
        (statement("import avgas_pipeline"), diffusers, 1.0),
        (statement("from avgas_pipeline import AVGASPipeline"), diffusers, None),
        (*generate(is_busy=False), 1.05),
    ]
    if not args.no_busy:
        ratios.append((*generate(is_busy=True), 0.5))

    variants = list(dict.fromkeys(variant for own, base, _ in ratios for variant in (base, own)))
    seconds: dict[Variant, list[float]] = {variant: [] for variant in variants}
    for _ in range(args.repeats):
        for variant in variants:
            seconds[variant].append(variant.seconds())
        # What begins a round finds other files in memory than what ends it.
        variants.append(variants.pop(0))

    for own, base, bound in ratios:
        ratio = statistics.median(x / y for x, y in zip(seconds[own], seconds[base], strict=True))
        print(
            f"{own.name:<42}{statistics.median(seconds[own]):7.2f} s {ratio:6.3f} x {base.name}"
            f" ({statistics.median(seconds[base]):.2f} s)" + (f", at most {bound}" if bound is not None else "")
        )


if __name__ == "__main__":
    main()
