"""Your own pictures as a data set: a folder in the layout of torchvision's ImageFolder, one folder for each class.

    photos/train/cat/*.jpg  photos/train/dog/*.jpg  photos/test/cat/*.jpg  photos/test/dog/*.jpg

Named and checked without torch, so that the command line answers at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import warnings
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from reproduce.config import Config
from reproduce.dataset import SUBFOLDERS, DatasetInfo, detect_dataset
from reproduce.errors import UserError

if TYPE_CHECKING:  # imported where it is used
    import numpy as np
    from PIL.Image import Image

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""What torchvision's ImageFolder takes for pictures."""
READ_AT_ONCE = 1 << 20


def resolve_dataset(data: str) -> dict[str, Any]:
    """The fields of a Config that follow from what `--data` names; raises as `describe_image_folder`."""
    name = detect_dataset(data)
    return {"dataset": name} | (describe_image_folder(Path(data)) if name == "pictures" else {})


@lru_cache
def describe_image_folder(folder: Path) -> dict[str, str]:
    """The fields of a Config that name the classes of a folder of pictures, and every byte of it.

    Raises:
        UserError: it is not in ImageFolder's layout, or not the same classes are in both parts.
        OSError: a file cannot be read.
    """
    for part in SUBFOLDERS:
        if not (folder / part).is_dir():
            raise UserError(f"{folder} has no folder {part}: pictures go into train/CLASS/ and test/CLASS/, for each class")
    classes, *others = [
        sorted(entry.name for entry in (folder / part).iterdir() if entry.is_dir() and not entry.name.startswith("."))
        for part in SUBFOLDERS
    ]
    for part, other, names in ((SUBFOLDERS[1], SUBFOLDERS[0], others[0]), (SUBFOLDERS[0], SUBFOLDERS[1], classes)):
        lacking = sorted(set(classes + others[0]) - set(names))
        if lacking:
            here, there = folder / other / lacking[0], folder / part / lacking[0]
            raise UserError(f"{here} has no counterpart {there}: every class needs pictures to train on and to test with")
    if len(classes) < 2:
        found = f"only the class {classes[0]}" if classes else "no folder of a class"
        raise UserError(f"{folder / SUBFOLDERS[0]} holds {found}: at least two are needed, each a folder with its pictures")
    digest = hashlib.sha256()
    for part in SUBFOLDERS:
        for name in classes:
            for path in list_images(folder / part / name):
                about = f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0"
                digest.update(about.encode(errors="surrogateescape"))
                with open(path, "rb") as file:
                    while block := file.read(READ_AT_ONCE):
                        digest.update(block)
    return {"classes": "/".join(classes), "pictures": digest.hexdigest()}


def list_images(folder: Path) -> list[Path]:
    """The files of one class in the order of their names; what is hidden, or lies in a hidden folder, is none.

    Raises:
        UserError: there is none, or one that ImageFolder would leave out.
    """
    found = (Path(parent) / name for parent, _, names in os.walk(folder, followlinks=True) for name in names)
    files = sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))
    for path in files:
        if path.suffix.lower() not in EXTENSIONS:
            raise UserError(f"{path} is of no type that is read as a picture ({' '.join(EXTENSIONS)}): convert or remove it")
    if not files:
        raise UserError(f"{folder} holds no pictures: every class needs at least one")
    return files


def read_image_folder(config: Config, folder: Path) -> list[np.ndarray]:
    """The pictures, uint8 M x 32 x 32 x 3, and labels, int64 M, of the training set, then of the test set.

    Raises:
        UserError: a picture cannot be read, or the classes are not those of the config.
    """
    import numpy as np

    found = describe_image_folder(folder)["classes"]
    if found != config.classes:
        there, wanted = (classes.replace("/", ", ") for classes in (found, config.classes))
        raise UserError(f"{folder} holds the classes {there}, and the network is of {wanted}")
    names = config.dataset_info.class_names
    sets = [
        [(path, label) for label, name in enumerate(names) for path in list_images(folder / part / name)] for part in SUBFOLDERS
    ]
    arrays = []
    with tqdm(total=sum(map(len, sets)), desc="reading pictures", unit="", disable=not sys.stderr.isatty()) as bar:
        for part in sets:
            images = np.empty((len(part), config.dataset_info.side, config.dataset_info.side, 3), dtype=np.uint8)
            for position, (path, _) in enumerate(part):
                images[position] = np.asarray(read_image(path, config.dataset_info))
                bar.update()
            arrays += [images, np.array([label for _, label in part])]
    return arrays


def read_image(path: Path, dataset_info: DatasetInfo) -> Image:
    """A picture turned upright, its shorter side resized and its centre cut, as small and as colourful as a data set's are.

    Raises:
        UserError: it is missing or not a picture.
    """
    from PIL import Image, ImageOps
    from torchvision import transforms

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow about pictures that are very large, and EXIF that is damaged
            with Image.open(path) as image:
                upright = image
                with contextlib.suppress(Exception):  # EXIF that cannot be read does not say which side is up
                    upright = ImageOps.exif_transpose(image)
                coloured = upright.convert("L" if dataset_info.channels == 1 else "RGB")
                return transforms.CenterCrop(dataset_info.side)(transforms.Resize(dataset_info.side)(coloured))
    except FileNotFoundError:
        raise UserError(f"there is no picture {path}") from None
    except Exception as error:  # whatever a foreign file may hold
        raise UserError(f"{path} cannot be read as a picture ({type(error).__name__})") from None
