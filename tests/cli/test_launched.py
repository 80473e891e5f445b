"""What commands do where a launcher started several processes."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from several import several

from kao.checkpoints import Checkpoint
from kao.cli import SHARED, app, run
from kao.tracking import read_events

DOCS = Path(__file__).parents[2] / "docs"


def _names():
    commands = [command.name or command.callback.__name__ for command in app.registered_commands]
    return [*commands, *(group.name for group in app.registered_groups)]


@pytest.mark.parametrize("command", sorted(set(_names()) - set(SHARED)))
def test_a_command_for_one_process_refuses_to_be_one_of_several(command, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert run([command]) == 2
    told = capsys.readouterr().err
    assert told.startswith("kao (process 1): WORLD_SIZE = 2, but kao ")
    assert "start it without a launcher" in told


def _sample(tiny_run, folder):
    words = ["--n", "5", "--batch", "2", "--out", folder / "png"]
    words += ["--npz", folder / "all.npz", "--grid", folder / "grid.png"]
    return run([str(word) for word in ("sample", tiny_run, *words)])


def test_two_processes_draw_the_files_of_one(tiny_run, tmp_path):
    assert _sample(tiny_run, tmp_path / "one") == 0
    assert several(2, _sample, tiny_run, tmp_path / "two") == [0, 0]
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*")]
    assert len(files) == 7
    assert sorted(path.name for path in (tmp_path / "two").rglob("*.*")) == sorted(
        path.name for path in files
    )
    for file in files:
        assert (tmp_path / "two" / file).read_bytes() == (tmp_path / "one" / file).read_bytes()


def _evicted(folder, tiny):
    """Train until the second process gets SIGTERM; the exit code."""
    path = folder / "run"

    def evict():
        while not any(event["event"] == "train" for event in read_events(path)):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    if os.environ["RANK"] == "1":
        threading.Thread(target=evict, daemon=True).start()
    words = (*tiny, "hooks.log=4", "hooks.samples=9999999", "hooks.checkpoints=9999999")
    return run(["train", "toy:8", "toy-32", *words, "--run", str(path), "--steps", "1000000"])


def test_where_one_of_two_is_evicted_both_say_start_me_again(tiny, tmp_path):
    assert several(2, _evicted, tmp_path, tiny) == [75, 75]
    end = read_events(tmp_path / "run")[-1]
    assert (end["event"], end["reason"]) == ("end", "interrupted")
    assert [c.images for c in Checkpoint.all(tmp_path / "run")] == [end["images"]]


def test_the_command_for_all_gpus_of_a_machine_trains_in_several_processes(tiny, tmp_path):
    (command,) = re.findall(r"`(torchrun --standalone .*)`", (DOCS / "cluster.md").read_text())
    words = command.replace(" gpu ", " 2 ").replace("FACES", "toy:40 toy-32").split()
    programs = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(
        [programs / words[0], *words[1:], *tiny, "--run", tmp_path / "run", "--steps", "2"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    start, *_, end = read_events(tmp_path / "run")
    assert (start["processes"], end["images"], end["reason"]) == (2, 8, "finished")
