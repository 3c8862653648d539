"""Random numbers that depend on a seed and on what they are for, not on what was drawn before."""

import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor


class RowRandom:
    """
    Random numbers of a batch, row by row: those of an example depend on its number in the run alone, not on how many
    share a batch or a process.

    Args:
        seed (`int`): Of the run.
        numbers (`range`): The rows' numbers in the run.
    """

    def __init__(self, seed: int, numbers: range) -> None:
        # Spread over 32 bits (PyTorch's generators on a CPU ignore the rest), and a distinct one for every number.
        spread = int(np.random.SeedSequence(seed).generate_state(1)[0])
        self.generators = [torch.Generator().manual_seed((spread + number) % 2**32) for number in numbers]

    def normal(self, shape: torch.Size | tuple[int, ...], device: torch.device) -> torch.Tensor:
        """Standard normal numbers of a shape that begins with the rows."""
        return randn_tensor(tuple(shape), self.generators, device)

    def integers(self, high: int, device: torch.device) -> torch.Tensor:
        """`(B,)`, from 0 to `high` - 1."""
        return torch.cat([torch.randint(0, high, (1,), generator=each) for each in self.generators]).to(device)

    def uniform(self, device: torch.device) -> torch.Tensor:
        """`(B,)`, in [0, 1)."""
        return torch.cat([torch.rand(1, generator=each) for each in self.generators]).to(device)
