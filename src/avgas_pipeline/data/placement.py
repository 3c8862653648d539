"""Where in a mixture a clip sounds: drawn at random, and made to sound there."""

import numpy as np

from ..audio.loudness import active_moments, active_rms
from ..audio.windows import cut_quieter_end
from .augment import augment
from .plans import SourcePlan


# Active RMS of a source with a gain of 0 dB: -26 dB of full scale.
_REFERENCE_LEVEL = 10.0 ** (-26.0 / 20)
# Fade at the ends of a placed piece, so that cuts do not click.
_FADE_S = 0.005
# Where in the window the moment of a long clip lies that a piece is cut around.
_MOMENT_SHARE = (0.1, 0.9)
# Clips shorter than this share of the window are repeated, with this probability.
_REPEATED_SHARE = 0.6
_REPEAT_PROBABILITY = 0.6
# Gaps between repetitions: so many times the clip's own length, and so many seconds more. Never regular.
_GAP_LENGTHS = (0.3, 1.5)
_GAP_S = (0.05, 0.4)


def draw_placement(
    clip: np.ndarray, sampling_rate: int, duration_s: float, rng: np.random.Generator
) -> tuple[str, float, float]:
    """
    A random place for a clip in a mixture.

    Args:
        clip (`np.ndarray` of shape `(T,)`): Its samples.
        sampling_rate (`int`): In Hz.
        duration_s (`float`): Of the mixture.
        rng (`np.random.Generator`): Decides everything.

    Returns:
        `placement`, `start_s` and `offset_s`, as of [`SourcePlan`].
    """
    length_s = len(clip) / sampling_rate
    if length_s >= duration_s:
        # Around a moment in which the clip sounds: long clips have long pauses.
        moments = active_moments(clip, sampling_rate)
        moment = moments[int(rng.integers(len(moments)))] if len(moments) else 0.0
        earliest, latest = (
            min(max(moment - share * duration_s, 0.0), length_s - duration_s) for share in _MOMENT_SHARE[::-1]
        )
        return "crop", round(float(rng.uniform(earliest, latest)), 4), 0.0
    is_short = length_s < _REPEATED_SHARE * duration_s
    placement = "repeat" if is_short and rng.random() < _REPEAT_PROBABILITY else "once"
    # A repeated clip begins early, so that there is time for more.
    latest = duration_s - length_s
    offset_s = rng.uniform(0, min(latest, length_s) if placement == "repeat" else latest)
    return placement, 0.0, round(float(offset_s), 4)


def render_stem(clip: np.ndarray, source: SourcePlan, sampling_rate: int, length: int, augmented: bool) -> np.ndarray:
    """
    What a source sounds like in a mixture, before all sources are turned down so that nothing clips.

    Args:
        clip (`np.ndarray` of shape `(T,)`): The samples of the source's clip.
        source ([`SourcePlan`]): Where and how loud it sounds.
        sampling_rate (`int`): In Hz.
        length (`int`): Of the mixture, in samples.
        augmented (`bool`): Whether the clip is varied.

    Returns:
        `np.ndarray` of shape `(length,)`, float32.

    Raises:
        ValueError: If it is silent.
    """
    rng = np.random.default_rng(source.seed)
    if source.placement == "crop":
        start = min(round(source.start_s * sampling_rate), max(len(clip) - length, 0))
        clip = clip[start : start + length]
    position = round(source.offset_s * sampling_rate)
    if augmented:
        # Slower, it may have its only sound where the window is over.
        clip = cut_quieter_end(augment(clip, sampling_rate, rng), length)
        position = min(position, length - len(clip))
    clip = _fade(clip[:length], round(_FADE_S * sampling_rate))

    stem = np.zeros(length, dtype=np.float32)
    while position < length:
        piece = clip[: length - position]
        stem[position : position + len(piece)] += piece
        if source.placement != "repeat":
            break
        position += len(clip) + round(len(clip) * rng.uniform(*_GAP_LENGTHS) + rng.uniform(*_GAP_S) * sampling_rate)
    level = active_rms(stem, sampling_rate)
    if level == 0.0:
        raise ValueError(f"Clip {source.clip!r} is silent where it is used.")
    return stem * np.float32(_REFERENCE_LEVEL * 10.0 ** (source.gain_db / 20) / level)


def _fade(waveform: np.ndarray, length: int) -> np.ndarray:
    length = min(length, len(waveform) // 2)
    faded = np.array(waveform, dtype=np.float32)
    ramp = np.linspace(0, 1, length + 1, dtype=np.float32)[1:]
    faded[:length] *= ramp
    faded[len(faded) - length :] *= ramp[::-1]
    return faded
