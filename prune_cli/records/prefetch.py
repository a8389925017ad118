"""How is the next item made while this one is used? In a thread that runs a few items ahead."""

from collections.abc import Iterator
from queue import SimpleQueue
from threading import Semaphore, Thread, current_thread
from typing import Any, TypeVar

DEPTH = 3  # pieces of text (of 2 MiB at most) that are ready before they are asked for

Item = TypeVar("Item")


def prefetch(items: Iterator[Item], depth: int = DEPTH) -> Iterator[Item]:
    """The same items, made in a thread. `depth` is how many may be ready; with 0 one is made while one is
    used.

    An exception of the iterator is raised here in its turn, after the items before it.
    """
    ready: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
    room = Semaphore(depth)
    is_abandoned = False

    def make() -> None:
        end: BaseException = StopIteration()
        try:
            for item in items:
                ready.put((item, None))
                room.acquire()
                if is_abandoned:
                    return
        except BaseException as error:
            end = error
        ready.put((None, end))

    # A daemon: a thread that waits for a pipe must not keep the process from ending.
    thread = Thread(target=make, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, end = ready.get()
            if isinstance(end, StopIteration):
                return
            if end:
                raise end
            room.release()
            yield item
    finally:
        is_abandoned = True
        room.release()
        # The garbage collector may close this generator in any thread, even in the one that it would wait
        # for.
        if thread is not current_thread():
            # The caller closes the file next. Usually the thread ends before that; one that waits for a pipe
            # does not.
            thread.join(0.2)
