"""Sizes as sort(1) spells them: "512M", "2GiB", "25%" → bytes."""

import os
import re

from .errors import UsageError

POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGT]?)(?:iB)?|(%))", re.IGNORECASE)


def parse(text: str) -> int:
    """The bytes that a text spells. K M G T (or KiB ...) are powers of 1024, % is of this machine's memory.

    Raises UsageError for anything else; `MB` is refused because it means a power of 1000 to some and of 1024
    to others.
    """
    match = SIZE.fullmatch(text.strip())
    if not match or (match[2] == "" and "." in match[1]):
        hint = (
            "MB could mean 1000² or 1024² bytes: write M or MiB"
            if text.strip().upper().endswith("B")
            else "write 512M, 2G or 25%"
        )
        raise UsageError(f"'{text}' is not a size", remedy=hint)
    number, unit, percent = match.groups()
    return (
        int(float(number) / 100 * memory()) if percent else int(float(number) * 1024 ** POWERS[unit.upper()])
    )


def memory() -> int:
    """Bytes of memory this process may use: the machine's, or the control group's where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(limit) as file:
                total = min(total, int(file.read()))
        except (OSError, ValueError):
            continue
    return total


def human(size: float) -> str:
    """A size for people: 1536 → "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
