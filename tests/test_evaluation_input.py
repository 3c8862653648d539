"""What `avgas evaluate` refuses, in one line and before anything is drawn."""

import json
import shutil

import PIL.Image
import pytest
import soundfile
from evaluation_data import DATA, fails, run, write_evaluation_inputs
from tiny import LABELS, save_tiny_judge, tiny_audio

from avgas_pipeline.data.mixtures import MixtureSampler
from avgas_pipeline.evaluation import DrawingSettings, MixtureSet, PipelineSystem, evaluate, load_evaluation_set
from avgas_pipeline.metrics import load_judge


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Read-only by convention."""
    return write_evaluation_inputs(tmp_path_factory.mktemp("evaluation"))


@pytest.fixture(scope="module")
def dataset(inputs):
    return load_evaluation_set(DATA, inputs, inputs / "manifest.jsonl")


@pytest.fixture
def images(tmp_path):
    """Drawn elsewhere, one for each mixture."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(6):
        PIL.Image.new("RGB", (64, 64)).save(folder / f"{number:05d}.png")
    return folder


@pytest.fixture
def no_drawing(monkeypatch):
    def draw(*_):
        raise AssertionError("drawn before the inputs were checked")

    monkeypatch.setattr(PipelineSystem, "draw", draw)


@pytest.mark.usefixtures("no_drawing")
class TestWrongInput:
    def edited_manifest(self, inputs, tmp_path, **change):
        lines = (inputs / "manifest.jsonl").read_text().splitlines()
        row = json.loads(lines[-1])
        row["sources"][0].update(change)
        path = tmp_path / "edited.jsonl"
        path.write_text("\n".join([*lines[:-1], json.dumps(row)]))
        return path

    @pytest.mark.parametrize(
        ("change", "word"),
        [
            ({"label": "volcano explosion"}, "not 'volcano explosion'"),
            ({"clip": "no/such"}, "no clip 'no/such'"),
            ({"picture": "no/such"}, "no picture 'no/such'"),
            ({"picture": "raining/img-openclipart-none"}, "no picture"),
            ({"colour": "blue"}, "line 6: not a mixture"),
            ({"gain_db": "loud"}, "line 6: not a mixture (gain_db is 'loud')"),
            ({"placement": "sideways"}, "line 6: not a mixture (placement is 'sideways')"),
        ],
    )
    def test_manifest_that_does_not_fit(self, inputs, tmp_path, change, word):
        manifest = self.edited_manifest(inputs, tmp_path, **change)
        fails(run(inputs, tmp_path / "out", manifest=manifest), manifest, word)

    def test_missing_clip_file(self, tmp_path):
        clips = [{"id": "a", "label": "raining", "audio": str(tmp_path / "gone.wav")}]
        soundfile.write(tmp_path / "gone.wav", tiny_audio()[0], 16000)
        sampler = MixtureSampler(clips, num_sources=1)
        plans = [sampler.plan(0)]
        (tmp_path / "gone.wav").unlink()
        with pytest.raises(FileNotFoundError, match=r"gone\.wav: no such file"):
            MixtureSet(sampler, plans, "clips", "test", "manifest")

    @pytest.mark.parametrize(
        ("row", "word"),
        [
            ({"audio": "gone.wav", "labels": ["raining"]}, "gone.wav: no such file"),
            ({"audio": "here.wav", "labels": ["a", "a"]}, "line 1: `labels`"),
            ({"audio": "here.wav", "labels": ["raining", "raining"]}, "different labels"),
            ({"labels": ["raining"]}, "line 1: not a recording"),
            ({"audio": None, "labels": ["raining"]}, "line 1: `audio` has to be a path"),
            ({"audio": "", "labels": ["raining"]}, "line 1: `audio` has to be a path"),
            ({"audio": "here.wav", "labels": [["raining"]]}, "line 1: `labels` has to be a list of labels"),
            ({"audio": "here.wav", "labels": ["raining", "dog barkin"]}, "'dog barkin' is none of VGGSound's"),
        ],
    )
    def test_bad_recordings(self, inputs, tmp_path, row, word):
        soundfile.write(tmp_path / "here.wav", tiny_audio()[0], 16000)
        (tmp_path / "list.jsonl").write_text(json.dumps(row))
        fails(run(inputs, tmp_path / "out", data=tmp_path / "list.jsonl", manifest=None), word)

    def test_data(self, inputs, tmp_path):
        (tmp_path / "empty").mkdir()
        fails(run(inputs, tmp_path / "out", data=tmp_path / "empty"), tmp_path / "empty", "empty")
        fails(run(inputs, tmp_path / "out", split="validation"), "validation")
        fails(run(inputs, tmp_path / "out", manifest=tmp_path / "no.jsonl"), "no.jsonl")
        (tmp_path / "blank.jsonl").write_text("")
        fails(run(inputs, tmp_path / "out", manifest=tmp_path / "blank.jsonl"), "holds no mixture")

    def test_judge_with_other_labels(self, inputs, tmp_path):
        save_tiny_judge(tmp_path / "judge", LABELS)
        fails(run(inputs, tmp_path / "out", judge=tmp_path / "judge"), tmp_path / "judge", "this judge does not know")
        fails(run(inputs, tmp_path / "out", judge=None), "--judge")

    def test_images(self, inputs, images, tmp_path):
        (tmp_path / "empty").mkdir()
        fails(run(inputs, tmp_path / "out", images=tmp_path / "gone"), "gone: no such folder")
        fails(run(inputs, tmp_path / "out", images=tmp_path / "empty"), "holds no images named 00000.png")
        fails(run(inputs, tmp_path / "out", images=f"my pictures={images}"), "can't name a system")
        fails(run(inputs, tmp_path / "out", images=f"collage={images}"), "is the name of an anchor")
        shutil.copytree(images, images / "another")
        fails(run(inputs, tmp_path / "out", images=images), "two images called 00000.png: of more than one system?")
        shutil.rmtree(images / "another")
        (images / "00003.png").unlink()
        fails(run(inputs, tmp_path / "out", images=images), "00003.png: no such file")

    def test_systems(self, inputs, tmp_path):
        out = tmp_path / "out"
        fails(run(inputs, out, model=None), "nothing to evaluate")
        fails(run(inputs, out, baseline="magic"), "'magic' is none of single-embedding, paper, oracle")
        fails(run(inputs, out, baseline="paper"), "paper: no such folder; give paper=CHECKPOINT")
        fails(run(inputs, out, baseline=f"paper={inputs / 'model'}"), "num_slots = 4, not 2")
        fails(run(inputs, out, ablate=f"no-masks={inputs / 'model'}"), "mask_channels = 4, not 0")
        fails(run(inputs, out, ablate=f"no-a2a={inputs / 'model'}"), "is not 'no-a2a': it has the very weights of")
        fails(run(inputs, out, device="bogus"), "--device bogus")
        fails(run(inputs, out, "--baseline", "oracle", "--baseline", "oracle"), "Two systems are called 'oracle'")
        fails(run(inputs, out, model=inputs), inputs)

    def test_k_below_the_number_of_sources(self, inputs, tmp_path):
        fails(run(inputs, tmp_path / "out", top_k=1), "R@1* is not defined for soundscapes with 2 sources")

    def test_damaged_image(self, inputs, images, tmp_path):
        (images / "00003.png").write_bytes(b"not a picture")
        fails(run(inputs, tmp_path / "out", images=images), "00003.png: not an image")


def test_judge_that_lacks_a_true_label_is_refused_in_python(inputs, dataset, tmp_path):
    judge = load_judge(inputs / "judge", dataset.labels)
    label = dataset.true_labels(0)[0]
    judge.labels = [f"not {known}" if known == label else known for known in judge.labels]
    system = PipelineSystem("model", str(inputs / "model"), DrawingSettings(2))
    with pytest.raises(ValueError, match=f"The judge does not know '{label}'"):
        evaluate([system], dataset, judge, tmp_path, DrawingSettings(2))
