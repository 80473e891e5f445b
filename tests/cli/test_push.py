"""`kao push`."""

import pytest


def test_a_dry_run_writes_what_would_be_pushed(kao, tiny_run, tmp_path):
    code, out, err = kao("push", tiny_run, "me/faces", "--dry-run", tmp_path / "look")
    assert (code, out) == (0, "") and "nothing was" in err and "--data-licence" in err
    assert "# faces" in (tmp_path / "look" / "README.md").read_text()
    assert "diffusers cannot load it: " in err


def test_swapped_arguments_are_told(refused, tiny_run):
    said = f"There is no run directory me/faces, and {tiny_run} is a folder: the run comes first"
    assert said in refused("push", "me/faces", tiny_run)


def test_a_folder_that_holds_something_is_never_replaced(refused, tiny_run, tmp_path):
    (tmp_path / "model_index.json").write_text("mine")
    message = refused("push", tiny_run, "me/faces", "--dry-run", tmp_path)
    assert message.startswith("--dry-run") and "holds something already" in message
    assert [file.name for file in tmp_path.iterdir()] == ["model_index.json"]


@pytest.mark.parametrize("name", ["faces", "me/fa ces", "a/b/c", "me/-faces", "me/a--b", "me/.."])
@pytest.mark.parametrize("dry", [False, True])
def test_what_is_no_name_of_the_hub_is_refused_before_anything(
    refused, tiny_run, tmp_path, name, dry
):
    more = ("--dry-run", tmp_path / "look") if dry else ()
    assert "expected owner/name" in refused("push", tiny_run, name, *more)
    assert not (tmp_path / "look").exists()


@pytest.mark.parametrize("licence", ["CC BY 4.0", "MIT", "mit: mine", "mit\nx: y"])
def test_a_licence_that_is_no_identifier_is_refused(refused, tiny_run, tmp_path, licence):
    message = refused(
        "push", tiny_run, "me/faces", "--licence", licence, "--dry-run", tmp_path / "look"
    )
    assert "cc-by-4.0" in message and not (tmp_path / "look").exists()


@pytest.fixture
def hub(monkeypatch):
    pushed = []

    def push_folder(folder, name, *, private, update):
        pushed.append((sorted(f.name for f in folder.iterdir()), name, private, update))
        return "https://huggingface.co/me/faces"

    monkeypatch.setattr("kao.exchange.hub.check_hub", lambda name: None)
    monkeypatch.setattr("kao.exchange.hub.push_folder", push_folder)
    return pushed


def test_a_push_says_where_the_model_is(kao, hub, tiny_run):
    code, _, err = kao("push", tiny_run, "me/faces", "--private", "--data-licence", "mine")
    assert code == 0 and "https://huggingface.co/me/faces" in err
    ((files, *asked),) = hub
    assert "kao.safetensors" in files and asked == ["me/faces", True, False]


def test_a_model_that_draws_training_pictures_is_pushed_by_force_alone(
    kao, refused, hub, tiny_run, monkeypatch
):
    monkeypatch.setattr("kao.runs.publishing.copied", lambda run, given: "7 of 9 are copies.")
    assert "--force" in refused("push", tiny_run, "me/faces")
    assert hub == []
    code, _, err = kao("push", tiny_run, "me/faces", "--force")
    assert code == 0 and "7 of 9 are copies." in err and len(hub) == 1
