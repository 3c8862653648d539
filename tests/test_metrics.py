"""Each metric against values computed by hand, its extremes, and what it must not depend on."""

import math
import os

import forked  # noqa: F401
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from launching import free_port
from torch import multiprocessing

from avgas_pipeline.metrics import (
    AudioImageSimilarity,
    ClassCoverage,
    ClassRepresentationScore,
    ClassSimilarity,
    GroupLabelRecall,
    ImageImageSimilarity,
    LabelAccuracy,
    LabelRecall,
    OwnLabelAccuracy,
    PresenceAveragePrecision,
    RecallAtK,
    SeparationRecall,
    SISDRImprovement,
    SourceCountAccuracy,
    bootstrap_interval,
    class_representation_score,
    coverage_thresholds,
    label_recall,
    match_slots,
    paired_similarity,
    recall_at_k,
    separation_recall,
    si_sdr_improvement,
)


def tensor(*rows):
    return torch.tensor(rows, dtype=torch.float64)


class TestClassRepresentationScore:
    def test_by_hand(self):
        # 2 * sqrt(0.4 * 0.1) and, for one class, its own mass.
        mass = tensor([0.4, 0.1, 0.5], [0.4, 0.1, 0.5])
        target = torch.tensor([[1, 1, 0], [0, 0, 1]])
        assert class_representation_score(mass, target).tolist() == pytest.approx([0.4, 0.5])

    @pytest.mark.parametrize(
        ("mass", "expected"),
        [
            pytest.param([0.5, 0.5, 0.0, 0.0], 1.0, id="perfect"),
            pytest.param([1.0, 0.0, 0.0, 0.0], 0.0, id="one class absent"),
            pytest.param([0.0, 0.0, 0.5, 0.5], 0.0, id="both absent"),
            pytest.param([0.25, 0.25, 0.25, 0.25], 0.5, id="uniform: n / C"),
            pytest.param([0.0, 0.0, 0.0, 0.0], 0.0, id="nothing seen"),
        ],
    )
    def test_extremes(self, mass, expected):
        assert class_representation_score(tensor(mass), torch.tensor([[1, 1, 0, 0]])).item() == pytest.approx(expected)

    @given(st.lists(st.floats(0.0, 1.0), min_size=4, max_size=8), st.integers(1, 3), st.randoms())
    @settings(max_examples=100, deadline=None)
    def test_in_range_and_blind_to_the_order_of_classes(self, values, count, random):
        mass = torch.tensor([values], dtype=torch.float64)
        mass = mass / mass.sum().clamp(min=1.0)
        target = torch.zeros_like(mass)
        target[0, :count] = 1
        order = list(range(len(values)))
        random.shuffle(order)
        score = class_representation_score(mass, target)
        assert -1e-9 <= score.item() <= 1 + 1e-9
        assert torch.allclose(score, class_representation_score(mass[:, order], target[:, order]))

    def test_metric_is_the_mean_over_batches_of_any_size(self):
        torch.manual_seed(0)
        mass, target = torch.rand(10, 6).softmax(dim=1), torch.zeros(10, 6)
        target[:, :2] = 1
        metric = ClassRepresentationScore()
        metric.update(mass[:3], target[:3])
        metric.update(mass[3:], target[3:])
        values = class_representation_score(mass, target)
        assert torch.equal(metric.values, values)
        assert metric.compute().item() == pytest.approx(values.mean().item())
        metric.reset()
        assert metric.compute().isnan() and metric.values.tolist() == []

    @pytest.mark.parametrize(
        ("mass", "target", "message"),
        [
            (torch.full((1, 3), 0.5), torch.ones(1, 3), "at most 1 over all"),
            (-torch.ones(1, 3), torch.ones(1, 3), "at least 0"),
            (torch.zeros(1, 3), torch.zeros(1, 3), "at least one true class"),
            (torch.zeros(1, 3), torch.ones(1, 4), r"\(1, 3\) and \(1, 4\)"),
            (torch.full((1, 3), float("nan")), torch.ones(1, 3), "finite"),
        ],
    )
    def test_wrong_input(self, mass, target, message):
        with pytest.raises(ValueError, match=message):
            class_representation_score(mass, target)


class TestSimilarityAndCoverage:
    def test_similarity_by_hand(self):
        metric = ClassSimilarity()
        metric.update(tensor([0.3, 0.1, 0.9]), torch.tensor([[1, 1, 0]]))
        assert metric.compute().item() == pytest.approx(0.2)

    def test_threshold_lets_the_given_share_of_others_pass(self):
        scores = torch.arange(100, dtype=torch.float64)[:, None].repeat(1, 2)
        target = torch.zeros(100, 2)
        target[-20:, 0] = 1
        target[:50, 1] = 1
        thresholds = coverage_thresholds(scores, target, false_positive_rate=0.05)
        without = scores[:80, 0]
        assert (without > thresholds[0]).double().mean().item() <= 0.05
        assert (without >= thresholds[0]).double().mean().item() >= 0.05

    def test_coverage_by_hand(self):
        metric = ClassCoverage(torch.tensor([0.5, 0.5, 0.5]))
        metric.update(tensor([0.6, 0.4, 0.9], [0.6, 0.7, 0.0]), torch.tensor([[1, 1, 0], [1, 1, 0]]))
        assert metric.compute().item() == pytest.approx(0.75)

    def test_a_class_in_every_image_cannot_be_calibrated(self):
        with pytest.raises(ValueError, match="Class 0 can't be calibrated"):
            coverage_thresholds(torch.rand(4, 2), torch.ones(4, 2))


class TestRecallAtK:
    def test_by_hand(self):
        scores = tensor([0.9, 0.8, 0.1, 0.0], [0.9, 0.1, 0.8, 0.0], [0.0, 0.1, 0.8, 0.9])
        target = torch.tensor([[1, 1, 0, 0]] * 3)
        assert recall_at_k(scores, target, 2, "strict").tolist() == [1, 0, 0]
        assert recall_at_k(scores, target, 2, "any").tolist() == [1, 1, 0]
        assert recall_at_k(scores, target, 2, "mean").tolist() == [1, 0.5, 0]
        assert recall_at_k(scores, target, 3, "strict").tolist() == [1, 1, 0]

    def test_own_number_of_classes(self):
        scores = tensor([0.9, 0.8, 0.7, 0.1], [0.9, 0.8, 0.7, 0.1], [0.9, 0.8, 0.7, 0.1])
        target = torch.tensor([[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 1, 1]])
        values = {mode: recall_at_k(scores, target, None, mode).tolist() for mode in ("strict", "any", "mean")}
        assert values == {
            "strict": [1.0, 0.0, 0.0],
            "any": [1.0, 0.0, 1.0],
            "mean": pytest.approx([1.0, 0.0, 2 / 3]),
        }
        assert RecallAtK(None)(scores, target).item() == pytest.approx(1 / 3)

    @pytest.mark.parametrize("top_k", [1, 3, 5])
    def test_with_one_class_it_is_plain_recall_at_k(self, top_k):
        torch.manual_seed(top_k)
        scores, classes = torch.rand(200, 10), torch.randint(10, (200,))
        target = torch.nn.functional.one_hot(classes, 10)
        plain = (scores.topk(top_k, dim=1).indices == classes[:, None]).any(dim=1).double()
        for mode in ("strict", "any", "mean"):
            assert torch.equal(recall_at_k(scores, target, top_k, mode), plain)

    def test_chance_levels(self):
        torch.manual_seed(0)
        scores, target = torch.rand(40_000, 50), torch.zeros(40_000, 50)
        target[:, :2] = 1
        # 1 / (50 over 2), 2 / 50, 1 - (48 over 2) / (50 over 2).
        for mode, chance in (("strict", 0.000816), ("mean", 0.04), ("any", 0.0792)):
            error = 4 * math.sqrt(chance * (1 - chance) / len(scores))
            assert recall_at_k(scores, target, 2, mode).mean().item() == pytest.approx(chance, abs=error)

    def test_ties_count_against_the_image(self):
        target = torch.tensor([[1, 1, 0, 0]])
        assert recall_at_k(torch.zeros(1, 4), target, 2, "any").item() == 0
        # The two true classes may tie with each other.
        assert recall_at_k(tensor([1.0, 1.0, 0.0, 0.0]), target, 2, "strict").item() == 1

    @given(st.permutations(range(6)))
    @settings(max_examples=30, deadline=None)
    def test_blind_to_the_order_of_classes(self, order):
        torch.manual_seed(1)
        scores, target = torch.rand(20, 6), torch.zeros(20, 6)
        target[:, :3] = 1
        for mode in ("strict", "any", "mean"):
            expected = recall_at_k(scores, target, 3, mode)
            assert torch.equal(recall_at_k(scores[:, order], target[:, order], 3, mode), expected)

    def test_metrics(self):
        scores, target = tensor([0.9, 0.8, 0.1], [0.1, 0.2, 0.9]), torch.tensor([[1, 1, 0], [1, 1, 0]])
        for metric, expected in ((RecallAtK(2), 0.5), (RecallAtK(2, "any"), 1.0), (LabelAccuracy(), 0.5)):
            metric.update(scores, target)
            assert metric.compute().item() == expected

    @pytest.mark.parametrize(
        ("top_k", "mode", "message"),
        [(1, "strict", "not defined for a soundscape with 2"), (0, "any", "from 1 to"), (5, "any", "from 1 to")],
    )
    def test_wrong_k(self, top_k, mode, message):
        with pytest.raises(ValueError, match=message):
            recall_at_k(torch.rand(1, 4), torch.tensor([[1, 1, 0, 0]]), top_k, mode)

    def test_unknown_mode(self):
        with pytest.raises(ValueError, match="`mode` has to be one of"):
            RecallAtK(2, "loose")


class TestSeparationRecall:
    TARGET = torch.tensor([1, 1, 0, 0])

    def test_perfect_whatever_the_order(self):
        mass = tensor([0.1, 0.9, 0.0, 0.0], [0.8, 0.2, 0.0, 0.0])
        for images in (mass, mass.flip(0)):
            assert separation_recall(images, self.TARGET) == pytest.approx(
                {"sep_recall": 1.0, "sep_all": 1.0, "leakage": 0.15, "duplicates": 0.0}
            )

    def test_one_source_drawn_twice(self):
        mass = tensor([0.9, 0.1, 0.0, 0.0], [0.9, 0.1, 0.0, 0.0])
        assert separation_recall(mass, self.TARGET) == pytest.approx(
            {"sep_recall": 0.5, "sep_all": 0.0, "leakage": 0.5, "duplicates": 1.0}
        )

    def test_absent(self):
        result = separation_recall(tensor([0, 0, 1, 0], [0, 0, 0, 1]), self.TARGET)
        assert (result["sep_recall"], result["sep_all"], result["leakage"]) == (0.0, 0.0, 0.0)

    @pytest.mark.parametrize("mass", [0.25, 0.0], ids=["uniform", "nothing seen"])
    @pytest.mark.parametrize("target", [[1, 1, 0, 0], [0, 0, 1, 1]])
    def test_images_of_nothing_in_particular_find_nothing(self, mass, target):
        result = separation_recall(torch.full((2, 4), mass), torch.tensor(target))
        assert (result["sep_recall"], result["sep_all"], result["duplicates"]) == (0.0, 0.0, 1.0)

    @given(st.permutations(range(5)), st.permutations(range(3)))
    @settings(max_examples=30, deadline=None)
    def test_blind_to_the_order_of_classes_and_images(self, classes, images):
        torch.manual_seed(2)
        mass, target = torch.rand(3, 5).softmax(dim=1), torch.tensor([1, 0, 1, 1, 0])
        expected = separation_recall(mass, target)
        assert separation_recall(mass[list(images)][:, list(classes)], target[list(classes)]) == pytest.approx(
            expected
        )

    def test_missing_and_further_images(self):
        right = tensor([1, 0, 0, 0])
        assert separation_recall(right, self.TARGET)["sep_recall"] == 0.5
        assert separation_recall(torch.zeros(0, 4), self.TARGET)["sep_recall"] == 0.0
        three = tensor([1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0])
        result = separation_recall(three, self.TARGET)
        assert (result["sep_recall"], result["sep_all"]) == (1.0, 0.0)

    def test_matching_is_best_in_sum_rather_than_greedy(self):
        # Greedy would give class 0 to the first image and leave 0.0 for the second.
        mass = tensor([0.6, 0.4, 0.0, 0.0], [0.5, 0.0, 0.5, 0.0])
        assert separation_recall(mass, self.TARGET)["leakage"] == pytest.approx((0.6 + 0.0) / 2)

    def test_one_class_and_image_is_top_1(self):
        result = separation_recall(tensor([0.2, 0.7, 0.1]), torch.tensor([0, 1, 0]))
        assert (result["sep_recall"], result["sep_all"]) == (1.0, 1.0)
        assert math.isnan(result["leakage"])
        assert math.isnan(result["duplicates"])

    def test_metric_leaves_out_what_is_not_defined(self):
        metric = SeparationRecall()
        metric.update(
            [tensor([1.0, 0.0, 0.0, 0.0]), tensor([0.9, 0.1, 0.0, 0.0], [0.3, 0.7, 0.0, 0.0])],
            torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0]]),
        )
        result = metric.compute()
        assert result["sep_recall"].item() == 1.0
        assert result["leakage"].item() == pytest.approx(0.2)
        values = metric.values["leakage"].tolist()
        assert math.isnan(values[0]) and values[1] == pytest.approx(0.2)

    def test_own_label_is_what_the_image_shows_most(self):
        metric = OwnLabelAccuracy()
        mass = tensor([0.1, 0.9, 0.0], [0.8, 0.2, 0.0], [0.5, 0.5, 0.0])
        # A source without a label that the judge knows is not shown, nor is one of two classes that are even.
        metric.update([mass[:2], mass, mass[:1], mass[:0]], [torch.tensor(c) for c in ([1, 2], [1, -1, -1], [0], [])])
        metric.update([mass], [None])
        assert metric.values.nan_to_num(-1.0).tolist() == pytest.approx([0.5, 1 / 3, 0.0, -1.0, -1.0])
        assert metric.compute().item() == pytest.approx(5 / 18)

    def test_every_image_needs_its_own_class(self):
        with pytest.raises(ValueError, match="2 images need as many classes, but there are 1"):
            OwnLabelAccuracy().update([tensor([0.1, 0.9], [0.8, 0.2])], [torch.tensor([1])])


class TestPairedSimilarity:
    def test_by_hand(self):
        images = tensor([1.0, 0.0], [0.0, 1.0], [1.0, 1.0])
        references = tensor([1.0, 0.0], [1.0, 0.0], [1.0, 1.0])
        values = paired_similarity(images, references)
        half = math.sqrt(0.5)
        assert values["cosine"].tolist() == pytest.approx([1.0, 0.0, 1.0])
        # Image 0 against references 1 (a tie) and 2 (half): 0.5 and 1.
        assert values["win_rate"].tolist() == pytest.approx([0.75, 0.25, 1.0])
        # Reference 0 and its other images, 1 (0) and 2 (half): mean half / 2, deviation half / 2.
        assert values["z_score"][0].item() == pytest.approx((1 - half / 2) / (half / 2))

    def test_chance_and_perfect(self):
        torch.manual_seed(0)
        images, references = torch.randn(400, 16), torch.randn(400, 16)
        by_chance = paired_similarity(images, references)
        assert by_chance["win_rate"].mean().item() == pytest.approx(0.5, abs=0.06)
        assert by_chance["z_score"].mean().item() == pytest.approx(0.0, abs=0.2)
        assert paired_similarity(images, images)["win_rate"].mean().item() == 1.0

    def test_identical_images_have_no_z_score(self):
        values = paired_similarity(torch.ones(3, 4), torch.ones(3, 4))
        assert values["z_score"].isnan().all()
        assert values["win_rate"].tolist() == [0.5, 0.5, 0.5]

    @pytest.mark.parametrize(("metric", "prefix"), [(AudioImageSimilarity(), "ais"), (ImageImageSimilarity(), "iis")])
    def test_metrics_compare_across_batches(self, metric, prefix):
        torch.manual_seed(0)
        images, references = torch.randn(6, 4), torch.randn(6, 4)
        metric.update(images[:2], references[:2])
        metric.update(images[2:], references[2:])
        expected = paired_similarity(images, references)
        assert metric.values.keys() == {f"{prefix}_{name}" for name in expected}
        for name, value in metric.compute().items():
            assert torch.equal(metric.values[name], expected[name.removeprefix(f"{prefix}_")])
            assert value.item() == pytest.approx(metric.values[name].mean().item())


class TestSound:
    def test_label_recall_by_hand(self):
        assert label_recall(["rain", "dog", "dog"], ["dog", "cat"]) == {
            "label_recall": 0.5,
            "label_any": 1.0,
            "label_all": 0.0,
            "label_precision": 0.5,
        }
        assert math.isnan(label_recall([], ["dog"])["label_precision"])

    def test_label_recall_metric_and_order(self):
        for recognised in (["dog", "cat"], ["cat", "dog"]):
            metric = LabelRecall()
            metric.update([recognised, []], [["dog", "cat"], ["rain"]])
            result = metric.compute()
            assert (result["label_recall"].item(), result["label_precision"].item()) == (0.5, 1.0)
            assert metric.values["label_recall"].tolist() == [1.0, 0.0]

    def test_every_source_group_counts_alike(self):
        metric = GroupLabelRecall()
        metric.update(torch.tensor([True, True, True]), torch.tensor([4, 4, 2]))
        metric.update(torch.tensor([False, False]), torch.tensor([4, 7]))
        assert metric.values.tolist() == pytest.approx([1.0, 2 / 3, 0.0])
        assert metric.compute().item() == pytest.approx(5 / 9)

    def test_source_count(self):
        metric = SourceCountAccuracy()
        metric.update(torch.tensor([1, 2, 3, 0]), torch.tensor([1, 2, 2, 1]))
        assert metric.compute().item() == 0.5
        metric.update(torch.tensor([float("nan")]), torch.tensor([1]))
        assert metric.compute().item() == 0.5

    def test_slots_are_matched_to_sources_by_label(self):
        probs = np.array([[0.9, 0.1, 0.0], [0.8, 0.1, 0.1], [0.0, 0.2, 0.8]])
        assert match_slots(probs, [0, 2]).tolist() == [True, False, True]

    def test_presence_average_precision(self):
        metric = PresenceAveragePrecision()
        metric.update(torch.tensor([[0.9, 0.2], [0.6, 0.7]]), torch.tensor([[1, 0], [0, 1]]))
        assert metric.compute().item() == 1.0
        # Ranked 1 0 1 0: precision 1 at the first, 2 / 3 at the second.
        metric.reset()
        metric.update(torch.tensor([0.9, 0.8, 0.7, 0.1]), torch.tensor([1, 0, 1, 0]))
        assert metric.compute().item() == pytest.approx((1 + 2 / 3) / 2)

    def test_si_sdr_improvement_by_hand(self):
        # Orthogonal sources of equal energy: the mixture has 0 dB; a tenth of the other's amplitude left has 20 dB.
        first, second = torch.zeros(100), torch.zeros(100)
        first[:50], second[50:] = 1.0, 1.0
        stems = torch.stack([first, second])
        estimates = torch.stack([second + 0.1 * first, first + 0.1 * second])
        for order in ([0, 1], [1, 0]):
            improvement = si_sdr_improvement(estimates[order], stems, stems.sum(dim=0))
            assert improvement.tolist() == pytest.approx([20.0, 20.0], abs=1e-3)

    def test_the_mixture_and_silence_improve_nothing(self):
        torch.manual_seed(0)
        stems = torch.randn(2, 800)
        mixture = stems.sum(dim=0)
        assert si_sdr_improvement(mixture.expand(2, -1), stems, mixture).abs().max().item() < 1e-6
        for estimates in (torch.zeros(2, 800), torch.zeros(0, 800)):
            assert si_sdr_improvement(estimates, stems, mixture).tolist() == [0.0, 0.0]

    def test_a_missing_source_improves_by_nothing(self):
        torch.manual_seed(0)
        stems = torch.randn(2, 800)
        improvement = si_sdr_improvement(stems[:1], stems, stems.sum(dim=0))
        assert improvement[0].item() > 10 and improvement[1].item() == 0.0

    def test_improvement_is_the_median_of_soundscapes_and_the_mean_of_their_sources(self):
        metric = SISDRImprovement()
        metric.update([torch.tensor([2.0, 4.0]), torch.tensor([10.0]), torch.zeros(0)])
        metric.update([torch.tensor([0.0, 1.0, 2.0]), torch.tensor([float("nan")]), torch.tensor([30.0])])
        assert metric.compute().item() == (3.0 + 10.0) / 2

    def test_one_source_has_no_improvement(self):
        assert si_sdr_improvement(torch.ones(1, 8), torch.ones(1, 8), torch.ones(8)).isnan().all()


class TestBootstrap:
    @pytest.mark.parametrize("count", [0, 1, 8, 9])
    def test_an_interval_is_around_what_the_metric_computes(self, count):
        torch.manual_seed(count)
        mean, median = SourceCountAccuracy(), SISDRImprovement()
        mean.update(torch.randint(3, (count,)), torch.ones(count))
        median.update(list(torch.randn(count, 2)))
        for metric in (mean, median):
            interval = bootstrap_interval(metric.values.numpy(), metric.statistic)
            assert interval.value == pytest.approx(metric.compute().item(), nan_ok=True)
            assert interval.count == count

    def test_covers_the_mean_as_often_as_it_says(self):
        rng = np.random.default_rng(0)
        intervals = [bootstrap_interval(rng.normal(3.0, 1.0, 60)) for _ in range(60)]
        assert sum(interval.low <= 3.0 <= interval.high for interval in intervals) >= 52
        assert all(0.35 < interval.high - interval.low < 0.7 for interval in intervals)

    def test_same_seed_same_interval_and_nan_does_not_count(self):
        values = np.array([0.0, 1.0, np.nan, 1.0, 0.0, 1.0])
        interval = bootstrap_interval(values)
        assert interval == bootstrap_interval(values)
        assert (interval.value, interval.count) == (0.6, 5)

    def test_median_constant_and_empty(self):
        assert bootstrap_interval(np.array([1.0, 2.0, 9.0]), "median").value == 2.0
        constant = bootstrap_interval(np.ones(5))
        assert (constant.low, constant.value, constant.high) == (1.0, 1.0, 1.0)
        assert math.isnan(bootstrap_interval(np.array([np.nan])).value)


# torchmetrics' own state and that of embeddings need something from every process.
NEED_ALL = {"similarity", "presence"}


def _distributed(rank, port, queue):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    shared = _measure(slice(rank, None, 2))
    with_nothing_to_do = _measure(slice(0, None if rank == 0 else 0), left_out=NEED_ALL)
    queue.put((rank, (shared, with_nothing_to_do)))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def _measure(part, left_out=()):
    """What all metrics but some say of a part of nine soundscapes."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(9, 5, generator=generator)
    mass, target = scores.softmax(dim=1), torch.zeros(9, 5)
    target[:, :2] = 1
    improvements = torch.randn(9, 2, generator=generator)
    numbers = torch.arange(9)[part]

    metrics = {
        "crs": ClassRepresentationScore(),
        "recall": RecallAtK(2),
        "separation": SeparationRecall(),
        "own label": OwnLabelAccuracy(),
        "similarity": ImageImageSimilarity(),
        "labels": LabelRecall(),
        "by group": GroupLabelRecall(),
        "presence": PresenceAveragePrecision(),
        "count": SourceCountAccuracy(),
        "improvement": SISDRImprovement(),
    }
    if len(numbers):
        metrics["crs"].update(mass[part], target[part])
        metrics["recall"].update(scores[part], target[part])
        metrics["separation"].update([row[None] for row in mass[part]], target[part])
        metrics["own label"].update([row[None] for row in mass[part]], [n[None] % 5 for n in numbers])
        metrics["similarity"].update(scores[part], target[part])
        metrics["labels"].update([["a", "b"][: n % 3] for n in numbers.tolist()], [["a", "c"]] * len(numbers))
        metrics["by group"].update(numbers % 2 == 0, numbers // 2)
        metrics["presence"].update(scores[part], (scores[part] + mass[part] > 0.7).long())
        metrics["count"].update(numbers % 3, torch.ones_like(numbers))
        metrics["improvement"].update(list(improvements[part]))
    results = {}
    for name, metric in metrics.items():
        value = {} if name in left_out else metric.compute()
        results |= value if isinstance(value, dict) else {name: value}
    return {name: value.item() for name, value in results.items()}


def test_two_processes_reduce_to_the_numbers_of_one():
    port = free_port()
    # The server of `forked` has imported the libraries.
    context = multiprocessing.get_context("forkserver")
    queue = context.Queue()
    processes = [context.Process(target=_distributed, args=(rank, port, queue)) for rank in range(2)]
    for process in processes:
        process.start()
    results = dict(queue.get(timeout=120) for _ in processes)
    for process in processes:
        process.join(timeout=60)
    alone = _measure(slice(None))
    for shared, with_nothing_to_do in results.values():
        assert shared == pytest.approx(alone, abs=1e-6, nan_ok=True)
        of_ours = {name: value for name, value in alone.items() if name in with_nothing_to_do}
        assert len(of_ours) == len(alone) - 4
        assert with_nothing_to_do == pytest.approx(of_ours, abs=1e-6, nan_ok=True)
