"""Synthetic photos as JPEGs in class folders and in tar shards."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

CLASSES = 10
SCENES = 80


def write_tree(root: Path, count: int) -> None:
    """Writes class folders of JPEGs as large as photos, each a different crop of smooth noise with grain."""
    from PIL import Image

    scenes = [scene(np.random.default_rng(number)) for number in range(SCENES)]
    for number in range(count):
        generator = np.random.default_rng((1, number))
        left, top = generator.integers(0, 100, 2)
        width, height = generator.integers(460, 540), generator.integers(340, 410)
        folder = root / f"class-{number % CLASSES}"
        folder.mkdir(parents=True, exist_ok=True)
        part = scenes[number % SCENES].crop((left, top, left + width, top + height))
        turned = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if number % 2 else part
        turned.save(folder / f"{number:05}.jpg", quality=int(generator.integers(75, 96)))


def scene(generator: np.random.Generator, width: int = 640, height: int = 510) -> "Image.Image":
    """Noise of several scales, the coarse ones strongest, as in photos."""
    from PIL import Image

    pixels = np.full((height, width, 3), 120.0)
    for size, strength in ((120, 60), (40, 35), (12, 20), (4, 12), (1, 10)):
        grains = generator.normal(0, strength, (3, height // size + 1, width // size + 1)).astype(np.float32)
        for channel, grain in enumerate(grains):
            pixels[..., channel] += np.asarray(Image.fromarray(grain).resize((width, height), Image.Resampling.BICUBIC))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_shards(tree: Path, root: Path) -> None:
    """Writes the same images into tar shards with webdataset."""
    from webdataset import ShardWriter

    root.mkdir()
    with ShardWriter(str(root / "train-%04d.tar"), maxcount=1000, verbose=0) as writer:
        for file in sorted(tree.rglob("*.jpg")):
            key = f"{file.parent.name}-{file.stem}"
            writer.write({"__key__": key, "jpg": file.read_bytes(), "cls": file.parent.name})
