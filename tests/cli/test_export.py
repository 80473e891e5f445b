"""`kao export`."""

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


@pytest.mark.parametrize("name", ["notes.txt", "model_index.json", ".git"])
def test_a_folder_that_holds_something_is_never_replaced(refused, tiny_run, tmp_path, name):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / name).write_text("mine")
    for form in ("diffusers", "onnx"):
        message = refused("export", tiny_run, "--to", form, "--out", folder)
        assert "holds something already" in message and str(folder) in message
    assert [file.read_text() for file in tmp_path.rglob("*") if file.is_file()] == ["mine"]


def test_what_diffusers_lacks_is_refused_in_one_line(refused, tiny_run, tmp_path):
    message = refused("export", tiny_run, "--to", "diffusers", "--out", tmp_path / "out")
    assert "network." in message and not (tmp_path / "out").exists()


def test_a_file_that_exists_is_never_replaced(refused, tiny_run, tmp_path):
    place = tmp_path / "mine.safetensors"
    place.write_text("precious")
    message = refused("export", str(tiny_run), "--to", "safetensors", "--out", str(place))
    assert "exists already, and is not replaced" in message
    assert place.read_text() == "precious"
