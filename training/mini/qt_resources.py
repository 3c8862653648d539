"""Read Qt's binary resource files (`.rcc`), in which GCompris has its pictures."""

import struct
import zlib
from pathlib import Path


MAGIC = b"qres"
# The flags of a node. Zstandard, which newer versions may use, is not read.
COMPRESSED, FOLDER = 1, 2


def read_resources(path: Path) -> dict[str, bytes]:
    """
    Contents of a resource file by path.

    Raises:
        ValueError: If it is no resource file, or is compressed in a way that is not known.
    """
    data = path.read_bytes()
    if data[:4] != MAGIC:
        raise ValueError(f"{path}: not a Qt resource file.")
    version, tree, contents, names = struct.unpack(">4I", data[4:20])
    node_size = 22 if version >= 2 else 14
    files: dict[str, bytes] = {}

    def name_of(offset: int) -> str:
        (length,) = struct.unpack_from(">H", data, names + offset)
        return data[names + offset + 6 : names + offset + 6 + 2 * length].decode("utf-16-be")

    def walk(number: int, parent: str) -> None:
        name_offset, flags = struct.unpack_from(">IH", data, tree + number * node_size)
        name = f"{parent}{name_of(name_offset)}" if number else ""
        if flags & FOLDER:
            count, first = struct.unpack_from(">II", data, tree + number * node_size + 6)
            for child in range(first, first + count):
                walk(child, f"{name}/" if name else "")
            return
        if flags & ~COMPRESSED:
            raise ValueError(f"{path}: {name} is compressed in a way that is not known.")
        # Territory and language come first.
        (offset,) = struct.unpack_from(">I", data, tree + number * node_size + 10)
        (size,) = struct.unpack_from(">I", data, contents + offset)
        content = data[contents + offset + 4 : contents + offset + 4 + size]
        # Compressed contents have their length before them.
        files[name] = zlib.decompress(content[4:]) if flags & COMPRESSED else content

    walk(0, "")
    return files
