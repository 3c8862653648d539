"""Judges: image models that say which classes an image shows. Metrics use them, and nothing else does."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import PIL.Image
import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoTokenizer,
    BaseImageProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)


# Prompts that suit any label, averaged as CLIP's authors do.
TEMPLATES = ("a photo of {}", "a picture of {}", "an image of {}")


@dataclass
class Judgement:
    """
    What a judge says of N images.

    Attributes:
        scores (`torch.Tensor` of shape `(N, C)`): How much an image looks like each class, float64: cosines in
            [-1, 1] with CLIP, probabilities with a classifier. What R@K* ranks.
        class_mass (`torch.Tensor` of shape `(N, C)`): Shares of the image, at least 0 and at most 1 over all classes,
            float64. What CRS weighs.
        features (`torch.Tensor` of shape `(N, D)`): What the image model makes of it, float32.
    """

    scores: torch.Tensor
    class_mass: torch.Tensor
    features: torch.Tensor


class Judge(Protocol):
    """
    Attributes:
        labels (`list[str]`): The classes, in the order of the scores.
        num_features (`int`): D.
    """

    labels: list[str]
    num_features: int

    def __call__(self, images: Sequence[PIL.Image.Image]) -> Judgement:
        """Judge images, RGB."""

    def describe(self) -> dict[str, Any]:
        """What a report has to say of the judge, so that others can use the same one."""


class CLIPJudge:
    r"""
    Any CLIP or SigLIP of transformers as a zero-shot classifier: a class's score is the cosine of the image's
    embedding and the mean of its prompts' embeddings; class mass is the softmax of temperature · cosine.

    Args:
        model ([`~transformers.PreTrainedModel`]): With `get_image_features` and `get_text_features`.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): The model's.
        image_processor ([`~transformers.BaseImageProcessor`]): The model's.
        labels (`Sequence[str]`): The classes.
        templates (`Sequence[str]`, *optional*): Prompts, each with one `{}` for the label. By default "a photo of
            {}", "a picture of {}" and "an image of {}".
        temperature (`float`, defaults to 100.0): What cosines are multiplied by; 100 is what CLIP was trained to.
        batch_size (`int`, defaults to 64): Images that go through the model at a time.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        image_processor: BaseImageProcessor,
        labels: Sequence[str],
        templates: Sequence[str] = TEMPLATES,
        temperature: float = 100.0,
        batch_size: int = 64,
    ) -> None:
        for template in templates:
            if template.count("{}") != 1:
                raise ValueError(f"A template needs one '{{}}' for the label, unlike {template!r}.")
        self.model = model.eval()
        self.image_processor = image_processor
        self.labels = list(labels)
        self.templates = list(templates)
        self.temperature = temperature
        self.batch_size = batch_size
        self._class_embeds = self._embed_classes(tokenizer)
        self.num_features = self._class_embeds.shape[1]

    @classmethod
    def from_pretrained(
        cls, path_or_repo: str | os.PathLike, labels: Sequence[str], device: str = "cpu", **kwargs: Any
    ) -> "CLIPJudge":
        """Load a folder or Hub repository (safetensors only); `kwargs` are those of the class."""
        source = os.fspath(path_or_repo)
        model = AutoModel.from_pretrained(source, dtype=torch.float32, use_safetensors=True)
        processor = AutoImageProcessor.from_pretrained(source, backend="pil")
        return cls(model.to(device), AutoTokenizer.from_pretrained(source), processor, labels, **kwargs)

    def __call__(self, images: Sequence[PIL.Image.Image]) -> Judgement:
        """Judge images, RGB."""
        embeds = torch.cat([self._embed_images(batch) for batch in _batches(images, self.batch_size)])
        scores = embeds.double() @ self._class_embeds.double().T
        return Judgement(scores, (self.temperature * scores).softmax(dim=1), embeds)

    def describe(self) -> dict[str, Any]:
        """What a report has to say of the judge."""
        return {
            "type": "CLIPJudge",
            "templates": self.templates,
            "temperature": self.temperature,
            **_describe_model(self.model),
        }

    @torch.no_grad()
    def _embed_images(self, images: Sequence[PIL.Image.Image]) -> torch.Tensor:
        inputs = self.image_processor(images=images, return_tensors="pt").to(self.model.device)
        embeds = self.model.get_image_features(**inputs).pooler_output
        return torch.nn.functional.normalize(embeds.float(), dim=-1).cpu()

    @torch.no_grad()
    def _embed_classes(self, tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
        """`(C, D)`, unit vectors: the mean over templates of unit vectors, as CLIP's authors do."""
        # SigLIP is trained on padded prompts and has no mask.
        padding = "max_length" if "siglip" in self.model.config.model_type else True
        means = []
        for label in self.labels:
            prompts = [template.format(label) for template in self.templates]
            inputs = tokenizer(prompts, padding=padding, truncation=True, return_tensors="pt").to(self.model.device)
            embeds = self.model.get_text_features(**inputs).pooler_output.float()
            means.append(torch.nn.functional.normalize(embeds, dim=-1).mean(dim=0))
        return torch.nn.functional.normalize(torch.stack(means), dim=-1).cpu()


class ClassifierJudge:
    """
    An image classifier of transformers, saved with `save_pretrained`.

    A multi-label classifier (`problem_type="multi_label_classification"`) scores each class by its sigmoid s(c), and
    its class mass is s(c) / max(1, Σ s): an image in which it sees nothing has no mass, one in which it is sure of two
    classes has half on each. With any other classifier both are the softmax.

    Args:
        model ([`~transformers.PreTrainedModel`]): Gives `logits`; its `config.id2label` has the classes.
        image_processor ([`~transformers.BaseImageProcessor`]): The model's.
        batch_size (`int`, defaults to 64): Images that go through the model at a time.
    """

    def __init__(self, model: PreTrainedModel, image_processor: BaseImageProcessor, batch_size: int = 64) -> None:
        self.model = model.eval()
        self.image_processor = image_processor
        self.batch_size = batch_size
        id2label = {int(index): label for index, label in model.config.id2label.items()}
        self.labels = [id2label[index] for index in range(len(id2label))]
        self._is_multi_label = model.config.problem_type == "multi_label_classification"
        blank = PIL.Image.new("RGB", (32, 32))
        self.num_features = self([blank]).features.shape[1]

    @classmethod
    def from_pretrained(
        cls, path_or_repo: str | os.PathLike, device: str = "cpu", batch_size: int = 64
    ) -> "ClassifierJudge":
        """Load a folder or Hub repository (safetensors only)."""
        source = os.fspath(path_or_repo)
        model = AutoModelForImageClassification.from_pretrained(source, dtype=torch.float32, use_safetensors=True)
        return cls(model.to(device), AutoImageProcessor.from_pretrained(source, backend="pil"), batch_size)

    @torch.no_grad()
    def __call__(self, images: Sequence[PIL.Image.Image]) -> Judgement:
        """Judge images, RGB."""
        logits, features = [], []
        for batch in _batches(images, self.batch_size):
            inputs = self.image_processor(images=batch, return_tensors="pt").to(self.model.device)
            outputs = self.model(**inputs, output_hidden_states=True)
            logits.append(outputs.logits.double().cpu())
            features.append(_pool(outputs.hidden_states[-1]).float().cpu())
        logits = torch.cat(logits)
        if self._is_multi_label:
            scores = logits.sigmoid()
            mass = scores / scores.sum(dim=1, keepdim=True).clamp(min=1.0)
        else:
            scores = mass = logits.softmax(dim=1)
        return Judgement(scores, mass, torch.cat(features))

    def describe(self) -> dict[str, Any]:
        """What a report has to say of the judge."""
        return {"type": "ClassifierJudge", **_describe_model(self.model)}


def load_judge(
    path_or_repo: str | os.PathLike, labels: Sequence[str], device: str = "cpu", needed: Sequence[str] | None = None
) -> Judge:
    """
    Load a judge of either kind: a model with a text half is a [`CLIPJudge`] of the given labels, an image classifier
    a [`ClassifierJudge`] of its own.

    Args:
        path_or_repo (`str` or `os.PathLike`): Folder or Hub repository.
        labels (`Sequence[str]`): The vocabulary.
        device (`str`, defaults to `"cpu"`): Where it runs.
        needed (`Sequence[str]`, *optional*): Labels that a classifier has to have; all of them if not given.

    Raises:
        ValueError: If it is neither, or a classifier lacks some of the labels that it needs.
        OSError: If it can't be loaded.
    """
    config = AutoConfig.from_pretrained(os.fspath(path_or_repo))
    if hasattr(config, "text_config") and hasattr(config, "vision_config"):
        return CLIPJudge.from_pretrained(path_or_repo, labels, device)
    if not any(name.endswith("ForImageClassification") for name in config.architectures or []):
        raise ValueError(f"{path_or_repo}: is neither an image classifier nor a CLIP, but {config.architectures}.")
    judge = ClassifierJudge.from_pretrained(path_or_repo, device)
    needed = labels if needed is None else needed
    missing = [label for label in needed if label not in judge.labels]
    if missing:
        raise ValueError(
            f"{path_or_repo}: this judge does not know {missing[0]!r} (and {len(missing) - 1} more of the data's"
            f" {len(needed)} labels); it has {len(judge.labels)} of its own."
        )
    return judge


def weights_digest(model: torch.nn.Module) -> str:
    """SHA-256 of all weights and buffers, with their names and types: the same for the same model wherever it lies."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if tensor.ndim else b"")
        digest.update(repr(tensor.item()).encode() if not tensor.ndim else b"")
    return digest.hexdigest()


def _describe_model(model: PreTrainedModel) -> dict[str, Any]:
    return {
        "checkpoint": model.config.name_or_path,
        "commit": getattr(model.config, "_commit_hash", None),
        "weights_sha256": weights_digest(model),
    }


def _batches(images: Sequence[PIL.Image.Image], size: int) -> Iterator[list[PIL.Image.Image]]:
    for start in range(0, len(images), size):
        yield [image.convert("RGB") for image in images[start : start + size]]


def _pool(hidden_states: torch.Tensor) -> torch.Tensor:
    """`(N, D)`: the mean over positions, whether the model has a map `(N, D, H, W)` or tokens `(N, T, D)`."""
    return hidden_states.mean(dim=(2, 3)) if hidden_states.ndim == 4 else hidden_states.mean(dim=1)
