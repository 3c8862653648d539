"""What an example costs most to make, on disk: its sources' slots and labels, and the latents of its picture."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm.auto import tqdm

from avgas_pipeline.data.cached import folder_digest
from avgas_pipeline.data.text_files import read_json
from avgas_pipeline.files import write_text
from avgas_pipeline.metrics.judges import weights_digest

from ..settings import resolve_paths


FIELDS = ("latent_mean", "latent_std", "picture_sizes", "slots", "labels", "shown")
BATCH_SIZE = 16
# Settings that decide what the examples are.
EXAMPLE_SETTINGS = (
    "dataset",
    "dataset_split",
    "dataset_layout",
    "dataset_columns",
    "seed",
    "num_examples",
    "num_sources",
    "augment_fraction",
    "mixture_target",
    "designs",
    "separated_fraction",
    "resolution",
)


# Settings that may be paths, whose contents decide, too.
_DATA = ("dataset", "designs", "dataset_columns")


class ExampleCache:
    """
    The examples of one epoch, one array per field, mapped into memory. Building goes on where it was interrupted.

    Args:
        folder (`Path`): Where the arrays lie.
        settings (`Mapping`): The run's; a cache made with others is not used.
        models (`Mapping[str, torch.nn.Module]`): What encodes, before any layers are added: likewise.
        fields (`Sequence[str]`, *optional*): Names of the arrays.
        example_settings (`Sequence[str]`, *optional*): Settings that decide what the examples are.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        models: Mapping[str, torch.nn.Module],
        fields: Sequence[str] = FIELDS,
        example_settings: Sequence[str] = EXAMPLE_SETTINGS,
    ) -> None:
        self.folder = folder
        self.fields = fields
        made_with = {"fields": fields} | {name: settings[name] for name in example_settings}
        made_with |= {f"{name}_files": _digest(settings[name]) for name in _DATA if settings.get(name)}
        made_with |= {f"{name}_sha256": weights_digest(model) for name, model in models.items()}
        self.made_with = json.loads(json.dumps(resolve_paths(made_with)))

    def build(
        self,
        examples: Dataset,
        collate: Callable,
        encode: Callable[[dict[str, Any]], dict[str, torch.Tensor]],
        accelerator: Accelerator,
        num_workers: int,
    ) -> None:
        """
        Make what is missing, in the first process; the others wait.

        Args:
            examples (`Dataset`): Of `num_examples` different examples.
            collate (`Callable`): From examples to a batch.
            encode (`Callable`): From a batch to what is kept of it, by the names of `fields`.
            accelerator (`Accelerator`): The run's.
            num_workers (`int`): Processes that make examples.

        Raises:
            ValueError: If there is a cache made with other settings, data or models.
        """
        if accelerator.is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            done = self._num_done()
            loader = DataLoader(
                Subset(examples, range(done, examples.num_examples)),
                BATCH_SIZE,
                collate_fn=collate,
                num_workers=num_workers,
                generator=torch.Generator().manual_seed(0),
            )
            progress = tqdm(total=examples.num_examples, initial=done, desc="caching examples", mininterval=10)
            for batch in loader:
                with accelerator.autocast():
                    values = {name: value.cpu().numpy() for name, value in encode(batch).items()}
                self._write(values, done, examples.num_examples)
                made = len(values[self.fields[0]])
                done += made
                progress.update(made)
            progress.close()
        accelerator.wait_for_everyone()

    def dataset(self, examples: Dataset) -> "CachedExamples":
        """The examples, as often as `examples` repeats them."""
        return CachedExamples(self.folder, examples.num_examples, len(examples), self.fields)

    def _write(self, values: dict[str, np.ndarray], start: int, total: int) -> None:
        for name, value in values.items():
            path = self.folder / f"{name}.npy"
            mode = "r+" if start else "w+"
            array = np.lib.format.open_memmap(path, mode, value.dtype, None if start else (total, *value.shape[1:]))
            array[start : start + len(value)] = value
            array.flush()
        done = start + len(values[self.fields[0]])
        write_text(self.folder / "cache.json", json.dumps({"done": done, "settings": self.made_with}))

    def _num_done(self) -> int:
        path = self.folder / "cache.json"
        if not path.exists():
            return 0
        state = read_json(path)
        settings, done = (state.get("settings"), state.get("done")) if isinstance(state, dict) else (None, None)
        if not isinstance(settings, dict) or type(done) is not int:
            raise ValueError(f"{path}: not the state of a cache; remove its folder.")
        if resolve_paths(settings) != self.made_with:
            raise ValueError(f"{self.folder}: holds examples of other settings, data or models; remove it.")
        return done


def _digest(name: str) -> str | None:
    """Of a folder's files or a file's contents; `None` for what is no path."""
    if os.path.isdir(name):
        return folder_digest(name)
    return hashlib.sha256(Path(name).read_bytes()).hexdigest() if os.path.isfile(name) else None


class CachedExamples(Dataset):
    """Cached examples, epoch after epoch."""

    def __init__(self, folder: Path, num_examples: int, length: int, fields: Sequence[str]) -> None:
        self.num_examples = num_examples
        self.length = length
        self.arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in fields}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        row = number % self.num_examples
        return {name: torch.from_numpy(np.array(array[row])) for name, array in self.arrays.items()}
