"""How is memory used? As much goes through a model at a time as fits, and what was freed is kept.

Nobody can say beforehand how much fits: it depends on the model, the context, the library's kernels and on
who else uses the device. The work is done again with half as much where memory runs out.
"""

import ctypes
import logging
from collections.abc import Callable
from typing import TypeVar

from ..errors import OutOfMemoryError, ran_out_of_memory

log = logging.getLogger(__name__)
Result = TypeVar("Result")

M_MMAP_MAX = -4  # from malloc.h
M_TRIM_THRESHOLD = -1


def halve_until_it_fits(
    work: Callable[[int], Result],
    size: int,
    *,
    unit: str,
    too_large: OutOfMemoryError,
    smallest: int = 1,
    undo: Callable[[], object] = lambda: None,
) -> tuple[Result, int]:
    """Call `work(size)`, and again with half the size for as long as memory runs out. Returns its result and
    the size that fitted.

    `unit` names in the warning (in the plural) what `size` counts. `undo` is called before each new attempt,
    for work that leaves something behind, such as gradients. The caller should use the size that fitted from
    then on.

    Raises `too_large` if even the `smallest` size does not fit.
    """
    while True:
        try:
            return work(size), size
        except (RuntimeError, MemoryError) as error:
            if not ran_out_of_memory(error):
                raise
        # Only here, outside of the except clause, is the traceback gone, and with it the tensors of the
        # attempt that failed.
        if size <= smallest:
            raise too_large
        size //= 2
        undo()
        log.warning("out of memory: continuing with %d %s at a time", size, unit)


def padded_width(width: int) -> int:
    """The width that a batch of sequences is padded to: the next of a few dozen.

    oneDNN keeps compiled code and buffers for every shape that it has met, so arbitrary widths would fill
    memory.
    """
    step = 8 if width <= 64 else 32
    return -(-width // step) * step


def keep_freed_memory() -> None:
    """Make glibc keep large blocks that were freed. Nothing happens with another C library.

    By default it returns them to the system, which clears them before it hands them out again: a third of the
    time of a step of training, and a tenth of that of scoring with an n-gram model.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_MAX, 0)  # no block comes from mmap, which would be returned when freed
        libc.mallopt(M_TRIM_THRESHOLD, -1)  # never shrink the heap
