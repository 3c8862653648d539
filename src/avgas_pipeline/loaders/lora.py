"""LoRA for the U-Net, the separator, and the text encoder if there is one."""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY, LORA_WEIGHT_NAME_SAFE
from diffusers.utils import logging
from safetensors import SafetensorError
from safetensors.torch import save

from ..files import atomic_path
from .folders import may_be_repository
from .lora_files import check_adapter_name, check_lora_keys, check_lora_modules, find_lora_file, read_settings


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
            ValueError: If the file is damaged, pickled, leads out of the folder, or is not a whole LoRA of these
                components, or if its settings hold more than names and numbers.
        """
        low_cpu_mem_usage = kwargs.pop("low_cpu_mem_usage", True)
        if adapter_name is not None:
            check_adapter_name(adapter_name)
        source = pretrained_model_name_or_path_or_dict
        state_dict, network_alphas, metadata = self._read_lora(source, kwargs)
        name = "state dict" if isinstance(source, dict) else os.fspath(source)
        check_lora_keys(name, state_dict, self._lora_loadable_modules)
        prefixes = {key.split(".", 1)[0] for key in state_dict}
        for component in (self.unet_name, self.separator_name):
            if component in prefixes and getattr(self, component) is None:
                raise ValueError(f"The LoRA has layers for `{component}`, which this pipeline was loaded without.")
        if self.text_encoder_name in prefixes and self.text_encoder is None:
            logger.warning("The LoRA's text encoder layers are left out: this pipeline has no text encoder.")
            prefixes.remove(self.text_encoder_name)
        settings = {component: self._lora_settings(name, metadata, component, state_dict) for component in prefixes}
        adapter_name = self._choose_adapter_name(adapter_name, prefixes, hotswap)

        common = {
            "adapter_name": adapter_name,
            "low_cpu_mem_usage": low_cpu_mem_usage,
            "hotswap": hotswap,
            "_pipeline": self,
        }
        try:
            if self.unet_name in prefixes:
                self.load_lora_into_unet(
                    state_dict,
                    network_alphas=network_alphas,
                    unet=self.unet,
                    metadata=settings[self.unet_name],
                    **common,
                )
            if self.separator_name in prefixes:
                self.separator.load_lora_adapter(
                    state_dict, prefix=self.separator_name, metadata=settings[self.separator_name], **common
                )
            if self.text_encoder_name in prefixes:
                self.load_lora_into_text_encoder(
                    state_dict,
                    network_alphas=network_alphas,
                    text_encoder=self.text_encoder,
                    prefix=self.text_encoder_name,
                    lora_scale=self.lora_scale,
                    metadata=settings[self.text_encoder_name],
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

    def _read_lora(
        self, source: str | os.PathLike | dict[str, torch.Tensor], options: dict[str, Any]
    ) -> tuple[dict[str, torch.Tensor], dict[str, float] | None, Any]:
        """Weights, alphas and metadata, as diffusers' `lora_state_dict` gives them, of safetensors alone."""
        weight_name = options.pop("weight_name", None)
        is_other = weight_name is not None and not weight_name.endswith(".safetensors")
        if options.pop("use_safetensors", True) is False or is_other:
            raise ValueError("Pickled LoRA files are not read; convert them to safetensors.")
        name = "state dict" if isinstance(source, dict) else os.fspath(source)
        if not isinstance(source, dict) and not os.path.isfile(name):
            if not os.path.isdir(name) and not may_be_repository(name):
                raise FileNotFoundError(f"{name}: no such file or folder.")
            place = {key: options.get(key) for key in ("subfolder", "revision", "token", "local_files_only")}
            weight_name = find_lora_file(name, weight_name, **place)
        try:
            return self.lora_state_dict(
                dict(source) if isinstance(source, dict) else name,
                weight_name=weight_name,
                use_safetensors=True,
                return_lora_metadata=True,
                **options,
            )
        # Kohya's names are taken apart, and metadata is JSON: both may be anything.
        except (SafetensorError, ValueError, RecursionError, LookupError, AttributeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"{name}: the LoRA's file is damaged or not safetensors ({reason}).") from None

    def _lora_settings(
        self, source: str, metadata: Any, component: str, state_dict: dict[str, torch.Tensor]
    ) -> dict[str, Any] | None:
        """Metadata of a component's layers, which are exactly those that have weights."""
        settings = read_settings(source, metadata, component, state_dict)
        if all(".lora_" in key for key in state_dict):
            modules = check_lora_modules(source, getattr(self, component), component, state_dict)
            settings = settings and {**settings, "target_modules": modules}
        return settings and {f"{component}.{key}": value for key, value in settings.items()}

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
        settings = {
            f"{name}.{key}": value
            for name, weights in layers.items()
            for key, value in _plain_settings(weights, metadata[name] or {}).items()
        }
        with atomic_path(Path(save_directory, weight_name or LORA_WEIGHT_NAME_SAFE)) as path:
            cls._save_lora_weights(
                save_directory=save_directory,
                lora_layers=layers,
                lora_metadata={},
                weight_name=path.name,
                save_function=save_function or partial(_write_weights, settings=settings),
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


def _plain_settings(layers: dict[str, torch.Tensor] | torch.nn.Module, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of LoRA layers as JSON has them, always in one order, and with names in place of an expression."""
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in settings.items()}
    if isinstance(plain.get("target_modules"), str):
        names = layers.state_dict() if isinstance(layers, torch.nn.Module) else layers
        plain["target_modules"] = sorted({name.split(".lora_")[0] for name in names})
    return plain


def _write_weights(weights: dict[str, torch.Tensor], path: str, settings: dict[str, Any]) -> None:
    """Writes a LoRA, the same bytes for the same weights: safetensors puts its metadata into any order."""
    metadata = {"format": "pt"}
    if settings:
        metadata[LORA_ADAPTER_METADATA_KEY] = json.dumps(settings, indent=2, sort_keys=True)
    data = save(weights, metadata)
    # The length of the header in 8 bytes, the header, and the tensors at a multiple of 8 bytes.
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = metadata
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    Path(path).write_bytes(len(text).to_bytes(8, "little") + text + data[end:])
