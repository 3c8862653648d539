"""FID, KID and Inception Score through torchmetrics, with a judge's features in place of Inception's."""

import warnings
from typing import Any

import PIL.Image
import torch
from torch import nn
from torchmetrics import Metric

# torchmetrics.image itself names these only where torch-fidelity is installed, which Inception's features need.
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from .judges import Judge, Judgement


# Images in one of the subsets that KID averages over.
KID_SUBSET_SIZE = 100


class JudgeFeatures(nn.Module):
    """
    A judge as the `feature` module of torchmetrics' image metrics: images `(N, 3, H, W)`, uint8, in; features
    `(N, D)` out, or with `log_mass` the logarithms `(N, C + 1)` of the class mass and of what is left of it, whose
    softmax they are.

    Args:
        judge ([`~avgas_pipeline.metrics.judges.Judge`]): Of either kind.
        log_mass (`bool`, defaults to `False`): What the Inception Score needs.
    """

    def __init__(self, judge: Judge, log_mass: bool = False) -> None:
        super().__init__()
        self.judge = judge
        self.log_mass = log_mass
        self.num_features = len(judge.labels) + 1 if log_mass else judge.num_features

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """See the class."""
        pixels = images.permute(0, 2, 3, 1).cpu().numpy()
        judgement = self.judge([PIL.Image.fromarray(array) for array in pixels])
        values = _log_mass(judgement) if self.log_mass else judgement.features
        return values.to(images.device)


def frechet_distance(judge: Judge, **kwargs: Any) -> FrechetInceptionDistance:
    """
    FID (Heusel et al., arXiv 1706.08500) between two sets of images by a judge's features: the squared distance of
    their means plus tr(A + B - 2 (AB)^1/2) of their covariances; from 0, lower is better. It knows nothing of classes.
    Not comparable with FIDs by Inception, or by another judge.
    """
    return FrechetInceptionDistance(feature=JudgeFeatures(judge), **kwargs)


def kernel_distance(judge: Judge, **kwargs: Any) -> KernelInceptionDistance:
    """
    KID (Bińkowski et al., arXiv 1801.01401) by a judge's features: the squared maximum mean discrepancy with a cubic
    kernel; unbiased for small sets, so that it may be below 0; lower is better. It knows nothing of classes.
    """
    return KernelInceptionDistance(feature=JudgeFeatures(judge), **kwargs)


def inception_score(judge: Judge, **kwargs: Any) -> InceptionScore:
    """
    IS (Salimans et al., arXiv 1606.03498) by a judge's class mass: exp of the mean divergence of an image's mass from
    all images' mean mass, over the whole set at once (splits would bound it by their size). From 1 to the number of
    classes plus one, for what shows none; images of one class alone have 1.
    """
    return InceptionScore(feature=JudgeFeatures(judge, log_mass=True), **{"splits": 1, **kwargs})


class GivenFeatures(nn.Module):
    """Features that are there already, in place of images."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """The same `(N, D)`."""
        return features


def set_scores(judgement: Judgement, reference_features: torch.Tensor | None = None) -> dict[str, float]:
    """
    Inception Score of a judged set of images, and its FID and KID to reference features, by torchmetrics.

    Args:
        judgement ([`~avgas_pipeline.metrics.judges.Judgement`]): Of N images.
        reference_features (`torch.Tensor` of shape `(M, D)`, *optional*): The same judge's, of real images.

    Returns:
        `dict[str, float]`: `inception_score`, and with references `kid` (over subsets of 100, always the same ones)
        where there are so many of both, and `fid` where there are as many as features, without which covariances
        have directions that nothing is known of.
    """
    # IS and KID draw subsets.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        torch.manual_seed(0)
        warnings.filterwarnings("ignore", message=".*will save all extracted features in buffer")
        # One process judges for all, so there is nobody to reduce with.
        options = {"sync_on_compute": False}
        score = InceptionScore(feature=GivenFeatures(judgement.class_mass.shape[1] + 1), splits=1, **options)
        score.update(_log_mass(judgement))
        result = {"inception_score": float(score.compute()[0])}
        if reference_features is None:
            return result
        given = GivenFeatures(judgement.features.shape[1])
        distances: dict[str, Metric] = {
            "fid": FrechetInceptionDistance(given, **options),
            "kid": KernelInceptionDistance(given, subset_size=KID_SUBSET_SIZE, **options),
        }
        for name, metric in distances.items():
            if min(len(judgement.features), len(reference_features)) < fewest_images(name, given.num_features):
                continue
            metric.update(reference_features, real=True)
            metric.update(judgement.features, real=False)
            value = metric.compute()
            result[name] = float(value if name == "fid" else value[0])
    return result


def fewest_images(name: str, num_features: int) -> int:
    """Of a set, that `fid` or `kid` is measured of."""
    return num_features if name == "fid" else KID_SUBSET_SIZE


def _log_mass(judgement: Judgement) -> torch.Tensor:
    rest = (1 - judgement.class_mass.sum(dim=1, keepdim=True)).clamp(min=0.0)
    return torch.cat([judgement.class_mass, rest], dim=1).clamp(min=1e-12).log()
