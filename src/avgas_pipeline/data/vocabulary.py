"""Labels that a vocabulary does not have, and what may have been meant."""

import difflib
from collections.abc import Iterable


def nearest_labels(label: str, known: Iterable[str]) -> str:
    """For the end of an error: `; nearest: 'dog barking'`, or nothing if no label is alike."""
    by_case = {name.casefold(): name for name in known}
    found = difflib.get_close_matches(label.casefold(), by_case)
    # A word of theirs is alike, too.
    found += [name for name in by_case if label.strip() and label.casefold() in name and name not in found][:3]
    return f"; nearest: {', '.join(repr(by_case[name]) for name in found)}" if found else ""
