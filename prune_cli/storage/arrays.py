"""How are arrays stored, so that a later run maps them instead of computing them again?"""

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import checksums, directories

log = logging.getLogger(__name__)
Integers = NDArray[np.int64]


def save(values: NDArray[Any], path: Path) -> None:
    """Write an array, and make it durable."""
    with path.open("wb") as file:
        np.save(file, values)
        directories.sync_file(file)


def cached(directory: Path, stem: str, make: Callable[[], Integers]) -> Integers:
    """The result of `make`, mapped from the file that the first call writes; made again if that is damaged.

    The checksum of the file is part of its name, `stem`.CHECKSUM.npy: both appear in one step.
    """
    for path in directory.glob(f"{stem}.*.npy"):
        # Another process may delete it at any moment.
        with suppress(FileNotFoundError):
            if path.name.split(".")[-2] == checksums.of_file(path):
                return np.asarray(np.load(path, mmap_mode="r"))
            log.warning("%s: is damaged, and is made again", path)
            path.unlink()
    values = make()
    # Processes may do this at the same time: each renames a file of its own, and all of them are equal.
    temporary = directory / f"{stem}.{os.getpid()}"
    save(values, temporary)
    temporary.replace(directory / f"{stem}.{checksums.of_file(temporary)}.npy")
    return values
