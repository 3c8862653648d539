"""Losses over all processes, so that n of them learn what one with n times the batch would."""

import torch
from accelerate import Accelerator
from torch.distributed.nn.functional import all_gather


class Processes:
    """
    What a loss needs of the other processes. Gradients are averaged over processes, so a loss that is a sum divided by
    the *mean* count of all processes adds up to the mean over all examples.

    Args:
        accelerator (`Accelerator`, *optional*): Without it there is one process.
    """

    def __init__(self, accelerator: Accelerator | None = None) -> None:
        self.accelerator = accelerator
        self.is_alone = accelerator is None or accelerator.num_processes == 1

    def mean_count(self, count: torch.Tensor) -> torch.Tensor:
        """The mean over processes of a number `()`, at least a tiny one; without gradient."""
        count = count.detach().float()
        if not self.is_alone:
            count = self.accelerator.reduce(count, reduction="mean")
        return count.clamp_min(1e-8)

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """Rows of all processes, of the same number each; gradients find their way back."""
        if self.is_alone:
            return values
        if values.requires_grad:
            return torch.cat(all_gather(values.contiguous()))
        return self.accelerator.gather(values.contiguous())

    @property
    def rank(self) -> int:
        """Number of this process."""
        return 0 if self.is_alone else self.accelerator.process_index


# The only process there is.
ALONE = Processes()
