"""What commands do where a launcher started several processes."""

import pytest
from several import several

from kao.cli import SHARED, app, run


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
