"""Cuts that several tests of slice make, and helpers to read what was kept."""

import subprocess

from .conftest import records

N = 191  # scored records of the `ranked` fixture


def ids(data: bytes) -> list[str]:
    return [record["id"] for record in records(data)]


def cut(here, path, *options: object, **more):
    return here("slice", *options, path, **more).stdout


CUTS = [
    ["--keep", "middle", "--frac", "0.5"],
    ["--keep", "bottom", "--frac", "0.31"],
    ["--keep", "top", "--frac", "0"],
    ["--range", "0:1"],
    ["--range", "0.5:0.5001"],
    ["--keep", "middle", "--frac", "0.6", "--invert"],
    ["--keep", "top", "--frac", "0.2", "--keep-unscored"],
    ["--min", "30", "--max", "52"],
    ["--max", "-1"],
    ["--min", "12.5", "--invert", "--keep-unscored"],
]


# Other cuts


def text_of(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=True).stdout
