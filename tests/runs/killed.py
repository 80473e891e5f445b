"""Trains a run to its end, then another in child processes that are killed: see test_kills.

python killed.py RECIPE STRAIGHT KILLED KILLS SEED WORD...

Half of the kills come from outside, between any two instructions; the other half from the child
itself, where it brings a file of a checkpoint to the disk.  Prints what each child came to, as
JSON, a list of [how it ended, whether a half-written checkpoint was there].
"""

import json
import os
import random
import signal
import sys
import time
from itertools import count
from pathlib import Path

import torch

import kao.files
from kao.runs import Ask, finish, open_session

MOST_SYNCS = 24  # of about three checkpoints


def train(recipe: str, run: Path, words: list[str], *, told: int, syncs: int | None) -> None:
    """Train to the end; a byte is written for each step, and the process may kill itself.

    Args:
        recipe: Path of a recipe.
        run: The run directory.
        words: Overrides.
        told: File descriptor for the bytes.
        syncs: After so many files were brought to the disk the process kills itself.
    """
    if syncs is not None:
        kao.files.sync = deadly(syncs)
    session = open_session(Ask(run, "toy:8", recipe, words), torch.device("cpu"))
    os.write(told, b".")
    for _ in session.trainer.steps():
        os.write(told, b".")
    finish(session)


def deadly(syncs: int):
    """Brings files to the disk, so many of them."""
    sync, calls = kao.files.sync, count()

    def to_the_disk(path):
        sync(path)
        if next(calls) == syncs:
            os.kill(os.getpid(), signal.SIGKILL)

    return to_the_disk


def child(
    recipe: str,
    run: Path,
    words: list[str],
    *,
    steps: int | None,
    wait: float,
    syncs: int | None,
) -> str:
    """Let one child train; kill it so many steps and seconds later.

    Returns:
        "killed" or "ended".
    """
    heard, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(heard)
            train(recipe, run, words, told=told, syncs=syncs)
            code = 0
        finally:
            os._exit(code)
    os.close(told)
    seen = 0
    while steps is None or seen <= steps:
        got = len(os.read(heard, 1))
        if got == 0:
            break
        seen += got
    if steps is not None:
        time.sleep(wait)
        os.kill(pid, signal.SIGKILL)
    os.close(heard)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        return "killed"
    if os.WEXITSTATUS(status):
        sys.exit("a child failed")
    return "ended"


def main() -> None:
    """Kill so many times, then let it end."""
    recipe, straight, run = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    kills, seed, words = int(sys.argv[4]), int(sys.argv[5]), sys.argv[6:]
    torch.set_num_threads(1)
    # In this process, so that what is loaded on the way is loaded once for all children.
    train(recipe, straight, words, told=os.open(os.devnull, os.O_WRONLY), syncs=None)
    chance = random.Random(seed)
    ends = []
    for kill in range(kills):
        steps = syncs = None
        if kill % 2:
            syncs = chance.randrange(MOST_SYNCS)
        else:
            steps = chance.randrange(4)
        ended = child(recipe, run, words, steps=steps, wait=0.02 * chance.random(), syncs=syncs)
        ends.append((ended, any(run.glob("checkpoints/.*.partial"))))
    ends.append((child(recipe, run, words, steps=None, wait=0, syncs=None), False))
    print(json.dumps(ends))


if __name__ == "__main__":
    main()
