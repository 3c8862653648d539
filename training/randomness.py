"""Random numbers that depend on a seed and on what they are for, not on what was drawn before."""

import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor


def mixed_seed(seed: int, number: int) -> int:
    """A seed of 32 bits (PyTorch's generators on a CPU ignore the rest), a distinct one for every number."""
    return (int(np.random.SeedSequence(seed).generate_state(1)[0]) + number) % 2**32


class RowRandom:
    """
    Random numbers of a batch, row by row: those of an example depend on its number in the run alone, not on how many
    share a batch or a process.

    Args:
        seed (`int`): Of the run.
        numbers (`range`): The rows' numbers in the run.
    """

    def __init__(self, seed: int, numbers: range) -> None:
        self.generators = [torch.Generator().manual_seed(mixed_seed(seed, number)) for number in numbers]

    def normal(self, shape: torch.Size | tuple[int, ...], device: torch.device) -> torch.Tensor:
        """Standard normal numbers of a shape that begins with the rows."""
        return randn_tensor(tuple(shape), self.generators, device)

    def integers(self, high: int, device: torch.device) -> torch.Tensor:
        """`(B,)`, from 0 to `high` - 1."""
        return torch.cat([torch.randint(0, high, (1,), generator=each) for each in self.generators]).to(device)

    def uniform(self, device: torch.device) -> torch.Tensor:
        """`(B,)`, in [0, 1)."""
        return torch.cat([torch.rand(1, generator=each) for each in self.generators]).to(device)


class DeviceRandom:
    """
    Random numbers of a device.

    Args:
        seed (`int`): Of the run.
        number (`int`): Of the batch.
        device (`torch.device`): Where they are.
    """

    def __init__(self, seed: int, number: int, device: torch.device) -> None:
        self.device = device
        self.generator = torch.Generator(device).manual_seed(mixed_seed(seed, number))

    def uniform(self, low: float, high: float, *shape: int) -> torch.Tensor:
        """Numbers in [low, high)."""
        return low + (high - low) * torch.rand(shape, generator=self.generator, device=self.device)

    def normal(self, *shape: int) -> torch.Tensor:
        """Standard normal numbers."""
        return torch.randn(shape, generator=self.generator, device=self.device)

    def below(self, high: torch.Tensor) -> torch.Tensor:
        """For every integer of a tensor one from 0 to below it; 0 for 0."""
        return (self.uniform(0, 1, *high.shape) * high).long()

    def rows(self, count: int, probability: float) -> torch.Tensor:
        """Which of so many rows something happens to, as their numbers."""
        return (self.uniform(0, 1, count) < probability).nonzero().flatten()
