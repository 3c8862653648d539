"""
Reads the variables of a TensorFlow checkpoint without TensorFlow.

The format is that of TensorFlow's `tensor_bundle`: an index, which is a LevelDB table of protocol buffers, tells name,
shape and place of every variable in one file of data.
"""

import struct
from collections.abc import Iterator

import numpy as np


_TABLE_MAGIC = 0xDB4775248B80FB57
_FOOTER_BYTES = 48
# Fields of the messages BundleEntryProto, TensorShapeProto and TensorShapeProto.Dim, and the number of float32.
_DTYPE, _SHAPE, _OFFSET, _SIZE = 1, 2, 4, 5
_DIM, _DIM_SIZE, _DT_FLOAT = 2, 1, 1


def read_variables(index: bytes, data: bytes) -> dict[str, np.ndarray]:
    """
    The float32 variables of a checkpoint, by name.

    Args:
        index (`bytes`): Of `variables.index`.
        data (`bytes`): Of `variables.data-00000-of-00001`.

    Raises:
        ValueError: If the index is not one, or is damaged or compressed, or the data end too early.
    """
    try:
        return _read(index, data)
    except (IndexError, KeyError, OverflowError, TypeError, UnicodeDecodeError, struct.error):
        # What a wrong byte leads to depends on where it is.
        raise ValueError("the index is damaged") from None


def _read(index: bytes, data: bytes) -> dict[str, np.ndarray]:
    if len(index) < _FOOTER_BYTES or struct.unpack("<Q", index[-8:])[0] != _TABLE_MAGIC:
        raise ValueError("not the index of a TensorFlow checkpoint")
    # The footer has the places of two blocks: of one that is not used, and of the index of blocks.
    footer, position = index[-_FOOTER_BYTES:], 0
    places = []
    for _ in range(4):
        value, position = _varint(footer, position)
        places.append(value)
    variables = {}
    for _, place in _entries(index, *places[2:]):
        start, position = _varint(place, 0)
        for name, entry in _entries(index, start, _varint(place, position)[0]):
            fields = dict(_fields(entry))
            # The first entry is the header; variables of other types are counters.
            if not name or fields.get(_DTYPE) != _DT_FLOAT:
                continue
            shape = [dict(_fields(dim)).get(_DIM_SIZE, 0) for key, dim in _fields(fields[_SHAPE]) if key == _DIM]
            offset, size = fields.get(_OFFSET, 0), fields.get(_SIZE, 0)
            if size != 4 * np.prod(shape, dtype=int) or offset + size > len(data):
                raise ValueError(f"the data of {name.decode()} are not whole")
            variables[name.decode()] = np.frombuffer(data, "<f4", size // 4, offset).reshape(shape)
    return variables


def _entries(table: bytes, start: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block; keys leave out what they share with the one before."""
    if table[start + size] != 0:
        raise ValueError("the index is compressed")
    block = table[start : start + size]
    num_restarts = struct.unpack("<I", block[-4:])[0]
    end, position, key = size - 4 * (num_restarts + 1), 0, b""
    while position < end:
        shared, position = _varint(block, position)
        own, position = _varint(block, position)
        length, position = _varint(block, position)
        key = key[:shared] + block[position : position + own]
        position += own
        yield key, block[position : position + length]
        position += length


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and values of a protocol buffer's fields."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        kind = tag & 7
        if kind == 0:
            value, position = _varint(message, position)
        else:
            length = {1: 8, 5: 4}.get(kind)
            if length is None:
                length, position = _varint(message, position)
            value = message[position : position + length]
            position += length
        yield tag >> 3, value


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first, and where it ends."""
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position
