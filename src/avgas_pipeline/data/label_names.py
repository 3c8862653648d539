"""
What other vocabularies call VGGSound's labels.

All names of AudioSet's ontology (Gemmeke et al., ICASSP 2017; CC BY 4.0), ESC-50, LLP and AVE are in
`label_names.csv`. The label is empty where VGGSound has none that means the same: a name for several of its sounds
("Speech", "Train"), or one that other things have, too ("Hiss"), is none of them. FSD50K writes AudioSet's names with
other punctuation.
"""

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from ..loaders.sounds import VGGSOUND_LABELS
from .text_files import read_csv_columns


TABLE = Path(__file__).with_name("label_names.csv")
VOCABULARIES = ("vggsound", "audioset", "fsd50k", "esc50", "llp", "ave")


def vggsound_label(name: str, vocabulary: str) -> str | None:
    """
    VGGSound's label of a name in another vocabulary; `None` if it has none that means it.

    Args:
        name (`str`): As data sets write it; case and punctuation do not count.
        vocabulary (`str`): One of `VOCABULARIES`.

    Raises:
        ValueError: If there is no such vocabulary.
    """
    if vocabulary not in VOCABULARIES:
        raise ValueError(f"vocabulary has to be one of {', '.join(VOCABULARIES)} but is {vocabulary!r}.")
    return _names(vocabulary).get(_plain(name))


def vggsound_labels(names: Iterable[str], vocabulary: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The labels of several names, each once, in their order; and the names that have none."""
    found = {name: vggsound_label(name, vocabulary) for name in names}
    labels = dict.fromkeys(label for label in found.values() if label is not None)
    return tuple(labels), tuple(name for name, label in found.items() if label is None)


@cache
def _names(vocabulary: str) -> dict[str, str]:
    if vocabulary == "vggsound":
        return {_plain(label): label for label in VGGSOUND_LABELS}
    own = "audioset" if vocabulary == "fsd50k" else vocabulary
    rows = read_csv_columns(TABLE, "vocabulary", "name", "label")
    return {_plain(row["name"]): row["label"] for _, row in rows if row["vocabulary"] == own and row["label"]}


def _plain(name: str) -> str:
    """A name without what FSD50K changes: `Fixed-wing_aircraft_and_airplane`, `Baby_cry_and_infant_cry`."""
    words = re.findall(r"[a-z0-9]+", name.casefold())
    return " ".join(word for word in words if word != "and")
