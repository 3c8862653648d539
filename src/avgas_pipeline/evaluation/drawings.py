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
        drawn_labels (`list[str | None]`, *optional*): Of the sources in `separated`, one for each image, `None` for an
            unknown sound that was drawn all the same. `None` if nothing is known of them.
        label_scores (`list[float]`): How probable it is that each source is there and has its label; empty
            if the system does not say.
        no_source (`bool`): No source was present, and the most probable one was drawn.
        slot_scores (`list[float]`): Presence of every slot.
        slot_holds_source (`list[bool]`): Whether it is matched to a true source.
        si_sdri_db (`list[float]`): SI-SDR improvement of every true source; empty where it is not defined.
    """

    mixed: PIL.Image.Image | None = None
    separated: list[PIL.Image.Image] = field(default_factory=list)
    labels: list[str | None] | None = None
    drawn_labels: list[str | None] | None = None
    label_scores: list[float] = field(default_factory=list)
    no_source: bool = False
    slot_scores: list[float] = field(default_factory=list)
    slot_holds_source: list[bool] = field(default_factory=list)
    si_sdri_db: list[float] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """All but the images."""
        return {key: value for key, value in asdict(self).items() if key not in ("mixed", "separated")}
