"""TensorFlow checkpoints, written without TensorFlow."""

import struct

import numpy as np
from convert_yamnet import PREFIX, SUFFIX


def varint(value):
    groups = []
    while True:
        groups.append(value & 0x7F | (0x80 if value > 0x7F else 0))
        value >>= 7
        if not value:
            return bytes(groups)


def number(field, value):
    return varint(field << 3) + varint(value)


def message(field, value):
    return varint(field << 3 | 2) + varint(len(value)) + value


def block(pairs, compression=0):
    """A LevelDB block; keys leave out what they share with the one before."""
    content, last = b"", b""
    for key, value in pairs:
        shared = next((i for i, (a, b) in enumerate(zip(key, last, strict=False)) if a != b), min(len(key), len(last)))
        content += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return content + struct.pack("<II", 0, 1), bytes([compression]) + b"\0\0\0\0"


def bundle(variables, compression=0):
    """Index and data of a checkpoint."""
    data, pairs = b"", [(b"", number(1, 1))]
    for name, value in sorted(variables.items()):
        shape = b"".join(message(2, number(1, size)) for size in value.shape)
        kind = 1 if value.dtype == np.float32 else 9
        entry = number(1, kind) + message(2, shape) + number(4, len(data)) + number(5, value.nbytes)
        pairs.append((name.encode(), entry + varint(6 << 3 | 5) + b"\0\0\0\0"))
        data += value.tobytes()
    table = b""
    places = []
    middle = len(pairs) // 2
    for part in (pairs[:middle], pairs[middle:]):
        content, trailer = block(part, compression)
        places.append((part[-1][0] + b"~", varint(len(table)) + varint(len(content))))
        table += content + trailer
    content, trailer = block(places)
    footer = varint(0) + varint(0) + varint(len(table)) + varint(len(content))
    return table + content + trailer + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57), data


def variables_of(encoder):
    """What TensorFlow would have saved of an encoder, and a classifier."""
    variables = {f"{PREFIX}54/kernel{SUFFIX}": np.ones((4, 2), np.float32), "step": np.array([7], np.int64)}
    for layer, part in enumerate([encoder.conv_stem, *encoder.layer]):
        weight = part.convolution.weight.detach().numpy()
        grouped = part.convolution.groups > 1
        kernel = weight.transpose((3, 2, 0, 1) if grouped else (3, 2, 1, 0))
        name = "depthwise_kernel" if grouped else "kernel"
        variables[f"{PREFIX}{2 * layer}/{name}{SUFFIX}"] = np.ascontiguousarray(kernel)
        norm = part.normalization
        for theirs, value in (
            ("beta", norm.bias),
            ("moving_mean", norm.running_mean),
            ("moving_variance", norm.running_var),
        ):
            variables[f"{PREFIX}{2 * layer + 1}/{theirs}{SUFFIX}"] = value.detach().numpy()
    return variables
