"""Examples in an order that a step number tells, and the loader's processes that make them."""

import signal
from collections.abc import Iterator

from threadpoolctl import threadpool_limits
from torch.utils.data import Sampler

from avgas_pipeline.cli.signals import END_SIGNALS


class StepSampler(Sampler[int]):
    """
    The numbers of a run's examples from some step on, in order: example i of an endless dataset is drawn from i alone,
    so that going on from a step needs no more than its number.

    Args:
        first_step (`int`): Step to begin with.
        num_steps (`int`): Last step.
        batch_size (`int`): Examples per step, of all processes and accumulated batches.
    """

    def __init__(self, first_step: int, num_steps: int, batch_size: int) -> None:
        self.examples = range(first_step * batch_size, num_steps * batch_size)

    def __iter__(self) -> Iterator[int]:
        return iter(self.examples)

    def __len__(self) -> int:
        return len(self.examples)


def start_worker(worker_id: int) -> None:
    """For a loader's `worker_init_fn`: one thread each, and no end on SIGTERM or SIGHUP."""
    # Clusters signal whole groups, and the loop still needs its workers.
    for number in END_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # NumPy's threads would take the cores from the training step.
    threadpool_limits(1)
