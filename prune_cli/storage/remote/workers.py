"""In which threads do requests run?

A call into the client library returns only when its answer is there, which may be minutes, and Python handles
no signal before that. Therefore every call is made in a thread of this file, and whoever needs the answer
waits for a future: a wait that a signal ends at once.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, TypeVar

MOST = 32  # threads: they wait for answers most of the time
SETTLING = 2.0  # seconds that the end of the process waits for requests whose answers nobody needs

Answer = TypeVar("Answer")
_Work = tuple["Future[Any]", Callable[[], Any]]


class Workers:
    """Threads that make requests, started when they are needed.

    Not an executor of the standard library: that one waits for its threads when the process ends, and a run
    that was stopped would hang until the last retry.
    """

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self.queue: SimpleQueue[_Work] = SimpleQueue()
        self.lock = Lock()
        self.threads = 0
        self.unfinished = 0  # requests that are queued or under way

    def submit(self, request: Callable[[], Answer]) -> "Future[Answer]":
        """Make a request in a thread."""
        future: Future[Answer] = Future()
        with self.lock:
            self.unfinished += 1
            if self.unfinished > self.threads and self.threads < self.most:
                self.threads += 1
                Thread(target=self._work, name=f"request-{self.threads}", daemon=True).start()
        self.queue.put((future, request))
        return future

    def run(self, request: Callable[[], Answer]) -> Answer:
        """The answer to a request that is made in a thread, and waited for."""
        return self.submit(request).result()

    def settle(self, patience: float = SETTLING) -> bool:
        """Wait until no request is under way; False if some still are."""
        end = time.monotonic() + patience
        while self.unfinished and time.monotonic() < end:
            time.sleep(0.01)
        return not self.unfinished

    def _work(self) -> None:
        while True:
            future, request = self.queue.get()
            try:
                # False for a future that was cancelled: its reader has left.
                if future.set_running_or_notify_cancel():
                    _fulfil(future, request)
            finally:
                # Before the next wait, or a large answer would stay in memory until then.
                del future, request
                with self.lock:
                    self.unfinished -= 1


def _fulfil(future: "Future[Any]", request: Callable[[], Any]) -> None:
    try:
        future.set_result(request())
    except BaseException as error:
        future.set_exception(error)


WORKERS = Workers()
