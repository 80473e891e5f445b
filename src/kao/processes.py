"""Which of several processes this is, and how they agree.

A launcher (`torchrun`, `accelerate launch`) starts one process for each GPU, on one machine or on
many, and tells each its place in five environment variables.  `join` reads them; a program
started without a launcher is `ALONE`, and every method below is then the identity.

What all processes must decide alike (when to stop, what the clock says, whether to skip a step)
goes through `sum`, `any` or `broadcast`: a process that decides by itself leaves the others
waiting for it.

What one process meets alone (its memory runs out) is a `LoneError` there; it lets go of the
others and ends.  They notice at their next meeting on the CPU, by Gloo, and end with a sentence.
On GPUs a collective of NCCL does not return when a process is gone: there the launcher must end
those that are left.
"""

import atexit
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store, _abort_process_group
from torch.distributed.rendezvous import rendezvous

from kao.errors import ConfigError, LoneError

Made = TypeVar("Made")

VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What a launcher sets for each process it starts."""

_LOST = re.compile(
    "gloo|NCCL|[Cc]onnection|not all processes|[Ss]ocket"
    "|[Tt]imeout|[Tt]imed out waiting|closure|closed"
)
"""What torch says of it where its error has no type of its own."""

TURNS = 3
"""How many turns there are: see `Processes.turn`."""

_TIMEOUT = timedelta(hours=1)
"""How long one process waits for another, as while the first prepares the pictures.  One that ends
or crashes is noticed at once where the others wait on the CPU, and by them not at all on GPUs."""


@dataclass(frozen=True)
class Processes:
    """One of several processes that do the same thing.

    Every method but `rows` is a meeting: all processes must call it, in the same order.

    Attributes:
        rank: Which one this is, 0..world-1.
        world: How many there are, over all machines.
        local: Which one of its machine this is, from 0.
        local_world: How many there are on its machine.
    """

    rank: int = 0
    world: int = 1
    local: int = 0
    local_world: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the one that writes files and talks to the user."""
        return self.rank == 0

    @property
    def turn(self) -> int:
        """When it does what the others then find done, 0..TURNS-1.

        First the first of all, then the first of each other machine, then the rest: on a shared
        disk it is done once, and on disks of their own once a machine.
        """
        return 0 if self.main else 1 if self.local == 0 else 2

    def rows(self, count: int) -> slice:
        """This process's contiguous share of so many rows; shares differ by at most one row."""
        return slice(self.rank * count // self.world, (self.rank + 1) * count // self.world)

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all processes, in the order of their ranks.

        Args:
            rows: (n, ...) of any n, 0 included; the rest of the shape and the dtype are the same
                in all processes.  On the CPU or on this process's device.

        Returns:
            (sum of all n, ...), the same in every process, on the device of `rows`.
        """
        if self.world == 1:
            return rows
        with meeting():
            counts = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world)]
            dist.all_gather(counts, torch.tensor([len(rows)]))
            lengths = [int(count) for count in counts]
            padded = rows.new_zeros((max(lengths), *rows.shape[1:]))
            padded[: len(rows)] = rows
            shares = [torch.empty_like(padded) for _ in range(self.world)]
            dist.all_gather(shares, padded)
        return torch.cat([share[:n] for share, n in zip(shares, lengths, strict=True)])

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, the same bits in each.

        A process that fills in its own rows of a tensor of zeros gathers this way in a single
        meeting: x + 0 is x, and a loss that is not a number stays one.

        Args:
            values: Of any shape, the same in all processes, on the CPU or the device; not changed.
        """
        if self.world == 1:
            return values
        total = values.detach().clone(memory_format=torch.contiguous_format)
        with meeting():
            dist.all_reduce(total)
        return total

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        return bool(self.sum(torch.tensor(int(flag)))) if self.world > 1 else flag

    def wait(self) -> None:
        """Return once all processes have come here."""
        self.sum(torch.zeros(1))

    def by_turns(self, make: Callable[[], Made]) -> Made:
        """What each process makes, after the one that downloads or prepares it for the others.

        Args:
            make: Called once in each process: first in the first of all, then in the first of each
                other machine, then in the rest; see `turn`.
        """
        for turn in range(TURNS):
            if turn == self.turn:
                made = make()
            self.wait()
        return made

    def broadcast(self, value: Any) -> Any:
        """What process 0 passed.

        Args:
            value: Anything that can be pickled; read in process 0 only.
        """
        if self.world == 1:
            return value
        box = [value if self.main else None]
        with meeting():
            dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]


ALONE = Processes()
"""The only process there is."""


def join(device: torch.device) -> Processes:
    """Meet the other processes that a launcher started; `ALONE` where none did.

    With CUDA, this process's GPU becomes the one that "cuda" means: number LOCAL_RANK of its
    machine.  GPUs talk by NCCL, and what lies on the CPU by Gloo.  Joining twice is joining once.

    Args:
        device: Of the type that all of them compute on.

    Raises:
        ConfigError: The launcher's variables are half set, are no numbers, or ask for more GPUs
            than the machine has or for a device that processes cannot share.
        LoneError: The others could not be reached.
    """
    if dist.is_initialized():
        world = dist.get_world_size()
        return Processes(dist.get_rank(), world, _number("LOCAL_RANK"), _local_world(world))
    if launched() == 1:
        return ALONE
    place = {name: os.environ.get(name, "") for name in VARIABLES}
    missing = [name for name, value in place.items() if not value]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE = {place['WORLD_SIZE']} asks for several processes, but "
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set: start kao "
            f"with torchrun, which sets them all, or unset WORLD_SIZE."
        )
    rank, local, world = (_number(name) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
    if rank >= world:
        raise ConfigError(
            f"RANK = {rank} and WORLD_SIZE = {world}; expected a rank below the world's size: "
            f"start kao with torchrun, which sets both."
        )
    if device.type == "cuda":
        if local >= torch.cuda.device_count():
            raise ConfigError(
                f"LOCAL_RANK = {local}, but this machine has {torch.cuda.device_count()} GPU(s): "
                f"start no more processes on it than that (--nproc-per-node)."
            )
        torch.cuda.set_device(local)
    elif device.type != "cpu":
        raise ConfigError(
            f"{world} processes were started, but they cannot share a device of type "
            f"{device.type!r}: start kao without a launcher."
        )
    with meeting():
        store, _, _ = next(rendezvous("env://", timeout=_TIMEOUT))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=_fresh(store, rank, world),
            rank=rank,
            world_size=world,
            timeout=_TIMEOUT,
        )
    # A process that ends without letting go is aborted, and its exit code lost.
    atexit.register(leave)
    return Processes(rank, world, local, _local_world(world))


def leave(*, waiting: bool = True) -> None:
    """Let go of the other processes; nothing for one that is alone.

    Args:
        waiting: Whether what was begun together may be waited for.  Not where the others do not
            know that this one goes, or where one of them is gone; those that wait for this one on
            the CPU then notice when its process ends.
    """
    if not dist.is_initialized():
        return
    if waiting:
        dist.destroy_process_group()
        return
    group = dist.group.WORLD
    _abort_process_group()
    # Destroying it would wait, with Python's lock in hand, for a thread of Gloo that may need the
    # lock to end.  So it is kept as long as the process lives, by a thread that never returns.
    threading.Thread(target=_hold, args=(group,), daemon=True).start()


def _hold(kept: object) -> None:
    """Never return."""
    threading.Event().wait()


def _local_world(world: int) -> int:
    """How many processes this machine has; as many as there are where nobody says so."""
    return min(world, _number("LOCAL_WORLD_SIZE") or world)


def launched() -> int:
    """How many processes a launcher started; 1 without one.

    Raises:
        ConfigError: WORLD_SIZE is no number of processes, or is missing beside a RANK above 0.
    """
    if "WORLD_SIZE" not in os.environ:
        if _number("RANK"):
            raise ConfigError(
                f"RANK = {os.environ['RANK']}, but WORLD_SIZE is not set: start kao with torchrun, "
                f"which sets both, or unset RANK."
            )
        return 1
    return max(1, _number("WORLD_SIZE"))


def _number(name: str) -> int:
    """An environment variable as a whole number; 0 where it is not set."""
    text = os.environ.get(name, "") or "0"
    if not text.isdecimal():
        raise ConfigError(
            f"{name} = {text!r} in the environment; expected a whole number: start kao with "
            f"torchrun, which sets it, or unset it."
        )
    return int(text)


def _fresh(store: Store, rank: int, world: int) -> Store:
    """The part of a launcher's store that belongs to this start alone.

    A launcher that starts processes again may hand them the store of those that died, in which
    their addresses still stand.  So every process but the first asks a question that nobody asked
    before, and only the first of this start can answer it: with the name of a new part.
    """
    if rank > 0:
        question = secrets.token_hex(8)
        store.set(f"kao/question/{rank}", question)
        name = store.get(f"kao/answer/{question}").decode()  # waits for it
        store.add(f"kao/{name}/met", 1)
        return PrefixStore(f"kao/{name}", store)
    name, end = secrets.token_hex(8), time.monotonic() + _TIMEOUT.total_seconds()
    while store.add(f"kao/{name}/met", 0) < world - 1:
        for other in range(1, world):
            if store.check([f"kao/question/{other}"]):
                question = store.get(f"kao/question/{other}").decode()
                store.set(f"kao/answer/{question}", name)
        if time.monotonic() > end:
            raise RuntimeError("not all processes came")
        time.sleep(0.01)
    return PrefixStore(f"kao/{name}", store)


@contextmanager
def meeting() -> Iterator[None]:
    """Around whatever waits for the other processes: says in a sentence that one is gone.

    Raises:
        LoneError: One is.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not _LOST.search(str(error)):
            raise
        address = os.environ.get("MASTER_ADDR")  # not set where a program made the group itself
        raise LoneError(
            f"Another of the processes{f' at {address}' if address else ''} stopped or could not "
            f"be reached: see what it said; starting again goes on from the newest checkpoint."
        ) from error
