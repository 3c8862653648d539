"""
How `avgas demo` bears many visitors at once.

    python benchmarks/demo.py --visitors 30 --seconds 60

Each visitor uploads one of the example recordings and has it drawn, again and again. Printed are how many were served,
the median and longest wait, errors, answers that named another recording's sounds, and how much memory the page had
after the first tenth of the time and at the end.
"""

import argparse
import os
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
from gradio_client import Client, handle_file

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.demo.hearing import Listener, Sampling
from avgas_pipeline.demo.serving import find_examples, served


class Visits:
    """What became of all visits."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self.errors: list[str] = []
        self.mistaken = 0
        self._lock = threading.Lock()

    def add(self, wait: float, is_own: bool) -> None:
        with self._lock:
            self.waits.append(wait)
            self.mistaken += not is_own

    def fail(self, error: Exception) -> None:
        with self._lock:
            self.errors.append(f"{type(error).__name__}: {error}"[:200])


def visit(url: str, recording: Path, expected: str, until: float, sampling: Sampling, visits: Visits) -> None:
    client = Client(url, verbose=False)
    while time.monotonic() < until:
        start = time.monotonic()
        try:
            status = client.predict(
                handle_file(recording), None, None, None, *vars(sampling).values(), api_name="/hear"
            )[0]
        # Whatever happens to a visitor is counted.
        except Exception as error:
            visits.fail(error)
            continue
        visits.add(time.monotonic() - start, expected in status)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="avgas-mini", help="Checkpoint: a folder or a Hub repository.")
    parser.add_argument("--visitors", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=60.0)
    args = parser.parse_args()
    listener = Listener(AVGASPipeline.from_pretrained(args.model))
    examples = find_examples()
    sampling = Sampling(0, listener.default_steps, listener.default_guidance)
    expected = {}
    for name, path in examples.items():
        heard = listener.hear(str(path), name, sampling)
        expected[name] = ", ".join(source.name for source in heard.sources)
    process, memory, visits = psutil.Process(os.getpid()), [], Visits()
    with served(listener, examples, port=0) as url, ThreadPoolExecutor(args.visitors) as pool:
        start = time.monotonic()
        for number in range(args.visitors):
            name = list(examples)[number % len(examples)]
            pool.submit(visit, url, examples[name], expected[name], start + args.seconds, sampling, visits)
        while time.monotonic() < start + args.seconds:
            time.sleep(args.seconds / 10)
            memory.append(process.memory_info().rss / 2**20)
    print(f"{args.visitors} visitors, {args.seconds:g} s: {len(visits.waits)} recordings drawn")
    if visits.waits:
        print(f"wait: median {statistics.median(visits.waits):.2f} s, longest {max(visits.waits):.2f} s")
    print(f"{len(visits.errors)} errors, {visits.mistaken} answers of another recording")
    print(f"memory: {memory[0]:.0f} MiB after {args.seconds / 10:g} s, {memory[-1]:.0f} MiB at the end")
    for error in sorted(set(visits.errors)):
        print(f"  {error}")


if __name__ == "__main__":
    main()
