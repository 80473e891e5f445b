"""The next batches are read while this one is trained on."""

import queue
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class _Ended:
    """What a thread leaves behind when its source has no more, and why."""

    error: BaseException | None


def ahead(source: Iterator[T], *, count: int = 2) -> Generator[T, None, None]:
    """The items of a source, the next of which are made by a thread in the meantime.

    The thread starts with the first item that is asked for, and has ended when this iterator is
    closed.

    Args:
        source: Used by the thread alone from then on.
        count: Items made ahead, at most.

    Yields:
        The same items in the same order.

    Raises:
        BaseException: What the source raised, where it raised it.
    """
    made: queue.SimpleQueue[T | _Ended] = queue.SimpleQueue()
    room = threading.Semaphore(count)
    closed = threading.Event()

    def work() -> None:
        try:
            while room.acquire() and not closed.is_set():
                made.put(next(source))
        except StopIteration:
            made.put(_Ended(None))
        except BaseException as error:
            made.put(_Ended(error))

    # A daemon, so that a program that never closes the iterator can still end.
    thread = threading.Thread(target=work, name="kao-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item = made.get()
            if isinstance(item, _Ended):
                if item.error is not None:
                    raise item.error
                return
            room.release()
            yield item
    finally:
        closed.set()
        room.release()
        thread.join()
