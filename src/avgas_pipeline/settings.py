"""What a pipeline is set to, beside its components: defaults of a call, and how it hears and draws."""

import math
from numbers import Integral, Real
from typing import Any

from .models.separator import AudioVisualSeparator


# Of a pipeline whose components say nothing else.
DEFAULT_SETTINGS: dict[str, Any] = {
    "default_num_inference_steps": 50,
    "default_guidance_scale": 7.5,
    "speed_variation": 0.0,
    "label_threshold": 0.0,
    "layout_channels": 0,
}
_MOST = {"speed_variation": 0.5, "label_threshold": 1.0, "layout_channels": math.inf}


def resolve_settings(separator: AudioVisualSeparator | None, **given: Any) -> dict[str, Any]:
    """
    The settings of a pipeline: those given that are not `None`, else those of the pipeline that the separator was part
    of before, else the defaults.

    Raises:
        ValueError: If one is out of its range.
    """
    for name, most in _MOST.items():
        value = given[name]
        if value is not None and (not isinstance(value, Real) or not 0 <= value <= most):
            raise ValueError(f"`{name}` has to be a number from 0 to {most:g} but is {value!r}.")
    channels = given["layout_channels"]
    if channels is not None and (not isinstance(channels, Integral) or channels % 8):
        raise ValueError(f"`layout_channels` has to be a multiple of 8 but is {channels!r}.")
    known = (separator.config.pipeline_settings or {}) if separator is not None else {}
    if separator is not None and (channels or 0) >= separator.config.cross_attention_dim:
        raise ValueError(
            f"`layout_channels` has to be below the width of condition tokens, {separator.config.cross_attention_dim},"
            f" but is {channels}."
        )
    return {**DEFAULT_SETTINGS, **known, **{name: value for name, value in given.items() if value is not None}}
