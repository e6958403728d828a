"""Image folders as datasets, in the layout of torchvision's ImageFolder: one subfolder per class.

    photos/train/cat/*.jpg  photos/train/dog/*.jpg  photos/test/cat/*.jpg  photos/test/dog/*.jpg

Neither torch nor NumPy is imported at module level, so that a wrong folder is reported at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import warnings
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from reproduce.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

SUBFOLDERS = ("train", "test")
"""The two parts of an image folder."""
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Extensions that torchvision's ImageFolder accepts."""


@lru_cache
def describe_image_folder(folder: Path) -> dict[str, str]:
    """Return the Config fields of an image folder: its class names, and a SHA-256 of all file names and contents.

    Raises:
        UserError: the layout is wrong, or the training and test classes differ.
        OSError: a file cannot be read.
    """
    for part in SUBFOLDERS:
        if not (folder / part).is_dir():
            raise UserError(f"{folder} has no subfolder {part}: put the images into train/CLASS/ and test/CLASS/")
    train, test = (
        {path.name for path in (folder / part).iterdir() if path.is_dir() and not path.name.startswith(".")}
        for part in SUBFOLDERS
    )
    if train != test:
        raise UserError(f"{folder} needs every class in both train and test: {', '.join(sorted(train ^ test))} is in only one")
    if unprintable := [name for name in sorted(train) if not name.isprintable()]:
        raise UserError(f"{folder} has the class {ascii(unprintable[0])}: rename it to printable UTF-8 without line breaks")
    if len(train) < 2:
        raise UserError(f"{folder / 'train'} must contain a subfolder for each of at least two classes, got {len(train)}")
    digest = hashlib.sha256()
    for part in SUBFOLDERS:
        for name in sorted(train):
            for path in list_images(folder / part / name):
                header = f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0"
                digest.update(header.encode(errors="surrogateescape"))
                digest.update(path.read_bytes())
    return {"classes": "/".join(sorted(train)), "pictures": digest.hexdigest()}


def list_images(folder: Path) -> list[Path]:
    """Return the files of one class, sorted; hidden files and folders are skipped.

    Raises:
        UserError: there are no images, or there is a file that ImageFolder would skip.
        OSError: a folder cannot be read.
    """

    def stop(error: OSError):
        raise error

    files, visited = [], set()
    for parent, subfolders, names in os.walk(folder, onerror=stop, followlinks=True):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        if os.path.realpath(parent) in visited:
            raise UserError(f"{parent} links to a folder whose images have been read: remove the link")
        visited.add(os.path.realpath(parent))
        files += [Path(parent) / name for name in names if not name.startswith(".")]
    files.sort()
    for path in files:
        if path.suffix.lower() not in EXTENSIONS or not path.is_file():
            raise UserError(f"{path} is not an image file ({' '.join(EXTENSIONS)}): convert or remove it")
    if not files:
        raise UserError(f"{folder} contains no images")
    return files


def read_image_folder(folder: Path, class_names: tuple[str, ...], side: int) -> list[np.ndarray]:
    """Read the training images (uint8, M x side x side x 3) and labels (int64, M), then the test images and labels.

    Raises:
        UserError: an image cannot be read, or the folder's classes are not `class_names`.
    """
    import numpy as np

    found = describe_image_folder(folder)["classes"].split("/")
    if tuple(found) != class_names:
        raise UserError(f"the network's classes are {', '.join(class_names)}, got {', '.join(found)} in {folder}")
    parts = [
        [(path, label) for label, name in enumerate(class_names) for path in list_images(folder / part / name)]
        for part in SUBFOLDERS
    ]
    arrays = []
    with tqdm(total=sum(map(len, parts)), desc="reading images", unit="", disable=not sys.stderr.isatty()) as bar:
        for part in parts:
            images = np.empty((len(part), side, side, 3), dtype=np.uint8)
            for position, (path, _) in enumerate(part):
                images[position] = np.asarray(read_image(path, side, channels=3))
                bar.update()
            arrays += [images, np.array([label for _, label in part])]
    return arrays


def read_image(path: Path, side: int, channels: int) -> Image:
    """Read an image: apply its EXIF orientation, resize its shorter side to `side` pixels and crop its center.

    Raises:
        UserError: the file is missing, cannot be decoded, or has more than 8 bits per channel.
    """
    from PIL import Image, ImageOps
    from torchvision import transforms

    if not path.is_file():
        raise UserError(f"{path} cannot be read as an image: there is no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, for very large images and damaged EXIF data
            with Image.open(path) as file:
                image, mode = file, file.mode
                with contextlib.suppress(Exception):  # damaged EXIF data: keep the orientation
                    image = ImageOps.exif_transpose(file)
                image = transforms.Resize(side)(image.convert("L" if channels == 1 else "RGB"))
    except Exception as error:  # a foreign file can fail in any way
        raise UserError(f"{path} cannot be read as an image ({type(error).__name__})") from None
    if mode.startswith(("I", "F")):  # Pillow clips these to 0 to 255
        raise UserError(f"{path} has more than 8 bits per channel (mode {mode}): convert it to 8 bits")
    return transforms.CenterCrop(side)(image)
