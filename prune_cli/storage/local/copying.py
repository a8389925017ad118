"""How is a file copied by the system, so that no byte of it comes here?

Where the file system can, the copy shares the blocks of the original (reflink), and costs nothing.
"""

import errno
import fcntl
import os

from ..base import Input
from ..os_errors import failure
from .reading import LocalInput
from .writing import NewFile, create

FICLONE = 0x40049409  # ioctl(2) of Linux: share the blocks of another file
AT_ONCE = 1 << 30  # bytes of a call; the system stops at 2 GiB
# Reasons that mean: not on these file systems, or not between them.
NOT_HERE = (
    *(errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY, errno.EPERM),
    *(errno.ETXTBSY, errno.EBADF),
)


def copy(source: Input, path: str) -> bool:
    """See `Storage.copy`. Returns False for inputs that are no files, and systems without such a call."""
    if not isinstance(source, LocalInput) or source.identity is None:
        return False
    with create(path, [source], force=True) as output:
        if not isinstance(output, NewFile):
            return False
        descriptor = os.open(source.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            if not _clone(descriptor, output.descriptor):
                _transfer(descriptor, output, size)
            output.written = size
        except OSError as error:
            raise failure(error, path, f"copying {size} bytes") from None
        finally:
            os.close(descriptor)
    return True


def _clone(source: int, target: int) -> bool:
    """Share the blocks of the source, if the file system can."""
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as error:
        if error.errno not in NOT_HERE:
            raise
        return False
    return True


def _transfer(source: int, output: NewFile, size: int) -> None:
    """Have the system copy the bytes; by reads and writes of ours where it has no such call."""
    done = 0
    while done < size:
        try:
            moved = os.copy_file_range(source, output.descriptor, min(AT_ONCE, size - done), done, done)
        except (OSError, AttributeError) as error:
            if isinstance(error, OSError) and error.errno not in NOT_HERE:
                raise
            break
        if not moved:
            break
        done += moved
    os.lseek(output.descriptor, done, os.SEEK_SET)
    while data := os.pread(source, 1 << 20, done):
        output.write(data)
        done += len(data)
