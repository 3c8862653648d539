"""LoRA for the U-Net, the separator, and the text encoder if there is one."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from diffusers.utils import logging
from safetensors import SafetensorError

from ..files import atomic_path
from .folders import may_be_repository


logger = logging.get_logger(__name__)


class AVGASLoraLoaderMixin(StableDiffusionLoraLoaderMixin):
    r"""
    Load LoRA layers into [`UNet2DConditionModel`], [`AudioVisualSeparator`] and [`~transformers.CLIPTextModel`].

    Stable Diffusion LoRAs load unchanged. Only safetensors files are read or written.
    """

    _lora_loadable_modules = ["unet", "separator", "text_encoder"]  # noqa: RUF012
    separator_name = "separator"

    def load_lora_weights(
        self,
        pretrained_model_name_or_path_or_dict: str | os.PathLike | dict[str, torch.Tensor],
        adapter_name: str | None = None,
        hotswap: bool = False,
        **kwargs: Any,
    ) -> None:
        r"""
        Load LoRA weights into the components whose prefix their names begin with (`unet.`, `separator.`,
        `text_encoder.`).

        Args:
            pretrained_model_name_or_path_or_dict (`str`, `os.PathLike` or `dict`):
                A Hub repository, a folder, a safetensors file, or a state dict.
            adapter_name (`str`, *optional*):
                Name of the adapter in every component. Defaults to `default_{number}`.
            hotswap (`bool`, defaults to `False`):
                Replace the weights of the adapter of that name in place.
            kwargs (`dict`, *optional*):
                As of [`~loaders.StableDiffusionLoraLoaderMixin.lora_state_dict`]; `low_cpu_mem_usage`.

        Raises:
            FileNotFoundError: If there is no such file or folder.
            ValueError: If the file is damaged, pickled, or not a LoRA of these components.
        """
        low_cpu_mem_usage = kwargs.pop("low_cpu_mem_usage", True)
        # Whatever `use_safetensors` says, diffusers unpickles a file of another name that is asked for.
        weight_name = kwargs.get("weight_name") or LORA_WEIGHT_NAME_SAFE
        if kwargs.pop("use_safetensors", True) is False or not weight_name.endswith(".safetensors"):
            raise ValueError("Pickled LoRA files are not read; convert them to safetensors.")
        source = pretrained_model_name_or_path_or_dict
        source = dict(source) if isinstance(source, dict) else os.fspath(source)
        if isinstance(source, str) and not os.path.exists(source) and not may_be_repository(source):
            raise FileNotFoundError(f"{source}: no such file or folder.")
        try:
            state_dict, network_alphas, metadata = self.lora_state_dict(
                source, use_safetensors=True, return_lora_metadata=True, **kwargs
            )
        except SafetensorError as error:
            raise ValueError(f"{source}: the LoRA's file is damaged or not safetensors ({error}).") from None
        self._check_lora_keys(state_dict)
        prefixes = {key.split(".", 1)[0] for key in state_dict}
        if self.text_encoder_name in prefixes and self.text_encoder is None:
            logger.warning("The LoRA's text encoder layers are left out: this pipeline has no text encoder.")
            prefixes.remove(self.text_encoder_name)
        adapter_name = self._choose_adapter_name(adapter_name, prefixes, hotswap)

        common = {
            "adapter_name": adapter_name,
            "metadata": metadata,
            "low_cpu_mem_usage": low_cpu_mem_usage,
            "hotswap": hotswap,
            "_pipeline": self,
        }
        try:
            if self.unet_name in prefixes:
                self.load_lora_into_unet(state_dict, network_alphas=network_alphas, unet=self.unet, **common)
            if self.separator_name in prefixes:
                self.separator.load_lora_adapter(state_dict, prefix=self.separator_name, **common)
            if self.text_encoder_name in prefixes:
                self.load_lora_into_text_encoder(
                    state_dict,
                    network_alphas=network_alphas,
                    text_encoder=self.text_encoder,
                    prefix=self.text_encoder_name,
                    lora_scale=self.lora_scale,
                    **common,
                )
        except Exception as error:
            if not hotswap and any(adapter_name in names for names in self.get_list_adapters().values()):
                self.delete_adapters(adapter_name)
            if isinstance(error, RuntimeError) and "size mismatch" in str(error):
                raise ValueError(
                    "The LoRA's layers are not as large as those of this pipeline's models: it was made for others."
                ) from error
            raise

    def _choose_adapter_name(self, adapter_name: str | None, prefixes: set[str], hotswap: bool) -> str:
        """A name that is new in every component, or, to hotswap, that of an adapter of the same components."""
        adapters = self.get_list_adapters()
        if adapter_name is None:
            known = {name for names in adapters.values() for name in names}
            return next(f"default_{i}" for i in range(len(known) + 1) if f"default_{i}" not in known)
        holders = {component for component, names in adapters.items() if adapter_name in names}
        if hotswap and holders != prefixes:
            raise ValueError(
                f"Can't hotswap {adapter_name!r}: it is in {sorted(holders)}, but the new LoRA has layers for"
                f" {sorted(prefixes)}."
            )
        if not hotswap and holders:
            raise ValueError(f"Adapter name {adapter_name!r} is in use already; choose another one.")
        return adapter_name

    def _check_lora_keys(self, state_dict: dict[str, torch.Tensor]) -> None:
        if not state_dict or not all("lora" in key for key in state_dict):
            raise ValueError("Invalid LoRA checkpoint: every parameter's name has to contain 'lora'.")
        known = (self.unet_name, self.separator_name, self.text_encoder_name)
        foreign = sorted({key.split(".", 1)[0] for key in state_dict} - set(known))
        if foreign:
            raise ValueError(f"Invalid LoRA checkpoint: its parameters begin with {foreign}, not with one of {known}.")
        for name in (self.unet_name, self.separator_name):
            if getattr(self, name) is None and any(key.startswith(f"{name}.") for key in state_dict):
                raise ValueError(f"The LoRA has layers for `{name}`, which this pipeline was loaded without.")

    @classmethod
    def save_lora_weights(
        cls,
        save_directory: str | os.PathLike,
        unet_lora_layers: dict[str, torch.nn.Module | torch.Tensor] | None = None,
        text_encoder_lora_layers: dict[str, torch.nn.Module | torch.Tensor] | None = None,
        is_main_process: bool = True,
        weight_name: str | None = None,
        save_function: Callable | None = None,
        safe_serialization: bool = True,
        unet_lora_adapter_metadata: dict | None = None,
        text_encoder_lora_adapter_metadata: dict | None = None,
        separator_lora_layers: dict[str, torch.nn.Module | torch.Tensor] | None = None,
        separator_lora_adapter_metadata: dict | None = None,
    ) -> None:
        r"""
        Save LoRA layers as one safetensors file, written under a temporary name and renamed.

        Args:
            save_directory (`str` or `os.PathLike`):
                Folder to save to; made if missing.
            unet_lora_layers, separator_lora_layers, text_encoder_lora_layers (`dict`, *optional*):
                What `peft.get_peft_model_state_dict` gives for each component.
            is_main_process (`bool`, defaults to `True`):
                Set it to `True` on the main process alone in distributed training: only that one writes.
            weight_name (`str`, defaults to `"pytorch_lora_weights.safetensors"`):
                Name of the file.
            save_function (`Callable`, *optional*):
                Replaces `safetensors.torch.save_file`.
            safe_serialization (`bool`, defaults to `True`):
                If `False`, a warning says that weights are never pickled; they are saved as safetensors all the same.
            unet_lora_adapter_metadata, separator_lora_adapter_metadata, text_encoder_lora_adapter_metadata (`dict`):
                The adapters' `LoraConfig.to_dict()`, so that rank and alpha survive.
        """
        if not safe_serialization:
            logger.warning(
                "LoRA weights are never pickled: `safe_serialization=False` saves safetensors all the same."
            )
        layers = {
            cls.unet_name: unet_lora_layers,
            cls.separator_name: separator_lora_layers,
            cls.text_encoder_name: text_encoder_lora_layers,
        }
        metadata = {
            cls.unet_name: unet_lora_adapter_metadata,
            cls.separator_name: separator_lora_adapter_metadata,
            cls.text_encoder_name: text_encoder_lora_adapter_metadata,
        }
        layers = {name: weights for name, weights in layers.items() if weights}
        if not layers:
            raise ValueError(
                "Pass at least one of `unet_lora_layers`, `separator_lora_layers` and `text_encoder_lora_layers`."
            )
        if not is_main_process:
            return
        with atomic_path(Path(save_directory, weight_name or LORA_WEIGHT_NAME_SAFE)) as partial:
            cls._save_lora_weights(
                save_directory=save_directory,
                lora_layers=layers,
                lora_metadata={name: metadata[name] for name in layers},
                weight_name=partial.name,
                save_function=save_function,
            )

    def fuse_lora(
        self,
        components: list[str] | None = None,
        lora_scale: float = 1.0,
        safe_fusing: bool = False,
        adapter_names: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """As in diffusers; `components` defaults to all that the pipeline has of U-Net, separator, text encoder."""
        super().fuse_lora(components or self._lora_components(), lora_scale, safe_fusing, adapter_names, **kwargs)

    def unfuse_lora(self, components: list[str] | None = None, **kwargs: Any) -> None:
        """As in diffusers; `components` defaults to all that the pipeline has of U-Net, separator, text encoder."""
        super().unfuse_lora(components or self._lora_components(), **kwargs)

    def _lora_components(self) -> list[str]:
        return [name for name in self._lora_loadable_modules if getattr(self, name, None) is not None]
