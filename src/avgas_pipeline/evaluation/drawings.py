"""What a system makes of one soundscape."""

from dataclasses import asdict, dataclass, field
from typing import Any

import PIL.Image


@dataclass
class Drawing:
    """
    What a system makes of one soundscape.

    Attributes:
        mixed (`PIL.Image.Image`, *optional*): The image of all sources.
        separated (`list[PIL.Image.Image]`): One image per source.
        labels (`list[str | None]`, *optional*): Of the sources found, `None` for unknown sounds, which are not drawn.
            `None` if nothing is known of them.
        label_scores (`list[float]`): How probable it is that each source is there and has its label.
        no_source (`bool`): No source was present, and the most probable one was drawn.
        slot_scores (`list[float]`): Presence of every slot.
        slot_holds_source (`list[bool]`): Whether it is matched to a true source.
        si_sdri_db (`list[float]`): SI-SDR improvement of every true source; empty where it is not defined.
    """

    mixed: PIL.Image.Image | None = None
    separated: list[PIL.Image.Image] = field(default_factory=list)
    labels: list[str | None] | None = None
    label_scores: list[float] = field(default_factory=list)
    no_source: bool = False
    slot_scores: list[float] = field(default_factory=list)
    slot_holds_source: list[bool] = field(default_factory=list)
    si_sdri_db: list[float] = field(default_factory=list)

    @property
    def drawn_labels(self) -> list[str | None] | None:
        """Labels of the sources in `separated`: the known ones, or the first source where none is known."""
        if self.labels is None:
            return None
        return [label for label in self.labels if label is not None] or self.labels[:1]

    def record(self) -> dict[str, Any]:
        """All but the images."""
        return {key: value for key, value in asdict(self).items() if key not in ("mixed", "separated")}
