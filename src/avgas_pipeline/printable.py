"""Names and labels as they may be shown: no control characters, and nothing invisible that changes what is read."""

import re


# What changes the order of letters without being seen, and what some programs take for the end of a line.
INVISIBLE = "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
_CONTROL = re.compile(f"[\x00-\x1f\x7f-\x9f{INVISIBLE}]")
_NOT_UNICODE = re.compile("[\ud800-\udfff]")


def printable(text: object) -> str:
    r"""A name or label as it may be printed: on one line, with control characters as `\x1b` or `\n`."""
    return _NOT_UNICODE.sub("\ufffd", _CONTROL.sub(escape, str(text)))


def escape(match: re.Match) -> str:
    return match[0].encode("unicode_escape").decode()
