"""The mean of checkpoints' weights."""

import average_weights as script
import pytest
import torch
from tiny import LABELS, tiny_components, tiny_separator

from avgas_pipeline import AVGASPipeline


MODELS = ("audio_encoder", "separator", "unet", "vae")


def average(*arguments):
    script.main(list(map(str, arguments)))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Three pipelines of one shape, one with another separator, and one with its labels in another order."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for number in range(3):
        components = tiny_components()
        generator = torch.Generator().manual_seed(number)
        for name in MODELS:
            for weight in components[name].parameters():
                weight.data = torch.randn(weight.shape, generator=generator)
        AVGASPipeline(**components).save_pretrained(folder / str(number))
    AVGASPipeline(**{**tiny_components(), "separator": tiny_separator(num_slots=2)}).save_pretrained(folder / "other")
    reversed_labels = dict(enumerate(reversed(LABELS)))
    AVGASPipeline(**{**tiny_components(), "separator": tiny_separator(id2label=reversed_labels)}).save_pretrained(
        folder / "reversed"
    )
    return folder


def test_every_weight_is_the_mean(checkpoints, tmp_path):
    average(*(checkpoints / str(number) for number in range(3)), "--output_dir", tmp_path / "mean")
    pipes = [AVGASPipeline.from_pretrained(checkpoints / str(number)) for number in range(3)]
    mean = AVGASPipeline.from_pretrained(tmp_path / "mean")
    for name in MODELS:
        states = [getattr(pipe, name).state_dict() for pipe in pipes]
        for key, value in getattr(mean, name).state_dict().items():
            values = torch.stack([state[key] for state in states])
            wanted = values.mean(dim=0) if values.is_floating_point() else values[0]
            torch.testing.assert_close(value, wanted)


@pytest.mark.parametrize(
    ("names", "word"),
    [
        (("0",), "two checkpoints at least"),
        (("0", "other"), "other: its separator has not the shapes of"),
        (("0", "reversed"), "reversed: its labels are not those of"),
        (("0", "missing"), "missing"),
    ],
)
def test_what_has_no_mean_is_refused(names, word, checkpoints, tmp_path):
    with pytest.raises((ValueError, OSError), match=word):
        average(*(checkpoints / name for name in names), "--output_dir", tmp_path / "mean")
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(checkpoints, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="exists already"):
        average(checkpoints / "0", checkpoints / "1", "--output_dir", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
