"""When which sources are heard: the scenes of a film."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.ndimage import uniform_filter1d

from ..pipeline_output import SoundSource


# No scene is shorter, in seconds, unless the recording is.
SHORTEST_S = 1.5
# A source is heard from this share of the energy on, and until its share is below the second (hysteresis); of a source
# that never has much, half of its most, and a fifth.
ON, OFF = 0.25, 0.1
ON_OF_MOST, OFF_OF_MOST = 0.5, 0.2
# Activity is averaged over this long, in seconds: sources are not gone between two syllables.
SMOOTHED_S = 0.5


@dataclass(frozen=True)
class Scene:
    """
    Part of a recording in which the same sources are heard.

    Attributes:
        start_s, end_s (`float`): In seconds.
        sources (`tuple[int, ...]`): Their numbers, rising; none where nothing is heard.
    """

    start_s: float
    end_s: float
    sources: tuple[int, ...]


def find_scenes(sources: Sequence[SoundSource], duration_s: float, shortest_s: float = SHORTEST_S) -> list[Scene]:
    """
    The scenes of a recording, one after another from its start to its end.

    Args:
        sources (`Sequence[SoundSource]`): Of the whole recording. Those without `activity` are heard throughout.
        duration_s (`float`): The recording's length, in seconds.
        shortest_s (`float`, defaults to 1.5): Of a scene, in seconds.
    """
    hop_s = next((source.activity_hop_s for source in sources if source.activity is not None), None)
    if hop_s is None or duration_s <= shortest_s:
        return [Scene(0.0, duration_s, tuple(range(len(sources))))]
    frames = max(math.ceil(duration_s / hop_s), 1)
    shortest = max(round(shortest_s / hop_s), 1)
    heard = np.zeros((len(sources), frames), dtype=bool)
    for number, source in enumerate(sources):
        activity = source.activity
        heard[number] = True if activity is None else _is_heard(activity, frames, hop_s, shortest)
    # Where any source comes or goes.
    edges = [0, *(np.flatnonzero((heard[:, 1:] != heard[:, :-1]).any(axis=0)) + 1).tolist(), frames]
    runs = [(start, end, heard[:, start]) for start, end in pairwise(edges)]
    merged = _without_short(runs, shortest)
    bounds = [start * hop_s for start, _, _ in merged] + [duration_s]
    return [
        Scene(start, end, tuple(np.flatnonzero(present).tolist()))
        for (start, end), (_, _, present) in zip(pairwise(bounds), merged, strict=True)
    ]


def _is_heard(activity: np.ndarray, frames: int, hop_s: float, shortest: int) -> np.ndarray:
    """In which frames a source is heard: for as long as a scene at least, and gone for as long."""
    smooth = uniform_filter1d(activity.astype(np.float64), max(round(SMOOTHED_S / hop_s), 1), mode="nearest")
    smooth = np.pad(smooth, (0, max(frames - len(smooth), 0)), mode="edge")[:frames]
    most = float(smooth.max(initial=0.0))
    on, off = min(ON, ON_OF_MOST * most), min(OFF, OFF_OF_MOST * most)
    # From each frame that is clearly on, to where it is clearly off on both sides.
    state = np.where(smooth >= on, 1, np.where(smooth < off, 0, -1)) if most > 0 else np.zeros(frames, dtype=int)
    decided = np.where(state >= 0, np.arange(frames), 0)
    heard = np.where(state >= 0, state, state[np.maximum.accumulate(decided)]) == 1
    return _fill(_lengthen(heard, shortest), shortest)


def _intervals(heard: np.ndarray) -> np.ndarray:
    """First frame of every interval, and the frame after it, `(N, 2)`."""
    return np.flatnonzero(np.diff(np.concatenate([[False], heard, [False]]).astype(np.int8))).reshape(-1, 2)


def _lengthen(heard: np.ndarray, shortest: int) -> np.ndarray:
    """With intervals that are shorter than a scene as long as one, from their start."""
    longer = heard.copy()
    for start, end in _intervals(heard):
        if end - start < shortest:
            first = max(min(start, len(heard) - shortest), 0)
            longer[first : first + shortest] = True
    return longer


def _fill(heard: np.ndarray, shortest: int) -> np.ndarray:
    """With gaps shorter than a scene closed; those at the ends stay."""
    filled, intervals = heard.copy(), _intervals(heard)
    for (_, end), (start, _) in pairwise(intervals):
        if start - end < shortest:
            filled[end:start] = True
    return filled


def _without_short(runs: list[tuple[int, int, np.ndarray]], shortest: int) -> list[tuple[int, int, np.ndarray]]:
    """Runs of frames, the shortest given to the neighbour that is most like them until none is too short."""
    runs = list(runs)
    while len(runs) > 1:
        lengths = [end - start for start, end, _ in runs]
        number = int(np.argmin(lengths))
        if lengths[number] >= shortest:
            break
        neighbours = [other for other in (number - 1, number + 1) if 0 <= other < len(runs)]
        present = runs[number][2]
        # Of equally like ones the one in which more is heard.
        into = min(neighbours, key=lambda other: ((runs[other][2] != present).sum(), -runs[other][2].sum()))
        first, last = sorted((number, into))
        runs[first : last + 1] = [(runs[first][0], runs[last][1], runs[into][2])]
        runs = _joined(runs)
    return _joined(runs)


def _joined(runs: list[tuple[int, int, np.ndarray]]) -> list[tuple[int, int, np.ndarray]]:
    """With neighbours that are the same in one."""
    joined = runs[:1]
    for start, end, present in runs[1:]:
        if (joined[-1][2] == present).all():
            joined[-1] = (joined[-1][0], end, present)
        else:
            joined.append((start, end, present))
    return joined
