"""How are sizes and counts written? Sizes as for sort(1): "512M", "2GiB", "25%" of memory. Counts: "1.5M"."""

import os
import re
from decimal import Decimal, InvalidOperation

from .errors import UsageError

POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGT]?)(?:iB)?|(%))", re.IGNORECASE)


def parse(text: str) -> int:
    """A size in bytes. K M G T (or KiB ...) are powers of 1024, % is a fraction of this machine's memory.

    Raises UsageError for anything else, such as `MB`: a power of 1000 to some, of 1024 to others.
    """
    match = SIZE.fullmatch(text.strip())
    # A fraction needs a unit: there is no half byte.
    if not match or (match[2] == "" and "." in match[1]):
        raise UsageError(f"'{text}' is not a size", remedy=_remedy(text))
    number, unit, percent = match.groups()
    if percent:
        return int(float(number) / 100 * memory())
    return int(float(number) * 1024 ** POWERS[unit.upper()])


def _remedy(text: str) -> str:
    if text.strip().upper().endswith("B"):
        return "MB could mean 1000² or 1024² bytes: write M or MiB"
    return "write 512M, 2G or 25%"


THOUSANDS = {"": 0, "K": 1, "M": 2, "G": 3}
COUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)([KMG]?)", re.IGNORECASE)
LARGEST_COUNT = 1 << 62  # sums of counts are computed in 64 bits


def parse_count(text: str) -> int:
    """A number of tokens or records: K, M and G are powers of 1000, as in "1M" and "1.5G".

    Raises UsageError for anything else. Bytes are counted by `parse`, in powers of 1024.
    """
    match = COUNT.fullmatch(text.strip())
    # Decimal, because 1.1 × 1000 is 1100 and not 1100.0000000000002.
    number = Decimal(match[1]) * 1000 ** THOUSANDS[match[2].upper()] if match else Decimal("0.5")
    if number != int(number):
        raise UsageError(
            f"'{text}' is not a whole number", remedy="write 1000000 or 1M (K, M, G: powers of 1000)"
        )
    if number >= LARGEST_COUNT:
        raise UsageError(f"'{text}' is beyond 2^62")
    return int(number)


def parse_fraction(text: str) -> Decimal:
    """The number that a text spells, per cent as hundredths; -1, out of every range, for anything else.

    Decimal, because 0.07 · 100 is to be 7 and not 7.000000000000001: counts are exact.
    """
    try:
        number = Decimal(text.removesuffix("%"))
    except InvalidOperation:
        return Decimal(-1)
    if not number.is_finite():
        return Decimal(-1)
    return number / 100 if text.endswith("%") else number


def memory() -> int:
    """Bytes of memory that this process may use: those of the machine, or of its control group if fewer."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # Containers and Slurm jobs have a control group (version 2 or 1). Its limit may be "max"; macOS has none.
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
