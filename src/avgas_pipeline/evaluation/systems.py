"""What is compared: pipelines that hear and draw, with or without help, and folders of images drawn elsewhere."""

import gc
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import PIL.Image
import soxr
import torch

from ..metrics.judges import weights_digest
from ..metrics.sound import match_slots, si_sdr_improvement
from ..pipeline_avgas import AVGASPipeline
from ..pipeline_output import EncodedAudio, SoundSource
from .soundscapes import Soundscape


@dataclass
class Drawing:
    """
    What a system makes of one soundscape.

    Attributes:
        mixed (`PIL.Image.Image`, *optional*): The image of all sources.
        separated (`list[PIL.Image.Image]`): One image per source.
        labels (`list[str]`, *optional*): Of the sources found, in the order of `separated`; `None` if unknown.
        nothing_heard (`bool`): No source reached the threshold, and the most probable one was drawn.
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
        presence_threshold (`float`): From which probability on a source is present.
        seed (`int`): Soundscape number i is drawn from noise of seed + i, by every system.
        images (`bool`): Whether to draw at all, or only to hear.
    """

    num_inference_steps: int = 50
    guidance_scale: float = 7.5
    presence_threshold: float = 0.5
    seed: int = 0
    images: bool = True


class System(Protocol):
    """
    Attributes:
        name (`str`): In the report, and of its folder.
    """

    name: str

    def fingerprint(self) -> dict[str, Any]:
        """What decides its drawings; a report goes on only with the same."""

    def draw(self, soundscapes: Sequence[Soundscape], numbers: Sequence[int]) -> list[Drawing]:
        """Hear and draw a batch; `numbers` are the soundscapes' places in the evaluation set."""

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
    """

    def __init__(
        self, name: str, checkpoint: str, settings: DrawingSettings, device: str = "cpu", oracle: bool = False
    ) -> None:
        self.name = name
        self.checkpoint = checkpoint
        self.settings = settings
        self.device = device
        self.oracle = oracle
        self._pipe: AVGASPipeline | None = None

    @property
    def pipe(self) -> AVGASPipeline:
        """The pipeline, loaded when it is first needed."""
        if self._pipe is None:
            pipe = AVGASPipeline.from_pretrained(self.checkpoint, dtype=torch.float32).to(self.device)
            pipe.set_progress_bar_config(disable=True)
            self._pipe = pipe
        return self._pipe

    def fingerprint(self) -> dict[str, Any]:
        """Checkpoint, weights and settings."""
        digest = hashlib.sha256()
        for name, part in sorted(self.pipe.components.items()):
            if isinstance(part, torch.nn.Module):
                digest.update(f"{name} {weights_digest(part)}".encode())
        return {
            "checkpoint": self.checkpoint,
            "weights_sha256": digest.hexdigest(),
            "scheduler": type(self.pipe.scheduler).__name__,
            "oracle": self.oracle,
            **asdict(self.settings),
        }

    def close(self) -> None:
        """Free the pipeline's memory."""
        self._pipe = None
        gc.collect()

    @torch.no_grad()
    def draw(self, soundscapes: Sequence[Soundscape], numbers: Sequence[int]) -> list[Drawing]:
        """Hear and draw a batch."""
        if self.oracle:
            encoded, drawings = self._hear_stems(soundscapes)
        else:
            encoded, drawings = self._hear(soundscapes)
        if not self.settings.images:
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

    def _hear(self, soundscapes: Sequence[Soundscape]) -> tuple[EncodedAudio, list[Drawing]]:
        """All slots, so that presence can be judged; then those that are present, or else the most probable one."""
        encoded = self.pipe.encode_audio(
            [_as_audio(soundscape.waveform, soundscape) for soundscape in soundscapes],
            num_sources=self.pipe.separator.config.num_slots,
        )
        threshold = self.settings.presence_threshold
        drawings = []
        for soundscape, slots in zip(soundscapes, encoded.sources, strict=True):
            # Slots come with the most certain first.
            num_present = sum(source.score >= threshold for source in slots)
            present = slots[: max(num_present, 1)]
            drawings.append(
                Drawing(
                    labels=[source.label for source in present],
                    nothing_heard=num_present == 0,
                    slot_scores=[source.score for source in slots],
                    slot_holds_source=self._holds_source(slots, soundscape.labels),
                    si_sdri_db=_si_sdri(present, soundscape),
                )
            )
        counts = torch.tensor([len(drawing.labels) for drawing in drawings])
        most = int(counts.max())
        encoded.audio_embeds = encoded.audio_embeds[:, :most]
        encoded.audio_attention_mask = torch.arange(most)[None] < counts[:, None]
        encoded.sources = [slots[:count] for slots, count in zip(encoded.sources, counts.tolist(), strict=True)]
        return encoded, drawings

    def _hear_stems(self, soundscapes: Sequence[Soundscape]) -> tuple[EncodedAudio, list[Drawing]]:
        """Every clean source by itself, as its most probable slot; their tokens side by side."""
        heard = [
            self.pipe.encode_audio(
                [_as_audio(stem, soundscape) for stem in soundscape.stems], num_sources=1, return_audio=False
            )
            for soundscape in soundscapes
        ]
        counts = torch.tensor([len(one.sources) for one in heard])
        encoded = heard[0]
        # (n, 1, M, C) of each soundscape to (B, S, M, C).
        encoded.audio_embeds = torch.nn.utils.rnn.pad_sequence([one.audio_embeds[:, 0] for one in heard], True)
        encoded.audio_attention_mask = torch.arange(int(counts.max()))[None] < counts[:, None]
        encoded.negative_audio_embeds = encoded.negative_audio_embeds[:1].expand(len(heard), -1, -1, -1)
        encoded.negative_audio_attention_mask = encoded.negative_audio_attention_mask[:1].expand(len(heard), -1)
        encoded.sources = [[sources[0] for sources in one.sources] for one in heard]
        drawings = [Drawing(labels=[source.label for source in sources]) for sources in encoded.sources]
        return encoded, drawings

    def _holds_source(self, slots: list[SoundSource], labels: Sequence[str]) -> list[bool]:
        label2id = {label: index for index, label in self.pipe.separator.id2label.items()}
        known = [label2id[label] for label in labels if label in label2id]
        if not known:
            return [False] * len(slots)
        return match_slots(torch.stack([slot.label_probs for slot in slots]).numpy(), known).tolist()


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
    """

    def __init__(self, name: str, folder: str | os.PathLike, num_soundscapes: int) -> None:
        self.name = name
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder.")
        self._mixed: dict[int, Path] = {}
        self._separated: dict[int, dict[int, Path]] = {}
        for path in self.folder.rglob("*.png"):
            match = re.fullmatch(r"(\d{5,})(?:-(\d+))?", path.stem)
            if match and match[2]:
                self._separated.setdefault(int(match[1]), {})[int(match[2])] = path
            elif match:
                self._mixed[int(match[1])] = path
        if not self._mixed and not self._separated:
            raise FileNotFoundError(f"{folder}: holds no images named 00000.png or 00000-1.png and so on.")
        for found in (self._mixed, self._separated):
            missing = next((number for number in range(num_soundscapes) if found and number not in found), None)
            if missing is not None:
                suffix = ".png" if found is self._mixed else "-1.png"
                raise FileNotFoundError(f"{self.folder / f'{missing:05d}{suffix}'}: no such file.")

    def fingerprint(self) -> dict[str, Any]:
        """The folder; its images are read every time."""
        return {"images": str(self.folder)}

    def drawing(self, number: int) -> Drawing:
        """The images of one soundscape."""
        separated = [path for _, path in sorted(self._separated.get(number, {}).items())]
        mixed = self._mixed.get(number)
        return Drawing(_open(mixed) if mixed else None, [_open(path) for path in separated])

    def draw(self, soundscapes: Sequence[Soundscape], numbers: Sequence[int]) -> list[Drawing]:
        """The images of some soundscapes."""
        return [self.drawing(number) for number in numbers]

    def close(self) -> None:
        """Nothing is held."""


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
    estimates = [_resample(source, soundscape) for source in sources]
    improvement = si_sdr_improvement(
        torch.stack(estimates), torch.from_numpy(soundscape.stems), torch.from_numpy(soundscape.waveform)
    )
    return improvement.tolist()


def _resample(source: SoundSource, soundscape: Soundscape) -> torch.Tensor:
    audio = source.audio
    if source.sampling_rate != soundscape.sampling_rate:
        audio = soxr.resample(audio, source.sampling_rate, soundscape.sampling_rate)
    length = len(soundscape.waveform)
    audio = torch.from_numpy(audio)[:length]
    return torch.nn.functional.pad(audio, (0, length - len(audio)))
