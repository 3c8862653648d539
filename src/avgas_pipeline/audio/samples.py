"""Samples in memory: arrays, tensors and pairs with a rate become `(channels, T)` arrays."""

import math
from numbers import Real
from typing import Any

import numpy as np
import torch


MAX_CHANNELS = 16
_TENSOR_TYPES = (
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.uint8,
    torch.int16,
    torch.int32,
)


def is_pair(audio: Any) -> bool:
    """Whether it is `(rate, samples)`, as Gradio has it, or `(samples, rate)`, as librosa and torchaudio."""
    return isinstance(audio, tuple) and len(audio) == 2 and _is_number(audio[0]) != _is_number(audio[1])


def unpack_pair(audio: tuple[Any, Any]) -> tuple[Any, Any]:
    """Samples and rate of a pair in either order."""
    return (audio[1], audio[0]) if _is_number(audio[0]) else audio


def check_sampling_rate(sampling_rate: Any, name: str) -> int:
    """
    A rate as an integer.

    Raises:
        ValueError: If it is not a whole number of Hz from 1 to 10,000,000.
    """
    if (
        isinstance(sampling_rate, bool)
        or not isinstance(sampling_rate, (Real, np.integer, np.floating))
        or not math.isfinite(sampling_rate)
        or sampling_rate != int(sampling_rate)
        or not 1 <= sampling_rate <= 10_000_000
    ):
        raise ValueError(f"`{name}` has to be a positive whole number of Hz but is {sampling_rate!r}.")
    return int(sampling_rate)


def read_samples(samples: np.ndarray | torch.Tensor, name: str) -> np.ndarray:
    """
    Samples as an array of shape `(channels, T)`.

    Args:
        samples (`np.ndarray` or `torch.Tensor`): Of shape `(T,)`, `(channels, T)` or `(T, channels)`.
        name (`str`): What errors call them.

    Raises:
        ValueError: If they are empty, masked, or of a type or shape that can't be samples.
    """
    if isinstance(samples, torch.Tensor):
        samples = _tensor_to_array(samples, name)
    if isinstance(samples, np.ma.MaskedArray):
        if np.ma.is_masked(samples):
            raise ValueError(f"{name}: holds masked samples; fill them first, with `samples.filled(0)` for silence.")
        samples = samples.data
    # Wider integers are usually 16-bit samples in a wide type, so their full scale can't be told.
    if samples.dtype.kind != "f" and samples.dtype.newbyteorder("=") not in (np.uint8, np.int16, np.int32):
        raise ValueError(f"{name}: samples have to be floats, uint8, int16 or int32 but are {samples.dtype}.")
    if samples.size == 0:
        raise ValueError(f"{name}: holds no audio samples.")
    if samples.ndim == 1:
        return samples[None]
    if samples.ndim != 2:
        raise ValueError(
            f"{name}: samples have to be of shape (T,), (channels, T) or (T, channels) but are of shape"
            f" {tuple(samples.shape)}; give several recordings as a list."
        )
    few = [size <= MAX_CHANNELS for size in samples.shape]
    if few[0] == few[1]:
        raise ValueError(
            f"{name}: can't tell channels from time in samples of shape {tuple(samples.shape)}: one side has to be at"
            f" most {MAX_CHANNELS} channels and the other longer."
        )
    return samples if few[0] else samples.T


def _is_number(value: Any) -> bool:
    return isinstance(value, (Real, np.integer, np.floating)) and not isinstance(value, bool)


def _tensor_to_array(tensor: torch.Tensor, name: str) -> np.ndarray:
    is_plain = tensor.layout == torch.strided and not tensor.is_meta and not tensor.is_quantized
    if not is_plain or tensor.is_nested or tensor.dtype not in _TENSOR_TYPES:
        kind = "on the meta device" if tensor.is_meta else f"{tensor.layout}, {tensor.dtype}"
        raise ValueError(
            f"{name}: a tensor of samples has to be dense, of floats, uint8, int16 or int32, but is {kind}."
        )
    tensor = tensor.detach().to("cpu")
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
