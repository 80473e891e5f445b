"""What is said, and by whom, where one of several processes cannot go on."""

import contextlib
import io
import os

import pytest
import torch
from several import several

from kao.cli import run
from kao.errors import DataError
from kao.training import Objective

_MET = {
    "memory": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "data": DataError("The pictures cannot be read: mend the disk."),
    "bug": RuntimeError("a mistake of ours"),
}


def _train(folder, tiny, error, mode):
    """`kao train`, of which process 1 alone meets an error a step after the first checkpoint.

    Returns:
        The exit code, and what was said.
    """
    forward, unsaved = Objective.forward, 0

    def failing(*arguments):
        nonlocal unsaved
        if os.environ["RANK"] == "1" and any((folder / "checkpoints").glob("0*")):
            unsaved += 1
            if unsaved == 2:
                raise _MET[error]
        return forward(*arguments)

    Objective.forward = failing
    said = io.StringIO()
    words = ("train", "toy:40", "toy-32", "--run", str(folder), "--steps", "8", *tiny)
    try:
        with contextlib.redirect_stderr(said):
            more = (f"training.parallel={mode}", "hooks.checkpoints=8", "data.held_out=0")
            code = run([*words, *more])
    except RuntimeError as bug:
        return 1, str(bug)
    return code, said.getvalue()


@pytest.mark.parametrize(
    ("error", "mode", "code", "words"),
    [
        ("memory", "ddp", 2, "kao (process 1): A step of 2 images at once does not fit"),
        ("memory", "fsdp", 2, "kao (process 1): A step of 2 images at once does not fit"),
        ("data", "ddp", 2, "kao (process 1): The pictures cannot be read"),
        ("bug", "ddp", 1, "a mistake of ours"),
    ],
)
def test_what_one_process_meets_alone_ends_all_with_a_sentence(
    tiny, tmp_path, error, mode, code, words
):
    first, other = several(2, _train, tmp_path / "run", tiny, error, mode)
    assert other[0] == code and words in other[1]
    assert first[0] == 2
    assert "kao: Another of the processes at 127.0.0.1 stopped" in first[1]
    assert "starting again goes on from the newest checkpoint" in first[1]
