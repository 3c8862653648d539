"""Words of a checkpoint, as they may be shown; imports no torch."""


def printable(text: str) -> str:
    """A text with its control characters, line breaks among them, as the escapes that stand for them."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
