"""Confidence intervals by resampling soundscapes."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap


NUM_RESAMPLES = 5000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """
    An estimate with its 95 % bootstrap interval.

    Attributes:
        value (`float`): Of all soundscapes; NaN if none counts.
        low (`float`): Lower end; NaN with fewer than two soundscapes.
        high (`float`): Upper end.
        count (`int`): How many soundscapes count.
    """

    value: float
    low: float
    high: float
    count: int


def bootstrap_interval(values: np.ndarray, statistic: str = "mean", seed: int = 0) -> Interval:
    """
    The mean or median of one value per soundscape, with its percentile bootstrap interval (`scipy.stats.bootstrap`,
    5,000 resamples of soundscapes). Values that are NaN do not count.

    Args:
        values (`np.ndarray` of shape `(N,)`): One value per soundscape; for a paired comparison, differences.
        statistic (`str`, defaults to `"mean"`): `"mean"` or `"median"`.
        seed (`int`, defaults to 0): The same gives the same interval.
    """
    function = {"mean": np.mean, "median": np.median}[statistic]
    values = np.asarray(values, dtype=np.float64)
    values = values[~np.isnan(values)]
    nan = float("nan")
    if len(values) < 2:
        return Interval(float(values[0]) if len(values) else nan, nan, nan, len(values))
    value = float(function(values))
    if np.ptp(values) == 0:
        return Interval(value, value, value, len(values))
    ends = bootstrap(
        (values,),
        function,
        n_resamples=NUM_RESAMPLES,
        batch=100,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(value, float(ends.low), float(ends.high), len(values))
