"""Loading and publishing: safetensors only, clear errors for bad folders, and a real model card."""

import os
import warnings
from pathlib import Path
from typing import Any

import torch
from diffusers import SchedulerMixin
from diffusers.utils import logging
from huggingface_hub import file_exists
from transformers import PreTrainedTokenizerBase
from typing_extensions import Self

from ..models.latent_scale import needs_float32
from .folders import DEFAULT_CHECKPOINT, check_folder, locate, lora_of_run
from .model_card import create_model_card
from .model_weights import check_components


logger = logging.get_logger(__name__)


class HubMixin:
    """Goes before `DiffusionPipeline` among the bases of a pipeline."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> Self:
        r"""
        Load a pipeline from a folder or from the Hub, as [`DiffusionPipeline.from_pretrained`] does, but never from
        pickled weights. `"avgas-mini"` comes with the package, and needs no network. All models are in float32 unless
        `dtype` says otherwise, whatever they were saved in; Stable Diffusion XL's autoencoder stays in float32 where
        its configuration says that float16 does not hold its values.

        Raises:
            FileNotFoundError: If the folder, or one of its components' weights, is missing.
            ValueError: If something in it is damaged or pickled, or if weights are not those of their model: some are
                missing, too many, or of other shapes.
        """
        if kwargs.pop("use_safetensors", None) is False:
            raise ValueError("Weights are loaded from safetensors only; leave `use_safetensors` at True.")
        path = locate(pretrained_model_name_or_path, kwargs)
        if os.path.isdir(path):
            cls._check_models(path, kwargs)
            if (own_lora := lora_of_run(path)) is not None:
                message = f"{own_lora} is not loaded with the pipeline: call `pipe.load_lora_weights({path!r})`."
                warnings.warn(message, stacklevel=2)
        # transformers' models would have the files' own type.
        if "torch_dtype" not in kwargs:
            kwargs.setdefault("dtype", torch.float32)
        pipe = super().from_pretrained(path, use_safetensors=True, **kwargs)
        parts = (pipe.vae, pipe.unet)
        if all(parts) and pipe.vae.dtype == torch.float16 and needs_float32(*parts) and "vae" not in kwargs:
            pipe.vae.to(torch.float32)
        return pipe

    @classmethod
    def download(cls, pretrained_model_name: str, **kwargs: Any) -> str | os.PathLike:
        """
        Download a pipeline, as [`DiffusionPipeline.download`] does, and check it as
        [`~HubMixin.from_pretrained`] checks a folder.

        Raises:
            FileNotFoundError: If there is no repository of a name without an owner: likely a mistyped one of ours.
        """
        try:
            folder = super().download(pretrained_model_name, **kwargs)
        except OSError as error:
            if "/" in pretrained_model_name:
                raise
            raise FileNotFoundError(
                f"{pretrained_model_name}: is no folder here, and can't be had from the Hub."
                f" {DEFAULT_CHECKPOINT} comes with the package."
            ) from error
        # The repository's `model_index.json` may hold anything.
        except (AttributeError, IndexError, KeyError, RecursionError, TypeError) as error:
            raise ValueError(f"{pretrained_model_name}: its model_index.json is not one of a pipeline.") from error
        check_folder(Path(folder), kwargs)
        cls._check_models(folder, kwargs)
        return folder

    @classmethod
    def _check_models(cls, folder: str | os.PathLike, options: dict[str, Any]) -> None:
        """Of `from_pretrained`'s options, the passed components, `variant` and `trust_remote_code` count."""
        # Neither has one class in the signature of a pipeline.
        expected = {"scheduler": (SchedulerMixin,), "tokenizer": (PreTrainedTokenizerBase,)}
        expected = {**cls._get_signature_types(), **expected}
        trust = bool(options.get("trust_remote_code"))
        check_components(Path(folder), expected, options, options.get("variant"), trust)

    def save_pretrained(
        self, save_directory: str | os.PathLike, safe_serialization: bool = True, **kwargs: Any
    ) -> None:
        """
        Save the pipeline to a folder, as [`DiffusionPipeline.save_pretrained`] does, but always as safetensors, which
        a warning says where `safe_serialization` is `False`.

        Raises:
            ValueError: If a component has LoRA layers in it, loaded or fused.
        """
        self._refuse_lora_layers()
        if not safe_serialization:
            logger.warning("Weights are never pickled: `safe_serialization=False` saves safetensors all the same.")
        if type(self).__module__.startswith("diffusers_modules."):
            raise ValueError(
                "What was loaded with `trust_remote_code` can't be saved; install avgas-pipeline for that."
            )
        super().save_pretrained(save_directory, **kwargs)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> Any:
        """Push the pipeline to the Hub, as [`DiffusionPipeline.push_to_hub`] does, if it can be saved."""
        # diffusers makes the repository before it saves.
        self._refuse_lora_layers()
        return super().push_to_hub(repo_id, **kwargs)

    def _refuse_lora_layers(self) -> None:
        # peft wraps each layer, and its weights would be saved under names that no model has.
        models = [(name, part) for name, part in self.components.items() if isinstance(part, torch.nn.Module)]
        held = [name for name, part in models if any(".base_layer." in key for key in part.state_dict())]
        if held:
            raise ValueError(
                f"LoRA layers are loaded in {held}, and can't be saved inside a pipeline. Make them part of its"
                " weights with `fuse_lora()` and then `unload_lora_weights()`, or take them out with"
                " `unload_lora_weights()` alone; `save_lora_weights` saves them as a LoRA."
            )

    def _upload_folder(
        self, working_dir: str | os.PathLike, repo_id: str, token: str | None = None, **kwargs: Any
    ) -> Any:
        # Both ways to push write a card here: the repository's own, or else an unfilled template.
        card = Path(working_dir, "README.md")
        if card.exists() and not file_exists(repo_id, "README.md", token=token):
            create_model_card(self, repo_id).save(card)
        return super()._upload_folder(working_dir, repo_id, token=token, **kwargs)
