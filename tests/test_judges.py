"""Judges on tiny random models of the real classes."""

import numpy as np
import PIL.Image
import pytest
import torch
from tiny import LABELS, save_tiny_clip, save_tiny_judge
from transformers import (
    AutoModel,
    AutoTokenizer,
    CLIPImageProcessorPil,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from avgas_pipeline.metrics import ClassifierJudge, CLIPJudge, Judgement, class_representation_score, load_judge
from avgas_pipeline.metrics.fidelity import (
    JudgeFeatures,
    frechet_distance,
    inception_score,
    kernel_distance,
    set_scores,
)


def pictures(count, seed=0, size=48):
    rng = np.random.default_rng(seed)
    return [PIL.Image.fromarray(rng.integers(0, 255, (size, size, 3), dtype=np.uint8)) for _ in range(count)]


@pytest.fixture(scope="module")
def classifier_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    save_tiny_judge(folder, LABELS)
    return folder


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    save_tiny_clip(folder)
    return folder


class TestCLIPJudge:
    def test_scores_are_cosines_with_the_mean_prompt(self, clip_folder):
        judge = CLIPJudge.from_pretrained(clip_folder, LABELS, templates=["a photo of {}", "a picture of {}"])
        image = pictures(1)[0]
        judgement = judge([image])

        model, tokenizer = AutoModel.from_pretrained(clip_folder), AutoTokenizer.from_pretrained(clip_folder)
        processor = CLIPImageProcessorPil.from_pretrained(clip_folder)
        with torch.no_grad():
            pixels = processor(images=[image], return_tensors="pt")
            shown = model.get_image_features(**pixels).pooler_output[0]
            prompts = tokenizer(
                [f"a photo of {LABELS[2]}", f"a picture of {LABELS[2]}"], padding=True, return_tensors="pt"
            )
            said = model.get_text_features(**prompts).pooler_output
        said = torch.nn.functional.normalize(said, dim=-1).mean(dim=0)
        expected = torch.nn.functional.cosine_similarity(shown, said, dim=0)
        assert judgement.scores[0, 2].item() == pytest.approx(expected.item(), abs=1e-5)
        assert torch.allclose(judgement.class_mass, (100 * judgement.scores).softmax(dim=1))

    def test_temperature_sharpens_mass_and_leaves_scores(self, clip_folder):
        soft, sharp = (CLIPJudge.from_pretrained(clip_folder, LABELS, temperature=t) for t in (1.0, 1000.0))
        images = pictures(4)
        assert torch.equal(soft(images).scores, sharp(images).scores)
        assert (sharp(images).class_mass.amax(dim=1) > soft(images).class_mass.amax(dim=1)).all()

    def test_siglip(self, tmp_path):
        save_tiny_clip(tmp_path, siglip=True)
        judgement = load_judge(tmp_path, LABELS)(pictures(3))
        assert judgement.scores.shape == (3, len(LABELS))
        assert (judgement.scores.abs() <= 1 + 1e-6).all()
        assert torch.allclose(judgement.class_mass.sum(dim=1), torch.ones(3, dtype=torch.float64))

    def test_same_whatever_the_batch(self, clip_folder):
        images = pictures(5)
        whole = CLIPJudge.from_pretrained(clip_folder, LABELS)(images)
        single = CLIPJudge.from_pretrained(clip_folder, LABELS, batch_size=1)(images)
        assert torch.allclose(whole.scores, single.scores, atol=1e-6)

    def test_describes_itself(self, clip_folder):
        judge = load_judge(clip_folder, LABELS)
        described = judge.describe()
        assert described["checkpoint"] == str(clip_folder)
        assert len(described["weights_sha256"]) == 64
        assert all("{}" in template for template in described["templates"])

    def test_template_without_place(self, clip_folder):
        with pytest.raises(ValueError, match=r"needs one '\{\}'"):
            CLIPJudge.from_pretrained(clip_folder, LABELS, templates=["a photo"])


class TestClassifierJudge:
    def test_multi_label_mass_is_at_most_one(self, classifier_folder):
        judge = load_judge(classifier_folder, LABELS[:2])
        assert judge.labels == LABELS
        judgement = judge(pictures(4))
        sums = judgement.scores.sum(dim=1)
        assert torch.allclose(judgement.class_mass.sum(dim=1), sums.clamp(max=1.0))
        assert judgement.features.shape == (4, judge.num_features) == (4, 16)

    @pytest.mark.parametrize(("bias", "crs"), [(10.0, 1.0), (-10.0, 0.0)], ids=["sure of two", "sees nothing"])
    def test_what_it_is_sure_of_decides_crs(self, classifier_folder, bias, crs):
        judge = ClassifierJudge.from_pretrained(classifier_folder)
        with torch.no_grad():
            head = judge.model.classifier[-1]
            head.weight.zero_()
            head.bias.fill_(-10.0)
            head.bias[:2] = bias
        mass = judge(pictures(1)).class_mass
        target = torch.tensor([[1, 1, 0, 0, 0]])
        assert class_representation_score(mass, target).item() == pytest.approx(crs, abs=1e-3)

    def test_single_label_softmax(self, tmp_path):
        save_tiny_judge(tmp_path, LABELS, problem_type=None)
        judgement = load_judge(tmp_path, LABELS)(pictures(2))
        assert torch.equal(judgement.scores, judgement.class_mass)
        assert torch.allclose(judgement.scores.sum(dim=1), torch.ones(2, dtype=torch.float64))

    def test_transformer_with_tokens(self, tmp_path):
        torch.manual_seed(0)
        config = ViTConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=32,
            patch_size=8,
            id2label=dict(enumerate(LABELS)),
        )
        save_tiny_judge(tmp_path, LABELS)
        ViTForImageClassification(config).save_pretrained(tmp_path)
        assert load_judge(tmp_path, LABELS)(pictures(2)).features.shape == (2, 16)

    def test_lacks_a_label(self, classifier_folder):
        with pytest.raises(
            ValueError, match=r"does not know 'volcano explosion' \(and 0 more of the data's 2 labels\)"
        ):
            load_judge(classifier_folder, ["raining", "volcano explosion"])

    def test_neither_kind(self, tmp_path):
        ViTModel(ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)).save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="neither an image classifier nor a CLIP"):
            load_judge(tmp_path, LABELS)

    def test_pickled_weights_are_refused(self, classifier_folder, tmp_path):
        save_tiny_judge(tmp_path, LABELS)
        torch.save(ClassifierJudge.from_pretrained(tmp_path).model.state_dict(), tmp_path / "pytorch_model.bin")
        (tmp_path / "model.safetensors").unlink()
        with pytest.raises(OSError, match="safetensors"):
            load_judge(tmp_path, LABELS)


class TestFidelity:
    def test_distance_to_itself_and_to_others(self, classifier_folder):
        judge = ClassifierJudge.from_pretrained(classifier_folder)
        same, other = judge(pictures(40)), judge([image.point(lambda v: v // 4) for image in pictures(40)])
        assert set_scores(same, same.features)["fid"] == pytest.approx(0.0, abs=1e-3)
        assert set_scores(other, same.features)["fid"] > 0.01
        assert set_scores(other, same.features) == set_scores(other, same.features)
        assert "fid" not in set_scores(same)
        few = judge(pictures(judge.num_features - 1))
        assert set_scores(few, same.features).keys() == {"inception_score"}

    def test_through_torchmetrics_on_images(self, classifier_folder):
        judge = ClassifierJudge.from_pretrained(classifier_folder)
        real, drawn = (pictures(100, seed) for seed in (0, 1))
        expected = set_scores(judge(drawn), judge(real).features)
        batches = [torch.stack([torch.from_numpy(np.array(i)).permute(2, 0, 1) for i in s]) for s in (real, drawn)]
        distance = frechet_distance(judge)
        kernel = kernel_distance(judge, subset_size=100)
        for metric in (distance, kernel):
            metric.update(batches[0], real=True)
            metric.update(batches[1], real=False)
        assert distance.compute().item() == pytest.approx(expected["fid"], rel=1e-3, abs=1e-5)
        assert kernel.compute()[0].item() == pytest.approx(expected["kid"], rel=1e-3, abs=1e-5)
        score = inception_score(judge)
        score.update(batches[1])
        assert score.compute()[0].item() == pytest.approx(expected["inception_score"], rel=1e-4)
        assert JudgeFeatures(judge).num_features == judge.num_features

    @pytest.mark.parametrize(("mass", "expected"), [(torch.eye(5), 5.0), (torch.zeros(5, 5), 1.0)])
    def test_inception_score_counts_the_classes_shown(self, mass, expected):
        many = mass.repeat(4, 1).double()
        judgement = Judgement(many, many, torch.zeros(20, 2))
        assert set_scores(judgement)["inception_score"] == pytest.approx(expected, rel=1e-3)
