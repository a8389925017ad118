"""The small language model that comes with the package; README.md, beside this file, is its card."""

from pathlib import Path

DIRECTORY = Path(__file__).parent
