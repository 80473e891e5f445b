import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from kao.errors import ConfigError, OutputError
from kao.files import (
    at_home,
    bring_back,
    cache_folder,
    hold,
    new_folder,
    read_text,
    readable,
    save_npz,
    write_text,
    writing,
)


def full(*arguments, **options):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "The disk is full while writing here: free some space, or choose another"),
        (errno.EDQUOT, "The disk is full while writing here"),
        (errno.EACCES, "here is not writable: change its permissions, or choose another place."),
        (errno.EPERM, "here is not writable"),
        (errno.EROFS, "here is not writable"),
        (errno.ENOTDIR, "here cannot be written, since a file or folder of that name is in the"),
        (errno.EEXIST, "here cannot be written, since a file"),
        (errno.EISDIR, "here cannot be written, since a file"),
        (errno.EIO, "here cannot be written: Input/output error."),
    ],
)
def test_an_error_of_the_system_becomes_a_sentence(number, words):
    with pytest.raises(OutputError, match=words), writing(Path("here")):
        raise OSError(number, os.strerror(number))


def test_an_error_that_is_not_the_systems_passes_through():
    with pytest.raises(KeyError), writing(Path("here")):
        raise KeyError


def test_a_text_is_replaced(tmp_path):
    file = tmp_path / "run.toml"
    write_text(file, "old and longer")
    write_text(file, "größer\n")
    assert file.read_bytes() == "größer\n".encode()
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("method", ["write_bytes", "replace"])
def test_a_text_that_cannot_be_written_leaves_the_old_one_and_nothing_beside(
    tmp_path, monkeypatch, method
):
    file = tmp_path / "run.toml"
    write_text(file, "old")
    monkeypatch.setattr(Path, method, full)
    with pytest.raises(OutputError, match="disk is full"):
        write_text(file, "new")
    monkeypatch.undo()
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_text_that_would_replace_a_folder_is_refused_with_words(tmp_path):
    (tmp_path / "run.toml").mkdir()
    with pytest.raises(OutputError, match=r"run\.toml is in the way, since it is no file"):
        write_text(tmp_path / "run.toml", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["run.toml"]


def test_a_text_in_a_file_is_refused_with_words(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="in the way"):
        write_text(tmp_path / "file" / "run.toml", "new")


def test_a_folder_takes_its_name_when_it_is_whole(tmp_path):
    place = tmp_path / "deep" / "000000010"
    with new_folder(place) as folder:
        (folder / "a").write_text("a")
        assert not place.exists()
    assert [file.name for file in place.iterdir()] == ["a"]
    assert list(place.parent.iterdir()) == [place]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_in_the_middle_leaves_no_folder(tmp_path, error):
    with pytest.raises(error), new_folder(tmp_path / "x") as folder:
        (folder / "a").write_text("a")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_an_exception_in_the_middle_leaves_the_folder_that_was_there(tmp_path):
    with new_folder(tmp_path / "x") as folder:
        (folder / "a").write_text("old")
    with pytest.raises(ValueError), new_folder(tmp_path / "x") as folder:
        (folder / "a").write_text("new")
        raise ValueError
    assert (tmp_path / "x" / "a").read_text() == "old"


def test_a_new_folder_replaces_an_old_one_whole(tmp_path):
    for name in ("a", "b"):
        with new_folder(tmp_path / "x") as folder:
            (folder / name).write_text(name)
    assert [file.name for file in (tmp_path / "x").iterdir()] == ["b"]


def test_an_error_while_the_old_folder_is_replaced_leaves_it_whole(tmp_path, monkeypatch):
    with new_folder(tmp_path / "x") as folder:
        (folder / "a").write_text("old")
    rename = Path.rename

    def refused(self, target):
        if self.name == ".x.partial":
            full()
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(OutputError, match="disk is full"), new_folder(tmp_path / "x") as folder:
        (folder / "b").write_text("new")
    assert [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob("*"))] == ["x", "x/a"]


def test_the_old_folder_is_never_gone_before_the_new_one_is_there(tmp_path, monkeypatch):
    with new_folder(tmp_path / "x") as folder:
        (folder / "a").write_text("old")
    rmtree, whole = shutil.rmtree, []

    def watched(path, **options):
        whole.append((tmp_path / "x").exists())
        rmtree(path, **options)

    monkeypatch.setattr(shutil, "rmtree", watched)
    with new_folder(tmp_path / "x") as folder:
        (folder / "b").write_text("new")
    assert whole and all(whole)
    assert [file.name for file in (tmp_path / "x").iterdir()] == ["b"]


@pytest.mark.parametrize("there", [False, True])
def test_what_a_kill_left_aside_comes_back_where_nothing_took_its_place(tmp_path, there):
    (tmp_path / ".x.old").mkdir()
    (tmp_path / ".x.old" / "a").write_text("old")
    if there:
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / "a").write_text("new")
    bring_back(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x" / "a").read_text() == ("new" if there else "old")


@pytest.mark.parametrize(
    ("number", "held"),
    [(errno.EACCES, True), (errno.EAGAIN, True), (errno.ENOLCK, False), (errno.ENOSYS, False)],
)
def test_only_a_lock_that_is_held_is_in_use(tmp_path, monkeypatch, number, held):
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    told = []
    if held:
        with pytest.raises(OutputError, match="is in use by another process"):
            hold(tmp_path, tell=told.append)
        assert told == []
    else:
        hold(tmp_path, tell=told.append).close()
        (line,) = told
        assert line.startswith(f"{tmp_path} cannot be locked ({os.strerror(number)})")


def test_what_a_killed_process_left_is_not_taken_into_the_next_folder(tmp_path):
    left = tmp_path / ".x.partial"
    left.mkdir()
    (left / "half").write_text("half")
    with new_folder(tmp_path / "x") as folder:
        (folder / "a").write_text("a")
    assert [path.name for path in tmp_path.rglob("*")] == ["x", "a"]


def test_every_file_is_on_the_disk_before_the_folder_takes_its_name(tmp_path, monkeypatch):
    told = []
    fsync, rename = os.fsync, Path.rename

    def synced(handle):
        told.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        fsync(handle)

    def renamed(self, target):
        told.append("renamed")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    with new_folder(tmp_path / "x") as folder:
        (folder / "in").mkdir()
        for name in ("a", "in/b"):
            (folder / name).write_text(name)
    at = told.index("renamed")
    assert sorted(told[:at]) == [".x.partial", "a", "b", "in"]
    assert told[at + 1 :] == [tmp_path.name]


def test_a_file_in_the_way_of_a_folder_is_refused_with_words(tmp_path):
    (tmp_path / "x").write_text("mine")
    with pytest.raises(OutputError, match="x cannot be written, since a file"):
        with new_folder(tmp_path / "x"):
            pass
    assert (tmp_path / "x").read_text() == "mine"


@pytest.mark.parametrize("name", ["faces.npz", "faces"])
def test_an_npz_has_the_name_that_was_asked_for_and_holds_arr_0(tmp_path, name):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    save_npz(tmp_path / "new" / name, array)
    with np.load(tmp_path / "new" / name) as stored:
        assert stored.files == ["arr_0"]
        assert np.array_equal(stored["arr_0"], array)


def test_an_npz_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    file = tmp_path / "faces.npz"
    save_npz(file, np.zeros(3))
    old = file.read_bytes()

    def half(handle, array):
        handle.write(b"half")
        full()

    monkeypatch.setattr(np, "savez_compressed", half)
    with pytest.raises(OutputError, match="disk is full"):
        save_npz(file, np.ones(3))
    assert file.read_bytes() == old
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("cats", "cats"),
        ("e\u0301t\xe9 \u732b \U0001f63a \xa0$x_1$ [/b] 100%", None),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("a\nb\r\tc\x7f", r"a\nb\r\tc\x7f"),
        ("\x9b31m \x85", r"\x9b31m \x85"),
        ("a\u202egnp.\u2028b\u2066", r"a\u202egnp.\u2028b\u2066"),
        ("fl\udce4chen", r"fl\xe4chen"),
        ("\udce7\udc8c\udcab", "\u732b"),  # its three bytes, as a system without UTF-8 reads them
        ("\udcc2\udc9b31m", r"\x9b31m"),
        ("\ud800 of a table", r"\ud800 of a table"),
    ],
)
def test_a_name_is_shown_without_what_moves_a_cursor_or_has_no_encoding(name, shown):
    text = readable(name)
    assert text == (name if shown is None else shown) == readable(text)
    text.encode()


@pytest.mark.parametrize("text", ["plain", "fl\udce4chen", "\ud800", "\udce7\udc8c\udcab \u732b\n"])
def test_a_text_comes_back_whatever_names_it_holds(tmp_path, text):
    write_text(tmp_path / "text", text)
    assert read_text(tmp_path / "text") == text


@pytest.fixture
def _homeless(monkeypatch):
    """No $HOME, and a user that the machine does not know."""

    def unknown(number):
        raise KeyError(number)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)


@pytest.mark.usefixtures("_homeless")
def test_without_a_home_the_cache_is_where_the_environment_says(monkeypatch):
    monkeypatch.setenv("KAO_CACHE", "/somewhere")
    assert cache_folder() == Path("/somewhere")
    monkeypatch.delenv("KAO_CACHE")
    with pytest.raises(ConfigError, match=r"HOME is not set.*set KAO_CACHE to a folder"):
        cache_folder()
    with pytest.raises(ConfigError, match=r"~/faces begins in the home directory ~.*HOME"):
        at_home("~/faces")


def test_a_home_is_written_out_and_one_of_nobody_refused(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert at_home("~/faces") == Path("/home/me/faces")
    assert at_home("a/~/b") == Path("a/~/b")
    with pytest.raises(ConfigError, match="~nobody-of-that-name"):
        at_home("~nobody-of-that-name/faces")


def test_a_cache_that_cannot_be_written_says_how_to_have_another(monkeypatch, tmp_path):
    monkeypatch.setenv("KAO_CACHE", str(tmp_path))
    with pytest.raises(OutputError, match="set KAO_CACHE"), writing(tmp_path / "prepared" / "x"):
        raise PermissionError(errno.EACCES, "Permission denied")
    with pytest.raises(OutputError, match="choose another place"), writing(tmp_path.parent / "x"):
        raise PermissionError(errno.EACCES, "Permission denied")


@pytest.mark.parametrize("letter", ["a", "\u732b"])
def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path, letter):
    path = tmp_path / (letter * (255 // len(letter.encode())))
    write_text(path, "whole")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["whole"]
