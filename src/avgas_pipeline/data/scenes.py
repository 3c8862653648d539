"""Target pictures of mixtures: objects with transparency composed to a scene, or pictures side by side."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image


# Share of the smaller object's box that another one may cover.
_MAX_OVERLAP = 0.10


def compose_scene(
    objects: Sequence[PIL.Image.Image], size: int, rng: np.random.Generator
) -> tuple[PIL.Image.Image, list[tuple[int, int, int, int]]]:
    """
    Place objects at random on a random background.

    Args:
        objects (`Sequence[PIL.Image.Image]`): Pictures with transparency, one per source.
        size (`int`): Side of the scene, in pixels.
        rng (`np.random.Generator`): Decides everything; the same state gives the same pixels.

    Returns:
        The scene (RGB), and for each object its box `(left, top, right, bottom)`. No box covers more than 10 % of
        another's area.
    """
    scene = draw_background(size, rng)
    # The more objects, the smaller, so that they fit; each try shrinks them a little.
    largest = {1: 0.92, 2: 0.62, 3: 0.5}.get(len(objects), 0.9 / np.sqrt(max(len(objects), 1)) * 0.85)
    boxes: list[tuple[int, int, int, int]] = []
    cutouts = []
    for picture in objects:
        cutout = _cut_out(picture)
        side = largest * size * rng.uniform(0.75, 1.0)
        for _ in range(200):
            scale = side / max(cutout.size)
            width, height = (max(round(edge * scale), 4) for edge in cutout.size)
            left = int(rng.integers(0, max(size - width, 0) + 1))
            top = int(rng.integers(0, max(size - height, 0) + 1))
            box = (left, top, left + width, top + height)
            if all(overlap(box, other) <= _MAX_OVERLAP for other in boxes):
                break
            side *= 0.985
        boxes.append(box)
        cutouts.append(cutout.resize((width, height), PIL.Image.Resampling.LANCZOS))
    for cutout, box in zip(cutouts, boxes, strict=True):
        scene.paste(cutout, box[:2], cutout)
    return scene, boxes


def collage(pictures: Sequence[PIL.Image.Image], size: int) -> PIL.Image.Image:
    """
    Pictures side by side in a square of `size` pixels: photographs fill their cells and are cut to them, objects with
    transparency are whole, on white.
    """
    columns = int(np.ceil(np.sqrt(len(pictures))))
    rows = int(np.ceil(len(pictures) / columns))
    canvas = PIL.Image.new("RGB", (size, size), "white")
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        in_row = min(columns, len(pictures) - row * columns)
        left, right = size * column // in_row, size * (column + 1) // in_row
        top, bottom = size * row // rows, size * (row + 1) // rows
        draw = _fit if picture.mode == "RGBA" else _fill
        canvas.paste(draw(picture, right - left, bottom - top), (left, top))
    return canvas


def open_picture(image: Any) -> PIL.Image.Image:
    """A picture from encoded bytes, a `datasets` Image value, a path, or a picture."""
    if isinstance(image, PIL.Image.Image):
        return image
    if isinstance(image, Mapping):
        image = image.get("bytes") or image["path"]
    return PIL.Image.open(io.BytesIO(image) if isinstance(image, bytes) else image)


def overlap(first: tuple[int, int, int, int], second: tuple[int, int, int, int]) -> float:
    """Shared area of two boxes as a share of the smaller one, in [0, 1]."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    return width * height / smaller


def draw_background(size: int, rng: np.random.Generator) -> PIL.Image.Image:
    """A plain, gradient or textured background in soft colours, RGB."""
    kind = rng.choice(["plain", "gradient", "texture"])
    first, second = (_soft_colour(rng) for _ in range(2))
    if kind == "plain":
        pixels = np.broadcast_to(first, (size, size, 3))
    elif kind == "gradient":
        angle = rng.uniform(0, 2 * np.pi)
        y, x = np.mgrid[0:size, 0:size] / size - 0.5
        mix = np.clip(0.5 + (x * np.cos(angle) + y * np.sin(angle)), 0, 1)[..., None]
        pixels = first * (1 - mix) + second * mix
    else:
        coarse = rng.random((int(rng.integers(3, 17)),) * 2).astype(np.float32)
        grain = PIL.Image.fromarray(coarse).resize((size, size), PIL.Image.Resampling.BICUBIC)
        mix = np.clip(np.asarray(grain), 0, 1)[..., None]
        pixels = first * (1 - 0.6 * mix) + second * 0.6 * mix
        pixels = pixels + rng.normal(0, 3, (size, size, 1))
    return PIL.Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _soft_colour(rng: np.random.Generator) -> np.ndarray:
    """Light more often than dark, never saturated: the object has to stand out."""
    base = rng.uniform(150, 250) if rng.random() < 0.8 else rng.uniform(40, 110)
    return np.clip(base + rng.uniform(-35, 35, size=3), 0, 255)


def _cut_out(picture: PIL.Image.Image) -> PIL.Image.Image:
    """An object with transparency, cut to its outline."""
    picture = picture.convert("RGBA")
    box = picture.getchannel("A").getbbox()
    if box is None:
        raise ValueError("An object's picture is fully transparent.")
    return picture.crop(box)


def _fit(picture: PIL.Image.Image, width: int, height: int) -> PIL.Image.Image:
    """An object as large as fits in a cell, in its middle, on white."""
    cutout = _cut_out(picture)
    scale = min(width / cutout.width, height / cutout.height)
    cutout = cutout.resize(
        (max(round(cutout.width * scale), 1), max(round(cutout.height * scale), 1)), PIL.Image.Resampling.LANCZOS
    )
    cell = PIL.Image.new("RGB", (width, height), "white")
    cell.paste(cutout, ((width - cutout.width) // 2, (height - cutout.height) // 2), cutout)
    return cell


def crop_of(picture: PIL.Image.Image, width: int, height: int) -> tuple[int, int, int, int]:
    """How a picture is cut to fill a cell, in pixels: what goes above and left, and its height and width before."""
    scale = max(width / picture.width, height / picture.height)
    scaled_width = max(round(picture.width * scale), width)
    scaled_height = max(round(picture.height * scale), height)
    return (scaled_height - height) // 2, (scaled_width - width) // 2, scaled_height, scaled_width


def _fill(picture: PIL.Image.Image, width: int, height: int) -> PIL.Image.Image:
    """Scale and cut a picture so that it fills a cell, keeping its middle."""
    top, left, scaled_height, scaled_width = crop_of(picture, width, height)
    resized = picture.convert("RGB").resize((scaled_width, scaled_height), PIL.Image.Resampling.LANCZOS)
    return resized.crop((left, top, left + width, top + height))
