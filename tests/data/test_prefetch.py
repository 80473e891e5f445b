import itertools
import threading

import pytest

from kao.data.prefetch import ahead

NAME = "kao-prefetch"


def threads():
    return [thread for thread in threading.enumerate() if thread.name == NAME]


class Counted:
    """A source that says when so many items were asked for.

    Its thread cannot be waited for otherwise: what it does not do takes no time to see.
    """

    def __init__(self, expected):
        self.asked, self.expected, self.reached = 0, expected, threading.Event()

    def __iter__(self):
        return self

    def __next__(self):
        self.asked += 1
        if self.asked == self.expected:
            self.reached.set()
        return self.asked


def test_items_come_out_as_they_went_in():
    assert list(ahead(iter(range(100)))) == list(range(100))


def test_a_source_of_nothing_ends_at_once():
    assert list(ahead(iter(()))) == []


@pytest.mark.parametrize("count", [1, 2, 5])
def test_so_many_items_are_made_ahead_and_no_more(count):
    source = Counted(expected=3 + count)
    items = ahead(source, count=count)
    assert list(itertools.islice(items, 3)) == [1, 2, 3]
    assert source.reached.wait(10)
    # The thread now waits for room: nothing but another item that is taken gives it any.
    source.reached.clear()
    assert not source.reached.wait(0.05)
    assert source.asked == 3 + count
    items.close()
    assert source.asked == 3 + count


def test_nothing_is_made_before_something_is_asked_for():
    source = Counted(expected=1)
    items = ahead(source)
    assert source.asked == 0 and not threads()
    items.close()


def test_the_source_is_used_by_another_thread():
    def names():
        while True:
            yield threading.current_thread().name

    items = ahead(names())
    assert next(items) == NAME
    items.close()


def test_an_error_arrives_where_the_item_would_have_been():
    def failing():
        yield 1
        yield 2
        raise OSError("the disk is gone")

    items = ahead(failing())
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        next(items)
    assert not threads()


@pytest.mark.parametrize("taken", [0, 1, 7])
def test_closing_ends_the_thread_and_the_source(taken):
    ended = threading.Event()

    def endless():
        try:
            yield from itertools.count()
        finally:
            ended.set()

    items = ahead(endless())
    assert list(itertools.islice(items, taken)) == list(range(taken))
    items.close()
    assert not threads()
    if taken:
        assert ended.wait(10)


def test_an_iterator_that_is_dropped_ends_its_thread():
    items = ahead(itertools.count())
    next(items)
    assert threads()
    del items
    assert not threads()
