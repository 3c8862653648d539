"""What a pipeline is set to, beside its components: defaults of a call, and how it hears and draws."""

from numbers import Real
from typing import Any

from .models.separator import AudioVisualSeparator


# Of a pipeline whose components say nothing else.
DEFAULT_SETTINGS: dict[str, Any] = {
    "default_num_inference_steps": 50,
    "default_guidance_scale": 7.5,
    "speed_variation": 0.0,
    "label_threshold": 0.0,
    "compose_sources": False,
}
_MOST = {"speed_variation": 0.5, "label_threshold": 1.0}


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
    composes = given["compose_sources"]
    if composes is not None and not isinstance(composes, bool):
        raise ValueError(f"`compose_sources` has to be true or false but is {composes!r}.")
    known = (separator.config.pipeline_settings or {}) if separator is not None else {}
    return {**DEFAULT_SETTINGS, **known, **{name: value for name, value in given.items() if value is not None}}
