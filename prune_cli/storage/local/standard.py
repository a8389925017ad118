"""The standard streams of a process, which a caller may have closed."""

import os

# How to open /dev/null in place of a closed stream: for the direction in which it is never used.
WRONG_WAY = ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY))


def hold() -> None:
    """Keep a closed standard stream from becoming the first file that is opened: its use fails instead.

    open(2) returns the lowest free number, so that an output file could become standard error.
    """
    for descriptor, flags in WRONG_WAY:
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, flags)
