import errno
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from kao.checkpoints import SNAPSHOTS, Snapshot
from kao.errors import CheckpointError, OutputError

WIDTHS = {"w0.050": 0.05, "w0.250": 0.25}


def averages(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: {
            "conv.weight": torch.randn(4, 3, 3, 3, generator=generator),
            "scale": torch.tensor(0.7),
        }
        for name in WIDTHS
    }


def write(run, images, tensors=None):
    run.mkdir(exist_ok=True)
    return Snapshot.write(run, images=images, averages=tensors or averages(images), widths=WIDTHS)


def test_a_snapshot_gives_back_what_it_was_given_in_half_precision(tmp_path):
    snapshot = write(tmp_path, 640)
    assert snapshot.path == tmp_path / SNAPSHOTS / "000000640.safetensors"
    assert snapshot.images == 640
    assert snapshot.widths() == WIDTHS
    back = snapshot.averages()
    assert back.keys() == WIDTHS.keys()
    for own, tensors in averages(640).items():
        assert back[own].keys() == tensors.keys()
        for name, value in tensors.items():
            assert back[own][name].dtype == torch.float16
            assert torch.equal(back[own][name], value.half())


def test_names_and_metadata_are_for_other_readers_too(tmp_path):
    path = write(tmp_path, 640).path
    with safe_open(path, framework="pt") as file:
        assert "w0.050/conv.weight" in file.keys()
        facts = json.loads(file.metadata()["snapshot"])
    assert facts["images"] == 640
    assert facts["widths"] == WIDTHS


def test_equal_snapshots_are_equal_bytes(tmp_path):
    files = [write(tmp_path / str(i), 640, averages()).path.read_bytes() for i in range(8)]
    assert len(set(files)) == 1


def test_what_half_precision_cannot_hold_stays_as_it_is(tmp_path):
    tensors = averages()
    tensors["w0.050"]["scale"] = torch.tensor(1e6)
    back = write(tmp_path, 1, tensors).averages()
    assert back["w0.050"]["scale"].item() == 1e6
    assert back["w0.050"]["conv.weight"].dtype == torch.float16


def test_the_model_is_only_read(tmp_path):
    tensors = averages()
    write(tmp_path, 1, tensors)
    assert all(torch.equal(tensors[own]["scale"], torch.tensor(0.7)) for own in tensors)
    assert tensors["w0.050"]["conv.weight"].dtype == torch.float32


def test_snapshots_are_listed_oldest_first_and_strangers_are_not(tmp_path):
    for images in (12_800, 640, 1_000_000_000):
        write(tmp_path, images)
    (tmp_path / SNAPSHOTS / "notes.safetensors").write_bytes(b"")
    (tmp_path / SNAPSHOTS / ".000000001.safetensors.77").write_bytes(b"half")
    assert [snapshot.images for snapshot in Snapshot.all(tmp_path)] == [640, 12_800, 1_000_000_000]


def test_a_run_without_snapshots_has_none(tmp_path):
    assert Snapshot.all(tmp_path) == []
    Snapshot.drop(tmp_path, newer_than=0)


def test_what_is_later_than_the_images_that_a_run_goes_on_from_goes(tmp_path):
    for images in (100, 200, 300):
        write(tmp_path, images)
    Snapshot.drop(tmp_path, newer_than=200)
    assert [snapshot.images for snapshot in Snapshot.all(tmp_path)] == [100, 200]


def test_a_full_disk_is_told_and_leaves_no_file(tmp_path, monkeypatch):
    write(tmp_path, 5)

    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"disk is full while writing .*000000010"):
        write(tmp_path, 10)
    assert [path.name for path in (tmp_path / SNAPSHOTS).iterdir()] == ["000000005.safetensors"]


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)


def strip(path):
    save_file(load_file(path), path)


@pytest.mark.parametrize("harm", [truncate, flip, strip, lambda path: path.write_bytes(b"{")])
def test_a_damaged_snapshot_is_told_by_its_name_and_what_to_do(tmp_path, harm):
    snapshot = write(tmp_path, 640)
    harm(snapshot.path)
    with pytest.raises(CheckpointError, match=r"000000640\.safetensors is damaged \(.+\): remove"):
        snapshot.averages()
