"""Every mistake of a user's is answered once, by its words."""

import errno
import os
from typing import get_args, get_type_hints

import pytest

from kao.checkpoints import Checkpoint
from kao.cli import app
from kao.cli.edit import edit_app
from kao.errors import ConfigError
from kao.runs import Run
from kao.tracking import read_events

# --- mistakes in pictures -----------------------------------------------------------------------


def test_a_missing_folder_is_named(refused, tmp_path):
    said = refused("train", tmp_path / "nowhere", "--run", tmp_path / "run")
    assert said.startswith(f"There is no folder or ZIP file {tmp_path / 'nowhere'}: check the path")
    assert not (tmp_path / "run").exists()


def test_an_empty_folder_is_named(refused, faces, tmp_path):
    said = refused("train", faces(0), "--run", tmp_path / "run")
    assert said.startswith(f"{tmp_path / 'faces'} holds no picture; expected two or more of .avif")


def test_a_folder_that_cannot_be_read_is_named(refused, faces, tmp_path, monkeypatch):
    def closed(path):
        raise PermissionError(errno.EACCES, "Permission denied")

    folder = faces(3)
    monkeypatch.setattr("kao.data.storage.os.scandir", closed)
    said = refused("train", folder, "--run", tmp_path / "run")
    assert said == f"The folder {folder} cannot be read (Permission denied): check its permissions."


def test_pictures_that_are_none_are_counted_and_the_first_is_named(refused, faces, tmp_path):
    folder = faces(0)
    for name in "abc":
        (folder / f"{name}.png").write_text("no picture")
    said = refused("train", folder, "--run", tmp_path / "run")
    assert said.startswith("0 of 3 pictures could be read; expected two or more. The first that")
    assert "a.png is not a picture" in said


def test_one_picture_is_too_few(refused, faces, tmp_path):
    said = refused("train", faces(1), "--run", tmp_path / "run")
    assert said.startswith(f"{tmp_path / 'faces'} holds one picture, 0.png; expected two or more")


@pytest.mark.parametrize("command", ["train", "prepare"])
def test_a_class_that_is_not_there_is_told_the_near_miss(command, refused, train):
    words = {
        "train": (*train, 'data.classes=["dgo"]'),
        "prepare": ("prepare", "toy:8", "--class", "dgo"),
    }
    said = refused(*words[command])
    assert said.startswith(
        'Toy faces have no class "dgo" (did you mean "dog"?): choose from anime,'
    )


# --- mistakes in words --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            ("network.levels=[1,2,2]", "--size", "18"),
            "network.levels = [1, 2, 2] with stem = 1 needs a size that is a multiple of 4, and "
            "data.size = 18: try 16, or fewer levels.",
        ),
        (
            ("network.widht=9",),
            'unknown key "widht" in [network] of the command line (did you mean "width"?); '
            "[network] has: width, levels, blocks,",
        ),
        (("network.width=wide",), "network.width = 'wide' in the command line; expected a whole"),
        (
            ("target=eps", "schedule=flow"),
            'target = "eps" does not go with a schedule that ends in pure noise, since it does not',
        ),
        (
            ("training.precision=fp16",),
            "training.precision = 'fp16' on a CPU would be emulated, many times slower than fp32",
        ),
        (("another",), '"another" is one word too many: expected FACES, then perhaps a recipe'),
        (("--steps", "3", "--minutes", "3"), "--minutes and --steps both set the length: give one"),
        (("--steps", "0"), 'length = "0 steps"; expected a number above 0 and a unit'),
        (("--images", "many"), 'length = "many images"; expected a number above 0 and a unit'),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_written(
    more, said, refused, train, tmp_path
):
    assert refused(*train, *more).startswith(said)
    assert not (tmp_path / "run").exists()


def test_an_unknown_recipe_is_told_the_near_miss(refused, tmp_path):
    said = refused("train", "toy:8", "faces-23", "--run", tmp_path / "run")
    assert said.startswith(
        'unknown recipe "faces-23" (did you mean "faces-32"?); there are: adm-32'
    )


def test_a_run_without_pictures_is_refused(refused, tmp_path):
    for words in ((), ("--run", tmp_path / "run")):
        assert refused("train", *words).startswith("No pictures are named: give a folder or a zip")


def test_a_run_directory_of_another_configuration_says_which_keys_differ(
    refused, own_run, train, tmp_path
):
    assert refused(*train, "network.width=16", "seed=1", "--steps", "4") == (
        f"{own_run} belongs to another configuration: seed = 0 there and 1 now; network.width = 8 "
        f"there and 16 now. Give the same settings to go on with it, add --branch NEW_RUN to go on "
        f"from its weights in a run of its own, or begin anew with another --run."
    )


# --- places that cannot be written --------------------------------------------------------------


def test_a_file_in_the_way_of_the_run_is_named(refused, train, tmp_path, kao):
    (tmp_path / "run").write_text("mine")
    assert refused(*train, "--steps", "2") == (
        f"{tmp_path / 'run'} cannot be written, since a file or folder of that name is in the way: "
        f"choose another place."
    )
    assert (tmp_path / "run").read_text() == "mine"


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "The disk is full while writing {}: free some space, or choose another"),
        (errno.EACCES, "{} is not writable: change its permissions, or choose another place."),
        (errno.EROFS, "{} is not writable: change its permissions, or choose another place."),
        (errno.EIO, "{} cannot be written: "),
    ],
)
def test_a_disk_that_takes_no_more_is_told_of(
    number, said, refused, train, kao, tmp_path, monkeypatch
):
    assert kao("prepare", "toy:8", "--size", "16")[0] == 0

    def fails(path):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("kao.files.sync", fails)
    place = tmp_path / "run" / "run.toml"
    assert refused(*train, "--steps", "2").startswith(said.format(place))


def test_a_disk_that_fills_up_while_training_keeps_the_checkpoints_before(
    kao, train, tmp_path, monkeypatch
):
    from kao import files

    def fills(path, sync=files.sync):
        if any(name in str(path) for name in ("000000008", "000000012", "000000016")):
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(path)

    monkeypatch.setattr("kao.files.sync", fills)
    code, _, err = kao(*train, "hooks.checkpoints=4", "--steps", "4")
    assert code == 2
    place = tmp_path / "run" / "checkpoints"
    said = err.splitlines()
    (told,) = (line for line in said if line.startswith("The disk is full"))
    assert told.startswith(f"The disk is full while writing {place / '000000008'}: free")
    assert "The run goes on and tries again." in told
    assert said[-1].startswith(f"kao: The disk is full while writing {place / '000000016'}: free")
    assert said[-1].endswith(f"Nothing newer than 4 images of {tmp_path / 'run'} is saved.")
    assert [c.path.name for c in Checkpoint.all(tmp_path / "run")] == ["000000004"]
    assert read_events(tmp_path / "run")[-1]["reason"] == "failed"
    monkeypatch.undo()
    assert kao(*train, "--steps", "4")[0] == 0


@pytest.mark.parametrize("option", ["--grid", "--npz"])
def test_what_is_no_file_is_not_replaced_by_one(option, kao, tiny_run, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    code, _, err = kao("sample", tiny_run, "--n", "2", option, pipe)
    said = f"kao: {pipe} is in the way, since it is no file: choose another place.\n"
    assert (code, err) == (2, said)
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    ("option", "name", "said"),
    [
        ("--grid", "x.xyz", "the grid is written as .png: give it that ending."),
        ("--npz", "x.png", "the array is written as .npz: give it that ending."),
    ],
)
def test_a_wrong_ending_is_refused_before_anything_is_drawn(
    option, name, said, refused, tiny_run, tmp_path, undrawn
):
    place = tmp_path / name
    assert refused("sample", tiny_run, option, place) == f"{option} = {place}, but {said}"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--out", "--grid", "--npz"])
def test_a_place_below_a_file_is_refused_before_anything_is_drawn(
    option, refused, tiny_run, tmp_path, undrawn
):
    (tmp_path / "file").write_text("in the way")
    place = tmp_path / "file" / "new" / "x"
    said = refused("sample", tiny_run, option, place)
    assert said.startswith(f"{place} cannot be written, since a file or folder of that name is in")


@pytest.fixture
def undrawn(monkeypatch):
    """A model that is not to be loaded."""

    def load(*words, **names):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(Run, "denoiser", load)


# --- damage -------------------------------------------------------------------------------------


def test_a_damaged_checkpoint_is_told_of_and_the_one_before_is_drawn_with(kao, own_run, tmp_path):
    file = own_run / "checkpoints" / "000000016" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    code, _, err = kao("sample", own_run, "--n", "2", "--grid", tmp_path / "grid.png")
    assert code == 0
    assert err.startswith(f"{file} has ")
    assert " bytes where " in err and ": drawing with 000000008 instead.\n" in err
    assert (tmp_path / "grid.png").exists()


def test_a_damaged_checkpoint_is_told_of_and_the_one_before_is_trained_on(kao, own_run, train):
    (own_run / "checkpoints" / "000000016" / "trainer.pt").unlink()
    code, _, err = kao(*train, "--steps", "4")
    assert code == 0
    assert "000000016/trainer.pt is missing: going back to 000000008.\n" in err
    assert f"Going on with {own_run} at 8 images (50 % of 4 steps).\n" in err
    assert f"Finished at 16 images after 0.0 minutes. Draw with: kao sample {own_run}\n" in err


def test_a_run_that_is_damaged_throughout_is_refused(refused, own_run, train):
    for file in own_run.glob("checkpoints/*/model.safetensors"):
        file.unlink()
    assert "has no whole checkpoint to go on from (" in refused(*train, "--steps", "4")
    assert "has no whole checkpoint yet; damaged: " in refused("sample", own_run)


@pytest.mark.parametrize("command", ["sample", "show", "report"])
def test_what_is_no_run_is_said_to_be_none(command, refused, tmp_path):
    assert refused(command, tmp_path / "gone").startswith("There is no run directory")
    assert "is not a run directory, since it has no run.toml" in refused(command, tmp_path)


def test_a_name_that_is_too_long_is_refused_before_the_work(
    refused, own_run, tmp_path, monkeypatch
):
    monkeypatch.setattr("kao.runs.run.draw", lambda *_, **__: pytest.fail("it was drawn"))
    monkeypatch.setattr("kao.runs.draw", lambda *_, **__: pytest.fail("it was drawn"))
    assert "File name too long" in refused("sample", own_run, "--grid", tmp_path / ("a" * 300))


COMMANDS = [*app.registered_commands, *edit_app.registered_commands]
NUMBERS = [
    (command.callback, name)
    for command in COMMANDS
    for name, hint in get_type_hints(command.callback).items()
    if int in (hint, *get_args(hint))
]


@pytest.mark.parametrize(("command", "name"), NUMBERS)
def test_a_whole_number_of_more_than_64_bits_is_refused_before_a_command_runs(command, name):
    for value in (10**20 - 1, -(10**20)):
        with pytest.raises(ConfigError, match=f"^--{name.replace('_', '-')} = {value}; expected"):
            command(**{name: value})


def test_flags_of_twenty_and_of_thousands_of_digits_are_refused(refused):
    said = refused("sample", "run", "--seed", "9" * 20)
    assert said.startswith("--seed = 99999999999999999999; expected a whole number of at most 9,22")
    assert "expected a whole number of fewer digits" in refused("sample", "x", "-n", "9" * 5000)
    assert "expected fewer" in refused("train", "toy", "--images", "9" * 20)


def test_a_long_list_is_not_repeated_whole(refused, tmp_path):
    file = tmp_path / "long.toml"
    file.write_text(f"seed = [{', '.join(['1'] * 10_000)}]")
    said = refused("train", "toy", file, "--dry-run")
    assert said.startswith("seed = [1, 1, 1") and said.endswith("expected a whole number.")
    assert len(said) < 3_000
