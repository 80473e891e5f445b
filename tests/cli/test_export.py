"""`kao export` and `kao push`."""

import pytest


def test_weights_are_exported_and_read_back_as_a_run(kao, tiny_run, tmp_path):
    file = tmp_path / "mine.safetensors"
    code, out, err = kao("export", tiny_run, "--to", "safetensors", "--out", file)
    assert (code, out) == (0, "") and str(file) in err
    code, _, err = kao("import", file, "--run", tmp_path / "back")
    assert code == 0, err
    code, _, err = kao(
        "sample", tmp_path / "back", "--n", "2", "--grid", tmp_path / "a.png", "--batch", "2"
    )
    assert code == 0, err
    kao("sample", tiny_run, "--n", "2", "--grid", tmp_path / "b.png", "--batch", "2")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_form_that_there_is_not_is_refused(refused, tiny_run, tmp_path):
    message = refused("export", tiny_run, "--to", "onx", "--out", tmp_path / "out")
    assert 'did you mean "onnx"' in message


def test_a_folder_of_other_things_is_not_replaced(refused, tiny_run, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    for words in (
        ("export", tiny_run, "--to", "diffusers", "--out", folder),
        ("push", tiny_run, "me/faces", "--dry-run", folder),
    ):
        assert "did not export" in refused(*words)
    assert (folder / "notes.txt").read_text() == "mine"


def test_what_diffusers_lacks_is_refused_in_one_line(refused, tiny_run, tmp_path):
    message = refused("export", tiny_run, "--to", "diffusers", "--out", tmp_path / "out")
    assert "network." in message and not (tmp_path / "out").exists()


def test_a_dry_run_writes_what_would_be_pushed(kao, tiny_run, tmp_path):
    for _ in range(2):  # its own folder is replaced
        code, out, err = kao("push", tiny_run, "me/faces", "--dry-run", tmp_path / "look")
        assert (code, out) == (0, "") and "nothing was" in err and "--data-licence" in err
    assert "# faces" in (tmp_path / "look" / "README.md").read_text()


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
