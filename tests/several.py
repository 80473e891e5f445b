"""Starting a function in several processes that meet over Gloo, as a launcher would."""

import faulthandler
import multiprocessing
import os
import pickle
import tempfile
import time
import traceback
from pathlib import Path

import torch
from torch.distributed import TCPStore

# A server that has imported everything once and forks: no process waits for imports.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["kao.runs", "kao.shards", "kao.training.parallel"])


def several(world: int, function, *arguments, timeout: float = 120) -> list:
    """What function(*arguments) returned in each of `world` processes, by rank.

    Args:
        world: How many processes.
        function: Of a module that can be imported; it must call `kao.processes.join` itself.
        arguments: Pickled.
        timeout: Seconds after which processes that wait for each other are ended.
    """
    store = TCPStore("127.0.0.1", 0, None, is_master=True, wait_for_workers=False)
    environment = {
        **{name: os.environ[name] for name in ("KAO_CACHE", "OMP_NUM_THREADS")},
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the port was found free here, and stays ours
    }
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / str(rank) for rank in range(world)]
        processes = [
            _CONTEXT.Process(
                target=_one, args=(file, environment, rank, function, arguments, timeout)
            )
            for rank, file in enumerate(files)
        ]
        for process in processes:
            process.start()
        end = time.monotonic() + timeout
        for process in processes:
            process.join(max(0, end - time.monotonic()))
            process.kill()
        codes = [process.exitcode for process in processes]
        told = [_told(file) for file in files]
        stacks = [_stack(file).read_text() if _stack(file).exists() else "" for file in files]
    errors = [
        f"rank {rank} (exit code {codes[rank]}): {value}"
        for rank, (good, value) in enumerate(told)
        if not good
    ]
    assert not errors, "\n".join(errors + stacks)
    return [value for _, value in told]


def _told(file: Path):
    if not file.exists():
        return False, "ended, or was ended, without a word"
    return pickle.loads(file.read_bytes())


def _stack(file: Path) -> Path:
    """Where a process that is about to run out of time says what it is at."""
    return file.with_suffix(".stack")


def _one(file: Path, environment, rank: int, function, arguments, timeout: float) -> None:
    stack = _stack(file).open("w")
    faulthandler.dump_traceback_later(0.9 * timeout, file=stack)
    os.environ.update(environment, RANK=str(rank), LOCAL_RANK=str(rank))
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        told = (True, function(*arguments))
    except BaseException:
        told = (False, traceback.format_exc())
    file.write_bytes(pickle.dumps(told))
