"""What is compared: pipelines that hear and draw, with or without help, and folders of images drawn elsewhere."""

import gc
import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import PIL.Image
import soxr
import torch
from peft.tuners.lora import LoraLayer

from ..metrics.judges import weights_digest
from ..metrics.sound import match_slots, si_sdr_improvement
from ..pipeline_avgas import AVGASPipeline
from ..pipeline_output import EncodedAudio, SoundSource
from ..separation.encoding import NoSourceError
from .soundscapes import Soundscape


@dataclass
class Drawing:
    """
    What a system makes of one soundscape.

    Attributes:
        mixed (`PIL.Image.Image`, *optional*): The image of all sources.
        separated (`list[PIL.Image.Image]`): One image per source.
        labels (`list[str]`, *optional*): Of the sources found, in the order of `separated`; `None` if unknown.
        nothing_heard (`bool`): No source was present, and the most probable one was drawn.
        slot_scores (`list[float]`): Presence of every slot.
        slot_holds_source (`list[bool]`): Whether it is matched to a true source.
        si_sdri_db (`list[float]`): SI-SDR improvement of every true source; empty where it is not defined.
    """

    mixed: PIL.Image.Image | None = None
    separated: list[PIL.Image.Image] = field(default_factory=list)
    labels: list[str] | None = None
    nothing_heard: bool = False
    slot_scores: list[float] = field(default_factory=list)
    slot_holds_source: list[bool] = field(default_factory=list)
    si_sdri_db: list[float] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """All but the images."""
        return {key: value for key, value in asdict(self).items() if key not in ("mixed", "separated")}


@dataclass(frozen=True)
class DrawingSettings:
    """
    How pipelines draw, the same for all of them.

    Attributes:
        num_inference_steps (`int`): Denoising steps.
        guidance_scale (`float`): Weight of classifier-free guidance.
        presence_threshold (`float`, *optional*): As of the pipeline.
        seed (`int`): Soundscape number i is drawn from noise of seed + i, by every system.
        draw (`bool`): Whether to draw at all, or only to hear.
    """

    num_inference_steps: int = 50
    guidance_scale: float = 7.5
    presence_threshold: float | None = None
    seed: int = 0
    draw: bool = True


class System(Protocol):
    """
    Attributes:
        name (`str`): In the report, and of its folder.
    """

    name: str

    def fingerprint(self) -> dict[str, Any]:
        """What decides its drawings; a report goes on only with the same."""

    def close(self) -> None:
        """Free its memory."""


class PipelineSystem:
    """
    An [`AVGASPipeline`].

    Args:
        name (`str`): In the report.
        checkpoint (`str`): Folder or Hub repository.
        settings ([`DrawingSettings`]): How it draws.
        device (`str`, defaults to `"cpu"`): Where it runs.
        oracle (`bool`, defaults to `False`): It hears the clean sources one by one instead of their mixture: what
            perfect separation would be worth.
        lora (`str`, *optional*): LoRA weights to add: a folder, file or Hub repository.
    """

    def __init__(
        self,
        name: str,
        checkpoint: str,
        settings: DrawingSettings,
        device: str = "cpu",
        oracle: bool = False,
        lora: str | None = None,
    ) -> None:
        self.name = name
        self.checkpoint = checkpoint
        self.settings = settings
        self.device = device
        self.oracle = oracle
        self.lora = lora
        self._pipe: AVGASPipeline | None = None

    @property
    def pipe(self) -> AVGASPipeline:
        """The pipeline, loaded when it is first needed."""
        if self._pipe is None:
            pipe = AVGASPipeline.from_pretrained(self.checkpoint, dtype=torch.float32).to(self.device)
            if self.lora is not None:
                pipe.load_lora_weights(self.lora)
            pipe.set_progress_bar_config(disable=True)
            self._pipe = pipe
        return self._pipe

    def fingerprint(self) -> dict[str, Any]:
        """Checkpoint, weights, configurations and settings."""
        weights, configs = hashlib.sha256(), hashlib.sha256()
        for name, part in sorted(self.pipe.components.items()):
            if isinstance(part, torch.nn.Module):
                weights.update(f"{name} {weights_digest(part)}".encode())
            configs.update(f"{name} {_config_of(part)}".encode())
            if scales := _lora_scales(part):
                configs.update(f"{name} {json.dumps(scales)}".encode())
        return {
            "checkpoint": self.checkpoint,
            "lora": self.lora,
            "weights_sha256": weights.hexdigest(),
            "configs_sha256": configs.hexdigest(),
            "scheduler": type(self.pipe.scheduler).__name__,
            "speed_variation": self.pipe.config.speed_variation,
            "oracle": self.oracle,
            **asdict(self.settings),
        }

    def close(self) -> None:
        """Free the pipeline's memory."""
        self._pipe = None
        gc.collect()

    @torch.no_grad()
    def draw(self, soundscapes: Sequence[Soundscape], numbers: Sequence[int]) -> list[Drawing]:
        """Hear and draw a batch; `numbers` are the soundscapes' places in the evaluation set."""
        if self.oracle:
            encoded, drawings = self._hear_stems(soundscapes)
        else:
            encoded, drawings = hear(self.pipe, soundscapes, self.settings.presence_threshold)
        if not self.settings.draw:
            return drawings
        output = self.pipe(
            **encoded,
            separate=True,
            num_inference_steps=self.settings.num_inference_steps,
            guidance_scale=self.settings.guidance_scale,
            # Generators on the CPU give the same noise on every device.
            generator=[torch.Generator().manual_seed(self.settings.seed + number) for number in numbers],
        )
        for drawing, mixed, sources in zip(drawings, output.images, output.sources, strict=True):
            drawing.mixed = mixed
            drawing.separated = [source.images[0] for source in sources]
        return drawings

    def _hear_stems(self, soundscapes: Sequence[Soundscape]) -> tuple[EncodedAudio, list[Drawing]]:
        """Every clean source by itself, as its most probable slot; their tokens side by side."""
        encoded = []
        for soundscape in soundscapes:
            one = self.pipe.encode_audio(
                [_as_audio(stem, soundscape) for stem in soundscape.stems], num_sources=1, return_audio=False
            )
            # n recordings of one source each become one with n sources.
            one.audio_embeds = one.audio_embeds.transpose(0, 1)
            one.negative_audio_embeds = one.negative_audio_embeds[:1]
            one.sources = [[sources[0] for sources in one.sources]]
            encoded.append(one)
        drawings = [Drawing(labels=[source.label for source in one.sources[0]]) for one in encoded]
        return _side_by_side(encoded), drawings


@torch.no_grad()
def hear(
    pipe: AVGASPipeline, soundscapes: Sequence[Soundscape], presence_threshold: float | None
) -> tuple[EncodedAudio, list[Drawing]]:
    """
    Hear soundscapes as a pipeline does, or where no source is present the most probable one; and all slots, for
    presence.

    Returns:
        What draws them, and what was heard of each, without images.
    """
    recordings = [_as_audio(soundscape.waveform, soundscape) for soundscape in soundscapes]
    slots = pipe.separate_audio(recordings, num_sources=pipe.separator.config.num_slots, return_audio=False)
    encoded, is_silent = [], []
    for recording in recordings:
        try:
            one, nothing = pipe.encode_audio(recording, presence_threshold=presence_threshold), False
        except NoSourceError:
            one = pipe.encode_audio(recording, presence_threshold=presence_threshold, num_sources=1)
            nothing = True
        encoded.append(one)
        is_silent.append(nothing)
    label2id = {label: index for index, label in pipe.separator.id2label.items()}
    drawings = [
        Drawing(
            labels=[source.label for source in one.sources[0]],
            nothing_heard=nothing,
            slot_scores=[source.score for source in all_slots],
            slot_holds_source=_holds_source(all_slots, [label2id[x] for x in soundscape.labels if x in label2id]),
            si_sdri_db=_si_sdri([] if nothing else one.sources[0], soundscape),
        )
        for soundscape, one, all_slots, nothing in zip(soundscapes, encoded, slots, is_silent, strict=True)
    ]
    return _side_by_side(encoded), drawings


def _holds_source(slots: list[SoundSource], known_labels: Sequence[int]) -> list[bool]:
    if not known_labels:
        return [False] * len(slots)
    return match_slots(torch.stack([slot.label_probs for slot in slots]).numpy(), known_labels).tolist()


class ImageFolderSystem:
    """
    Images drawn elsewhere: `00000.png` for the mixed image of the first soundscape of the manifest, `00000-1.png`,
    `00000-2.png` … for its separated ones, and so on; in `folder` or below.

    Args:
        name (`str`): In the report.
        folder (`str` or `os.PathLike`): Where they are.
        num_soundscapes (`int`): How many there have to be.

    Raises:
        FileNotFoundError: If the folder or an image is missing.
        ValueError: If two images have one name.
    """

    def __init__(self, name: str, folder: str | os.PathLike, num_soundscapes: int) -> None:
        self.name = name
        self.folder = Path(folder)
        self.num_soundscapes = num_soundscapes
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder.")
        self._mixed: dict[int, Path] = {}
        self._separated: dict[int, dict[int, Path]] = {}
        for path in sorted(self.folder.rglob("*.png")):
            match = re.fullmatch(r"(\d{5,})(?:-(\d+))?", path.stem)
            if match is None:
                continue
            place = int(match[2] or 0)
            found = self._separated.setdefault(int(match[1]), {}) if place else self._mixed
            if (place or int(match[1])) in found:
                raise ValueError(f"{folder}: holds two images called {path.name}: of more than one system?")
            found[place or int(match[1])] = path
        if not self._mixed and not self._separated:
            raise FileNotFoundError(f"{folder}: holds no images named 00000.png or 00000-1.png and so on.")
        for found in (self._mixed, self._separated):
            missing = next((number for number in range(num_soundscapes) if found and number not in found), None)
            if missing is not None:
                suffix = ".png" if found is self._mixed else "-1.png"
                raise FileNotFoundError(f"{self.folder / f'{missing:05d}{suffix}'}: no such file.")

    def fingerprint(self) -> dict[str, Any]:
        """The folder and its images."""
        digest = hashlib.sha256()
        for number, mixed in sorted(self._mixed.items()):
            digest.update(f"{number} ".encode() + mixed.read_bytes())
        for number, found in sorted(self._separated.items()):
            for place, path in sorted(found.items()):
                digest.update(f"{number}-{place} ".encode() + path.read_bytes())
        return {"images": str(self.folder), "images_sha256": digest.hexdigest()}

    def verify(self) -> None:
        """
        Open all images.

        Raises:
            ValueError: If one is damaged.
        """
        for path in (*self._mixed.values(), *(path for found in self._separated.values() for path in found.values())):
            _open(path)

    def drawing(self, number: int) -> Drawing:
        """The images of one soundscape."""
        separated = [path for _, path in sorted(self._separated.get(number, {}).items())]
        mixed = self._mixed.get(number)
        return Drawing(_open(mixed) if mixed else None, [_open(path) for path in separated])

    def drawings(self) -> list[Drawing]:
        """The images of all soundscapes."""
        return [self.drawing(number) for number in range(self.num_soundscapes)]

    def close(self) -> None:
        """Nothing is held."""


def _side_by_side(encoded: Sequence[EncodedAudio]) -> EncodedAudio:
    """Soundscapes that were encoded one by one, as one batch."""
    counts = torch.tensor([len(one.sources[0]) for one in encoded])
    batch = dict(encoded[0])
    batch["audio_embeds"] = torch.nn.utils.rnn.pad_sequence([one.audio_embeds[0] for one in encoded], True)
    batch["audio_attention_mask"] = torch.arange(int(counts.max()))[None] < counts[:, None]
    batch["negative_audio_embeds"] = torch.cat([one.negative_audio_embeds for one in encoded])
    batch["negative_audio_attention_mask"] = torch.ones(batch["negative_audio_embeds"].shape[:2], dtype=torch.bool)
    batch["sources"] = [one.sources[0] for one in encoded]
    return EncodedAudio(**batch)


def _config_of(part: Any) -> str:
    config = getattr(part, "config", part)
    values = config.to_dict() if hasattr(config, "to_dict") else dict(config) if isinstance(config, dict) else config
    # Where it was loaded from does not matter.
    if isinstance(values, dict):
        values = {key: value for key, value in values.items() if not key.startswith("_") and "name_or_path" not in key}
    return json.dumps(values, sort_keys=True, default=str)


def _lora_scales(part: Any) -> dict[str, dict[str, float]]:
    """What every LoRA layer's product is multiplied by: alpha and rank are not among the weights."""
    modules = part.named_modules() if isinstance(part, torch.nn.Module) else ()
    return {name: module.scaling for name, module in modules if isinstance(module, LoraLayer)}


def _open(path: Path) -> PIL.Image.Image:
    try:
        return PIL.Image.open(path).convert("RGB")
    except OSError:
        raise ValueError(f"{path}: not an image, or damaged.") from None


def _as_audio(waveform: Any, soundscape: Soundscape) -> dict[str, Any]:
    return {"array": waveform, "sampling_rate": soundscape.sampling_rate, "path": soundscape.id}


def _si_sdri(sources: list[SoundSource], soundscape: Soundscape) -> list[float]:
    """At the soundscape's rate, at which its stems are."""
    if soundscape.stems is None or len(soundscape.stems) == 1 or any(source.audio is None for source in sources):
        return []
    stems, mixture = torch.from_numpy(soundscape.stems), torch.from_numpy(soundscape.waveform)
    estimates = [_resample(source, soundscape) for source in sources]
    estimates = torch.stack(estimates) if estimates else torch.zeros(0, len(mixture))
    return si_sdr_improvement(estimates, stems, mixture).tolist()


def _resample(source: SoundSource, soundscape: Soundscape) -> torch.Tensor:
    audio = source.audio
    if source.sampling_rate != soundscape.sampling_rate:
        audio = soxr.resample(audio, source.sampling_rate, soundscape.sampling_rate)
    length = len(soundscape.waveform)
    audio = torch.from_numpy(audio)[:length]
    return torch.nn.functional.pad(audio, (0, length - len(audio)))
