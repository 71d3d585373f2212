"""Images in a folder of folders, one for each class, read when they are needed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ..types import is_whole, optional, require, shown
from .arrays import Data, held_out
from .numbers import DataError

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
HELD = ("test", "val", "valid", "validation")
"""The names of a folder of images that are held out, beside `train`."""


@dataclass(frozen=True)
class ImageFolder:
    """Images with their classes: what `fit` and `Feed` take in the place of arrays.

    `images[i]` reads the i-th one: its pixels, float32 in [0, 1] of shape
    (height, width, channels), and its class, int32.

    Attributes:
        files: Where each image is, sorted by class and name.
        labels: The class of each, int32 of shape (n,).
        classes: The name of each class.
        size: Height and width that each image is brought to; None leaves it as it is.
        channels: 1 for grey, 3 for red, green and blue.
    """

    files: tuple[Path, ...]
    labels: np.ndarray
    classes: tuple[str, ...]
    size: tuple[int, int] | None
    channels: int

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """An image and its class.

        Raises:
            DataError: If the file is no image, or cut short.
        """
        image = _opened(self.files[i], self.size, self.channels)
        pixels = np.asarray(image, np.float32) / 255
        return pixels.reshape(*pixels.shape[:2], self.channels), self.labels[i]

    def split(self, seed: int = 0) -> tuple["ImageFolder", "ImageFolder"]:
        """Those to learn from, and a fifth of each class that is held out.

        Args:
            seed: Chooses the images that are held out.
        """
        train, test = held_out(self.labels, True, seed)
        return self._some(train), self._some(test)

    def _some(self, places: np.ndarray) -> "ImageFolder":
        files = tuple(self.files[i] for i in places)
        return replace(self, files=files, labels=self.labels[places])

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """All of them in memory: pixels (n, height, width, channels) and labels (n,).

        Raises:
            DataError: If a file is no image, or cut short.
        """
        return np.stack([self[i][0] for i in range(len(self))]), self.labels


def image_folder(
    path: str | Path, *, size: int | tuple[int, int] | None = None, channels: int | None = None
) -> ImageFolder:
    """The images in a folder that has a folder for each class.

    Nothing is read but the names, and one image: each other one is read when it is asked for.

    Args:
        path: The folder.
        size: Height and width that images are brought to, or one number for both; None leaves them
            as they are, and then they need to have one size.
        channels: 1 for grey, 3 for red, green and blue; None for those of the first image.

    Returns:
        The images, by number.

    Raises:
        ValueError: If there is no such folder, a class has no images, or size and channels are
            none that an image has.
        DataError: If the first file is no image.
        ImportError: If the package pillow is missing.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("cat", "dog"):
    ...         (Path(folder) / name).mkdir()
    ...         Image.new("RGB", (20, 10)).save(Path(folder) / name / "1.png")
    ...     images = image_folder(folder, size=8)
    ...     images.classes, len(images), images[1][0].shape, int(images[1][1])
    (('cat', 'dog'), 2, (8, 8, 3), 1)
    """
    sizes: Any = (size, size) if is_whole(size) else size
    require(
        sizes is None
        or (isinstance(sizes, tuple | list) and len(sizes) == 2 and all(map(is_whole, sizes))),
        "image_folder",
        "size as height and width, or one number for both",
        shown(size),
        "Write size=(64, 64).",
    )
    require(
        channels in (None, 1, 3),
        "image_folder",
        "channels to be 1 or 3",
        shown(channels),
        "Write 1 for grey, 3 for red, green and blue.",
    )
    classes, files, labels = _listed(Path(path), "image_folder")
    found = channels or _channels(files[:1])
    pair = None if sizes is None else (int(sizes[0]), int(sizes[1]))
    return ImageFolder(files, labels, classes, pair, found)


def is_folder_of_images(folder: Path) -> bool:
    """Whether there is an image in a folder of the folder, or of its part `train`."""
    inner = folder / "train" if (folder / "train").is_dir() else folder
    return any(file.suffix.lower() in ENDINGS for file in inner.glob("*/*"))


def loaded(folder: Path, seed: int) -> Data:
    """All images of a folder in memory, in their median size where they have several.

    A folder with `train` and `test` (or `val`) in it has its two parts already.
    """
    parts = [folder / "train", *(folder / name for name in HELD if (folder / name).is_dir())][:2]
    if parts[0].is_dir() and len(parts) == 2:
        listed = [_listed(part, "load_data") for part in parts]
        require(
            listed[0][0] == listed[1][0],
            "load_data",
            f"the classes {', '.join(listed[0][0])} in {parts[1]}, as in {parts[0]}",
            ", ".join(listed[1][0]),
            "Bring both parts to the same classes.",
        )
        files = (*listed[0][1], *listed[1][1])
    else:
        parts = [folder / "train" if parts[0].is_dir() else folder]
        listed = [_listed(parts[0], "load_data")]
        files = listed[0][1]
    size, channels = _median_size(files), _channels(files)
    made = [ImageFolder(files, labels, names, size, channels) for names, files, labels in listed]
    train, test = made if len(made) == 2 else made[0].split(seed)
    require(
        len(test),
        "load_data",
        "two images of a class or more",
        f"{len(train)} in {folder}",
        "Bring more, or a folder `test` beside `train`.",
    )
    return Data(train.arrays(), test.arrays(), train.classes, folder.resolve().name)


def _listed(folder: Path, where: str) -> tuple[tuple[str, ...], tuple[Path, ...], np.ndarray]:
    """The classes of a folder, its images, and the class of each."""
    require(folder.is_dir(), where, f"a folder {folder}", "none", "Check the path.")
    inner = sorted(
        place for place in folder.iterdir() if place.is_dir() and not place.name.startswith(".")
    )
    require(
        inner,
        where,
        f"a folder for each class in {folder}",
        ", ".join(sorted(file.name for file in folder.iterdir())[:5]) or "nothing",
        "Put the images of each class into a folder of its own.",
    )
    found = {place.name: _images_in(place) for place in inner}
    for name, images in found.items():
        kinds = ", ".join(ENDINGS[:3])
        remedy = "Bring images of it, or remove the folder."
        require(images, where, f"images ({kinds}, ...) in {folder / name}", "none", remedy)
    files = tuple(file for images in found.values() for file in images)
    labels = np.repeat(np.arange(len(found)), [*map(len, found.values())]).astype(np.int32)
    return tuple(found), files, labels


def _images_in(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in ENDINGS and not file.name.startswith(".")
    )


def _pillow() -> Any:
    package = "pillow, which reads images"
    names = "PIL.Image", "PIL.ImageOps"
    image, ops = (optional("image_folder", name, package, "data") for name in names)
    return image, ops


def _opened(file: Path, size: tuple[int, int] | None, channels: int) -> Any:
    """The image of a file, upright, in so many channels and of that size."""
    image, ops = _pillow()
    try:
        with image.open(file) as raw:
            whole = ops.exif_transpose(raw).convert("L" if channels == 1 else "RGB")
            return whole.resize(size[::-1], image.Resampling.BILINEAR) if size else whole
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        _refuse(file, error)
        raise


def _refuse(file: Path, error: Exception) -> None:
    told = str(error).replace(f" '{file}'", "")
    remedy = "Fetch it again, or remove it."
    require(False, "image_folder", f"an image at {file}", told, remedy, DataError)


def _header(file: Path) -> tuple[tuple[int, int], str]:
    """Height and width of an image, and what its pixels are."""
    image, _ = _pillow()
    try:
        with image.open(file) as raw:
            turned = raw.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            return (raw.size if turned else raw.size[::-1]), raw.mode
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        _refuse(file, error)
        raise


def _channels(files: Sequence[Path]) -> int:
    return 1 if all(_header(file)[1] in ("1", "L", "LA", "I", "I;16", "F") for file in files) else 3


def _median_size(files: Sequence[Path]) -> tuple[int, int]:
    heights, widths = zip(*(_header(file)[0] for file in files), strict=True)
    return round(median(heights)), round(median(widths))
