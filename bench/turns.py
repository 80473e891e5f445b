"""Several programs measured in turns, each in a process of its own.

A slow minute of the machine hits all alike, as the programs take turns; what one keeps in memory,
or sets for the whole process, touches no other, and its largest resident set is its own.  While
one works the others wait for a word and use no processor.
"""

import resource
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from statistics import median
from typing import Any, Protocol

import psutil
import torch

_MIB = 2**20
_WARM_UP = 3  # steps before anything is measured: allocators and kernels are chosen in them


class Work(Protocol):
    """What a process repeats.

    Attributes:
        about: What is reported of it beside the measurements, JSON values.
    """

    about: dict[str, Any]

    def step(self) -> int:
        """Do it once; returns how many images that was."""


@dataclass
class Figures:
    """What was measured of one program.

    Attributes:
        about: From `Work.about`, after the last round.
        rates: Images per second, one a round.
        resident: Largest resident set of its process, MiB.
        added: The same less what stood there before the work was built, imports included.
        device: Largest memory allocated on the GPU, MiB; None on the CPU.
    """

    about: dict[str, Any]
    rates: list[float] = field(default_factory=list)
    resident: float = 0.0
    added: float = 0.0
    device: float | None = None

    @property
    def memory(self) -> float:
        """What the work needs, MiB: on the GPU where there is one, else of the process."""
        return self.added if self.device is None else self.device

    def table(self) -> dict[str, Any]:
        """As JSON."""
        return {
            **self.about,
            "images_per_second": spread(self.rates),
            "resident_mib": round(self.resident),
            "added_mib": round(self.added),
            "device_mib": None if self.device is None else round(self.device),
        }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def ratios(over: Figures, under: Figures) -> dict[str, Any]:
    """Speed of one over that of another, round by round, and memory."""
    pairs = zip(over.rates, under.rates, strict=True)
    return {
        "images_per_second": spread([a / b for a, b in pairs]),
        "memory": over.memory / under.memory,
    }


def _nothing() -> None:
    """What is loaded where nothing is."""


def in_turns(
    programs: Mapping[str, Callable[[], Work]],
    *,
    rounds: int,
    seconds: float,
    threads: int,
    device: torch.device,
    load: Callable[[], None] = _nothing,
) -> dict[str, Figures]:
    """Build all, warm up, and let each work for some seconds a round.

    Args:
        programs: By name; functions that a new process can import, or partials of such.
        rounds: How many turns each has.
        seconds: About how long a turn is.
        threads: Of torch, in each process.
        device: Where they compute: for the memory, and to wait for a GPU to end a turn.
        load: Called first in each process: imports that are not to count as memory of one.

    Returns:
        Figures by name, in the order of `programs`.

    Raises:
        RuntimeError: One could not be built, or failed: with its own words.
    """
    with ExitStack() as stack:
        started = {
            name: stack.enter_context(_process(build, load, threads=threads, device=device))
            for name, build in programs.items()
        }
        figures = {name: Figures(about=_ask(started[name], name, "build")) for name in started}
        for turn in range(rounds):
            for name, connection in started.items():
                figures[name].rates.append(_ask(connection, name, seconds))
            last = ", ".join(f"{name} {f.rates[-1]:.1f}" for name, f in figures.items())
            print(f"round {turn + 1}: {last}", flush=True)
        for name, connection in started.items():
            found = _ask(connection, name, "memory")
            figures[name].about = found["about"]
            figures[name].resident, figures[name].added = found["resident"], found["added"]
            figures[name].device = found["device"]
    return figures


def alone(build: Callable[[], Any], *, threads: int) -> Any:
    """What a function returns in a process of its own.

    Raises:
        RuntimeError: It failed: with its own words.
    """
    here, there = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=_once, args=(there, build, threads))
    process.start()
    try:
        return _answer(here, "the process")
    finally:
        process.join()


def largest_resident() -> float:
    """Largest resident set of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux


@contextmanager
def _process(
    build: Callable[[], Work], load: Callable[[], None], *, threads: int, device: torch.device
) -> Iterator[Connection]:
    here, there = get_context("spawn").Pipe()
    process = get_context("spawn").Process(
        target=_serve, args=(there, build, load, threads, device), daemon=True
    )
    process.start()
    there.close()
    try:
        yield here
    finally:
        here.close()  # the end of its words is the end of its work
        process.join(timeout=30)


def _ask(connection: Connection, name: str, word: str | float) -> Any:
    connection.send(word)
    return _answer(connection, name)


def _answer(connection: Connection, name: str) -> Any:
    try:
        answer = connection.recv()
    except EOFError:
        raise RuntimeError(
            f"{name} ended without an answer: was there too little memory?"
        ) from None
    if isinstance(answer, _Failure):
        raise RuntimeError(f"{name} failed:\n{answer.words}")
    return answer


@dataclass(frozen=True)
class _Failure:
    words: str


def _once(connection: Connection, build: Callable[[], Any], threads: int) -> None:
    torch.set_num_threads(threads)
    try:
        connection.send(build())
    except BaseException:
        connection.send(_Failure(traceback.format_exc()))


def _serve(
    connection: Connection,
    build: Callable[[], Work],
    load: Callable[[], None],
    threads: int,
    device: torch.device,
) -> None:
    """The other process: build, then answer words until there are no more."""
    torch.set_num_threads(threads)
    try:
        connection.recv()
        load()
        before = psutil.Process().memory_info().rss / _MIB
        work = build()
        for _ in range(_WARM_UP):
            work.step()
        connection.send(work.about)
        while True:
            word = connection.recv()
            if word == "memory":
                on_gpu = device.type == "cuda"
                resident = largest_resident()
                connection.send(
                    {
                        "about": work.about,
                        "resident": resident,
                        "added": resident - before,
                        "device": torch.cuda.max_memory_allocated() / _MIB if on_gpu else None,
                    }
                )
            else:
                connection.send(_images_per_second(work, word, device))
    except EOFError:
        pass  # there are no more words
    except BaseException:
        connection.send(_Failure(traceback.format_exc()))


def _images_per_second(work: Work, seconds: float, device: torch.device) -> float:
    """Over whole steps of about that time."""
    start, images, elapsed = time.perf_counter(), 0, 0.0
    while elapsed < seconds:
        images += work.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elapsed = time.perf_counter() - start
    return images / elapsed
