"""Blind pairs for a human study, and the ratings people give them."""

import hashlib
import json
import os
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from .report import read_report


CHOICES = ("left", "right", "equal")
# The ratings' file in a report's folder.
RATINGS = "ratings.jsonl"
# Of each of its lines.
_BEGINNING = b'{"rater": "'


@dataclass(frozen=True)
class Pair:
    """
    Two images of one soundscape, side by side.

    Attributes:
        number (`int`): Of the soundscape in the manifest.
        left (`str`): System that drew the left one.
        right (`str`): System that drew the right one.
    """

    number: int
    left: str
    right: str


@dataclass(frozen=True)
class Rating:
    """
    One person's judgement of one pair.

    Attributes:
        rater (`str`): Who.
        number (`int`): Of the soundscape in the manifest.
        left (`str`): System on the left.
        right (`str`): System on the right.
        choice (`str`): `"left"`, `"right"` or `"equal"`.
        drawings (`str`): Digest of what drew the images, so that a newer report's ratings are not mixed with these.
    """

    rater: str
    number: int
    left: str
    right: str
    choice: str
    drawings: str = ""

    @property
    def preferred(self) -> str | None:
        """The system that was chosen; `None` for a draw."""
        return {"left": self.left, "right": self.right}.get(self.choice)


def pairs_for(rater: str, ours: str, theirs: str, num_soundscapes: int, num_pairs: int, seed: int = 0) -> list[Pair]:
    """
    What a rater is shown: soundscapes evenly from the manifest, the same ones for everybody, in an order and with
    sides of the rater's own. The same rater gets the same, whenever they come back.

    Args:
        rater (`str`): Who.
        ours (`str`): One system.
        theirs (`str`): The other.
        num_soundscapes (`int`): In the manifest.
        num_pairs (`int`): To show; at most one per soundscape.
        seed (`int`, defaults to 0): Of the study.
    """
    # Of any name's length, and as text in JSON also of what is no Unicode.
    digest = hashlib.sha256(json.dumps([seed, rater, ours, theirs]).encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:16], "big"))
    numbers = np.unique(np.linspace(0, num_soundscapes - 1, min(num_pairs, num_soundscapes)).astype(int))
    # As often left as right, whatever the rater's liking for a side.
    on_left = rng.permutation(np.arange(len(numbers)) % 2 == 0)
    pairs = [
        Pair(int(number), *((ours, theirs) if left else (theirs, ours)))
        for number, left in zip(numbers, on_left, strict=True)
    ]
    return [pairs[place] for place in rng.permutation(len(pairs))]


class RatingFile:
    """
    Ratings as JSON lines. Each is on disk before it is acknowledged; a line that a crash cut short is passed over.

    Args:
        path (`str` or `os.PathLike`): The file; made with the first rating.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()

    def add(self, rating: Rating) -> None:
        """Note a rating."""
        line = json.dumps(asdict(rating)).encode() + b"\n"
        with self._lock:
            # A line cut short must not swallow the next one.
            torn = self.path.exists() and not self.path.read_bytes().endswith(b"\n") and self.path.stat().st_size > 0
            with open(self.path, "ab") as file:
                file.write((b"\n" if torn else b"") + line)
                file.flush()
                os.fsync(file.fileno())

    def read(self) -> list[Rating]:
        """
        All ratings; where someone rated a pair again, the last one counts.

        Raises:
            ValueError: If the file holds something else.
        """
        latest: dict[tuple, Rating] = {}
        lines = self.path.read_bytes().split(b"\n") if self.path.exists() else []
        for number, line in enumerate(lines, start=1):
            # A crash of the machine may leave zeros.
            line = line.strip(b"\x00")
            try:
                rating = _parse_rating(json.loads(line))
            except (ValueError, TypeError, RecursionError):
                if _is_cut_short(line):
                    continue
                raise ValueError(f"{self.path}, line {number}: not a rating.") from None
            pair = frozenset((rating.left, rating.right))
            latest[rating.rater, rating.number, pair, rating.drawings] = rating
        return list(latest.values())


def _is_cut_short(line: bytes) -> bool:
    """Whether a line is but the beginning of a rating, or nothing."""
    return _BEGINNING.startswith(line) or (line.startswith(_BEGINNING) and not line.endswith(b"}"))


def _parse_rating(values: Any) -> Rating:
    rating = Rating(**values)
    texts = (rating.rater, rating.left, rating.right, rating.drawings)
    if type(rating.number) is not int or not all(isinstance(text, str) for text in texts):
        raise TypeError
    if rating.choice not in CHOICES:
        raise ValueError
    return rating


@dataclass(frozen=True)
class Preference:
    """
    How often people prefer one system to another.

    Attributes:
        wins (`int`): Ratings for the first.
        losses (`int`): Ratings for the second.
        draws (`int`): Undecided ones, which the share leaves out.
        raters (`int`): People.
        share (`float`): wins / (wins + losses); NaN without any.
        low (`float`): Lower end of its 95 % interval (Wilson's).
        high (`float`): Upper end.
        p_value (`float`): Of the two-sided binomial test against 0.5.
    """

    wins: int
    losses: int
    draws: int
    raters: int
    share: float
    low: float
    high: float
    p_value: float

    def __str__(self) -> str:
        if not self.wins + self.losses:
            return f"no decided rating ({self.draws} undecided)"
        return (
            f"preferred in {self.share:.1%} [{self.low:.1%}, {self.high:.1%}] of {self.wins + self.losses} decided"
            f" ratings by {self.raters} raters ({self.draws} undecided; binomial test p = {self.p_value:.2g})"
        )


@dataclass(frozen=True)
class Comparison:
    """
    Which two systems' drawings are compared.

    Attributes:
        ours (`str`): The first system of a report.
        theirs (`str`): Another one.
        drawings (`str`): Digest of the soundscapes and of both systems.
    """

    ours: str
    theirs: str
    drawings: str

    @classmethod
    def of_report(cls, out: Path, against: str | None = None) -> "Comparison":
        """
        The first system of a report against another one, by default the second.

        Raises:
            FileNotFoundError: If there is no report.
            ValueError: If it has no such system.
        """
        report = read_report(out)
        ours, *others = report["systems"]
        if not others:
            raise ValueError(f"{out}: has one system alone, and a study compares two.")
        theirs = against or others[0]
        if theirs not in others:
            raise ValueError(f"{out}: has no system {against!r} besides {ours!r}, but {', '.join(others)}.")
        drawn = [report["data"]["sha256"], report["systems"][ours], report["systems"][theirs]]
        digest = hashlib.sha256(json.dumps(drawn, sort_keys=True).encode()).hexdigest()
        return cls(ours, theirs, digest[:16])

    def relevant(self, ratings: Sequence[Rating]) -> list[Rating]:
        """Those of these drawings."""
        return [rating for rating in ratings if rating.drawings == self.drawings]


def preference(ratings: Sequence[Rating], ours: str, theirs: str) -> Preference:
    """
    How often `ours` is preferred to `theirs`, with Wilson's 95 % interval and a binomial test (`scipy.stats`). Ratings
    count as independent, which those of one person, or of one soundscape, are only nearly.
    """
    relevant = [rating for rating in ratings if {rating.left, rating.right} == {ours, theirs}]
    wins = sum(rating.preferred == ours for rating in relevant)
    losses = sum(rating.preferred == theirs for rating in relevant)
    counts = {
        "wins": wins,
        "losses": losses,
        "draws": len(relevant) - wins - losses,
        "raters": len({rating.rater for rating in relevant}),
    }
    if not wins + losses:
        nan = float("nan")
        return Preference(**counts, share=nan, low=nan, high=nan, p_value=nan)
    test = binomtest(wins, wins + losses)
    interval = test.proportion_ci(method="wilson")
    return Preference(
        **counts, share=test.statistic, low=float(interval.low), high=float(interval.high), p_value=float(test.pvalue)
    )
