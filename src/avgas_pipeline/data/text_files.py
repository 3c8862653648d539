"""Text files that people give: CSV tables and JSON, with errors that name the file and the line."""

import codecs
import csv
import io
import json
import os
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def read_text(path: str | os.PathLike) -> str:
    """
    A file in UTF-8, with or without a byte order mark; all line ends become newlines.

    Raises:
        ValueError: If it is in another encoding or holds NUL bytes; it names the line.
    """
    content = Path(path).read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError(f"{path}: is in UTF-16 or UTF-32; save it as UTF-8.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {line}: is not in UTF-8; save it as UTF-8.") from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        # So UTF-16 without a byte order mark looks, too.
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(f"{path}, line {line}: holds a NUL byte; save it as UTF-8.")
    return text


def read_csv(path: str | os.PathLike, **dialect: Any) -> Iterator[tuple[str, list[str]]]:
    """
    Rows of a table that are not blank, each with its place for messages (file and line).

    Raises:
        ValueError: If the file can't be read as text or as a table; it names the line.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""), **dialect)
    while True:
        where = f"{path}, line {reader.line_num + 1}"
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise ValueError(f"{where}: can't be read ({error}).") from None
        if row is None:
            return
        if row:
            yield where, row


def read_csv_columns(path: str | os.PathLike, *columns: str, **dialect: Any) -> Iterator[tuple[str, dict[str, str]]]:
    """
    Rows of a table with a header, as dicts of the given columns, each with its place for messages.

    Raises:
        ValueError: If the file can't be read, a column is missing, or a row has too few or too many cells.
    """
    rows = read_csv(path, **dialect)
    where, header = next(rows, (str(path), []))
    missing = [column for column in columns if column not in header]
    if missing:
        raise ValueError(
            f"{where}: needs the columns {', '.join(map(repr, columns))}, but has {reprlib.repr(header)}."
        )
    for where, row in rows:
        if len(row) != len(header):
            raise ValueError(f"{where}: has {len(row)} cells, not {len(header)}.")
        yield where, {column: row[header.index(column)] for column in columns}


def read_json(path: str | os.PathLike) -> Any:
    """
    What a JSON file holds.

    Raises:
        ValueError: If it is not JSON.
    """
    return _parse(read_text(path), path)


def read_json_lines(path: str | os.PathLike) -> Iterator[tuple[str, Any]]:
    """
    What the lines of a file hold that are not blank, each with its place for messages (file and line).

    Raises:
        ValueError: If one is not JSON; it names the line.
    """
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            yield f"{path}, line {number}", _parse(line, path, number)


def _parse(text: str, path: str | os.PathLike, number: int = 1) -> Any:
    where = f"{path}, line {number}"
    try:
        value = json.loads(text)
        # Half a surrogate pair can be escaped in JSON, and can't be written anywhere.
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError(f"{where}: holds half a surrogate pair, which is no character.") from None
    except json.JSONDecodeError as error:
        line = number + error.lineno - 1
        raise ValueError(f"{path}, line {line}: not JSON ({error.msg} at column {error.colno}).") from None
    except ValueError as error:
        raise ValueError(f"{where}: not JSON ({error}).") from None
    except RecursionError:
        raise ValueError(f"{where}: not JSON that can be read (nested too deep).") from None
    return value
