"""Shards of prepared clips, as Parquet or WebDataset: rows to bytes, and back."""

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from .builder import FEATURES


Rows = list[dict[str, Any]]
# Files of a WebDataset's row.
_COLUMNS = {"flac": "audio", "jpg": "image"}


@dataclass(frozen=True)
class ShardFormat:
    """
    A kind of shards.

    Attributes:
        suffix (`str`): Of their files, without the dot.
        encode, read (`Callable`): Rows to a file's bytes, and of a file.
        features (`str`): What the data set's card has to say of their columns.
    """

    suffix: str
    encode: Callable[[Rows], bytes]
    read: Callable[[Path], Rows]
    features: str


def _encode_parquet(rows: Rows) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=FEATURES.arrow_schema), buffer, compression="none")
    return buffer.getvalue()


def _encode_webdataset(rows: Rows) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for row in rows:
            table = {key: value for key, value in row.items() if key not in ("audio", "image")}
            files = {"flac": row["audio"], "jpg": row["image"], "json": json.dumps(table).encode()}
            # A dot would end the name, and a slash is a folder.
            key = quote(row["id"], safe="").replace(".", "%2E")
            for suffix, content in files.items():
                if content is None:
                    continue
                # Readers leave out names that begin with `__`, as some YouTube ids do. No owner and no date: the bytes
                # are the same every time.
                member = tarfile.TarInfo(f"clip_{key}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _read_parquet(path: Path) -> Rows:
    return pq.read_table(path).to_pylist()


def _read_webdataset(path: Path) -> Rows:
    rows: dict[str, dict[str, Any]] = {}
    with tarfile.open(path) as archive:
        for member in archive:
            key, _, suffix = member.name.partition(".")
            content = archive.extractfile(member).read()
            row = rows.setdefault(key, {"audio": None, "image": None})
            row |= json.loads(content) if suffix == "json" else {_COLUMNS[suffix]: content}
    return list(rows.values())


# `datasets` would decode a WebDataset's sounds, for which it needs torchcodec; Parquet files say what they hold.
_WEBDATASET_FEATURES = """dataset_info:
  features:
  - name: __key__
    dtype: string
  - name: __url__
    dtype: string
  - name: flac
    dtype: binary
  - name: jpg
    dtype: binary
  - name: json
    struct:
    - name: id
      dtype: string
    - name: label
      dtype: string
    - name: labels
      list: string
    - name: label_index
      dtype: int32
    - name: split
      dtype: string
    - name: duration
      dtype: float64
    - name: frame_s
      dtype: float64
"""


FORMATS = {
    "parquet": ShardFormat("parquet", _encode_parquet, _read_parquet, ""),
    "webdataset": ShardFormat("tar", _encode_webdataset, _read_webdataset, _WEBDATASET_FEATURES),
}
