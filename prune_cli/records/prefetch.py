"""How is the next item made while this one is used? In a thread that runs a few items ahead."""

from collections.abc import Iterator
from queue import SimpleQueue
from threading import Semaphore, Thread, current_thread
from typing import Any, Generic, TypeVar

DEPTH = 3  # items that may wait; an item is often a piece of text, of 2 MiB at most
PATIENCE = 0.2  # seconds to wait for the thread of an abandoned iterator

Item = TypeVar("Item")


def prefetch(items: Iterator[Item], depth: int = DEPTH) -> Iterator[Item]:
    """The same items, made in a thread at most `depth` items ahead. With 0, one is made while one is used.

    An exception of the iterator is raised here in its turn, after the items before it.
    """
    producer = _Producer(items, depth)
    producer.thread.start()
    try:
        while True:
            item, end = producer.ready.get()
            if isinstance(end, StopIteration):
                return
            if end:
                raise end
            # Before the item is used, so that the next one is made meanwhile.
            producer.room.release()
            yield item
    finally:
        producer.abandon()


class _Producer(Generic[Item]):
    """The thread that makes the items, and its queue."""

    def __init__(self, items: Iterator[Item], depth: int) -> None:
        self.items = items
        self.ready: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self.room = Semaphore(depth)
        self.is_abandoned = False
        # A daemon: a thread that waits for a pipe must not keep the process from ending.
        self.thread = Thread(target=self._make, name="prefetch", daemon=True)

    def _make(self) -> None:
        """Put every item into the queue, then the exception that ended them."""
        end: BaseException = StopIteration()
        try:
            for item in self.items:
                self.ready.put((item, None))
                self.room.acquire()
                if self.is_abandoned:
                    return
        except BaseException as error:
            end = error
        self.ready.put((None, end))

    def abandon(self) -> None:
        """Stop after the item that is being made."""
        self.is_abandoned = True
        self.room.release()
        # The garbage collector may close a generator in any thread, even in the one to wait for.
        if self.thread is not current_thread():
            # The caller closes the file next. Usually the thread ends before that; one that waits for a pipe
            # does not.
            self.thread.join(PATIENCE)
