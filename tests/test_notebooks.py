"""The notebooks run from their first cell to their last."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))

SMALL = (
    "network.width=16",
    "network.blocks=1",
    "hooks.pictures=4",
    "hooks.samples=128",
    "evaluation.every=64",
    "evaluation.pictures=16",
    "sampling.steps=4",
)


def test_there_is_a_notebook():
    assert [path.name for path in NOTEBOOKS] == ["finetune_anime.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_what_it_printed(path):
    cells = nbformat.read(path, as_version=4).cells
    assert [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_on_toy_faces(path, tmp_path, monkeypatch):
    monkeypatch.setenv("KAO_NOTEBOOK_BASE_IMAGES", "128")
    monkeypatch.setenv("KAO_NOTEBOOK_IMAGES", "128")
    monkeypatch.setenv("KAO_NOTEBOOK_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("KAO_NOTEBOOK_OPTIONS", " ".join(SMALL))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": tmp_path}}, env=os.environ
    )
    client.execute()
    shown = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(shown) == 4  # the base, from scratch, fine-tuned, the curves
    assert (tmp_path / "runs/tuned/run.toml").is_file()
