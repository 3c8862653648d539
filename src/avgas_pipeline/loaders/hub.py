"""Loading and publishing: safetensors only, clear errors for bad folders, and a real model card."""

import os
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging
from huggingface_hub import file_exists
from safetensors import SafetensorError
from typing_extensions import Self

from .folders import locate
from .model_card import create_model_card


logger = logging.get_logger(__name__)


class HubMixin:
    """Goes before `DiffusionPipeline` among the bases of a pipeline."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> Self:
        r"""
        Load a pipeline from a folder or from the Hub, as [`DiffusionPipeline.from_pretrained`] does, but never from
        pickled weights. `"avgas-mini"` comes with the package, and needs no network. All models are in float32 unless
        `dtype` says otherwise, whatever they were saved in.

        Raises:
            FileNotFoundError: If the folder, or one of its components' weights, is missing.
            ValueError: If the weights are pickled only.
        """
        if kwargs.pop("use_safetensors", None) is False:
            raise ValueError("Weights are loaded from safetensors only; leave `use_safetensors` at True.")
        path = locate(pretrained_model_name_or_path, kwargs)
        try:
            # transformers' models would have the files' own type.
            if "torch_dtype" not in kwargs:
                kwargs.setdefault("dtype", torch.float32)
            return super().from_pretrained(path, use_safetensors=True, **kwargs)
        except SafetensorError as error:
            raise ValueError(f"{path}: a weights file is damaged or not safetensors ({error}).") from None

    def save_pretrained(
        self, save_directory: str | os.PathLike, safe_serialization: bool = True, **kwargs: Any
    ) -> None:
        """
        Save the pipeline to a folder, as [`DiffusionPipeline.save_pretrained`] does, but always as safetensors, which
        a warning says where `safe_serialization` is `False`.
        """
        if not safe_serialization:
            logger.warning("Weights are never pickled: `safe_serialization=False` saves safetensors all the same.")
        if type(self).__module__.startswith("diffusers_modules."):
            raise ValueError(
                "What was loaded with `trust_remote_code` can't be saved; install avgas-pipeline for that."
            )
        super().save_pretrained(save_directory, **kwargs)

    def _upload_folder(
        self, working_dir: str | os.PathLike, repo_id: str, token: str | None = None, **kwargs: Any
    ) -> Any:
        # Both ways to push write a card here: the repository's own, or else an unfilled template.
        card = Path(working_dir, "README.md")
        if card.exists() and not file_exists(repo_id, "README.md", token=token):
            create_model_card(self, repo_id).save(card)
        return super()._upload_folder(working_dir, repo_id, token=token, **kwargs)
