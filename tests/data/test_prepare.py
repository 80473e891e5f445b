import errno
import importlib
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from kao.data.folders import FolderSource
from kao.data.item import Item
from kao.data.pictures import fit
from kao.data.prepare import Preparation, prepare
from kao.data.prepared import PreparedSet
from kao.errors import ConfigError, DataError, OutputError
from kao.files import cache_folder

# The package exports the function under the name of its module.
module = importlib.import_module("kao.data.prepare")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KAO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "prepared"


class Drawn:
    """A source of random pictures; those in `bad` cannot be read."""

    def __init__(self, count=40, *, bad=(), error=DataError, classes=("cat", "dog")):
        self.count, self.bad, self.error, self.classes = count, bad, error, classes
        self.fingerprint = f"drawn-{count}-{classes}"
        self.asked = 0

    def __repr__(self):
        return f"Drawn({self.count})"

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.asked += 1
        if index in self.bad:
            raise self.error(f"picture {index} is bad")
        generator = torch.Generator().manual_seed(index)
        image = torch.randint(0, 256, (3, 12, 16), dtype=torch.uint8, generator=generator)
        label = index % 2 if self.classes else None
        return Item(image, f"{index}.png", label, f"number {index}" if index % 3 else None)


def test_a_prepared_set_holds_what_the_source_holds():
    source = Drawn()
    prepared = prepare(source, size=8, workers=3)
    assert len(prepared) == 40
    assert prepared.images.shape == (40, 3, 8, 8)
    assert prepared.images.dtype == np.uint8
    assert prepared.labels.tolist() == [0, 1] * 20
    assert prepared.labels.dtype == np.int64
    assert prepared.classes == ("cat", "dog")
    assert prepared.keys == [f"{index}.png" for index in range(40)]
    assert prepared.captions[:3] == [None, "number 1", "number 2"]
    for index in (0, 17, 39):
        there = fit(source[index].image, size=8, crop="centre", name="x").numpy()
        assert (prepared.images[index] == there).all()


def test_the_pictures_cannot_be_overwritten():
    with pytest.raises(ValueError, match="read-only"):
        prepare(Drawn(), size=8).images[0] = 0


def test_number_of_workers_changes_nothing():
    sets = [
        Preparation(Drawn(), size=8, workers=workers, out=cache_folder() / str(workers)).finish()
        for workers in (1, 2, 7)
    ]
    assert len({one.fingerprint for one in sets}) == 1


def test_a_source_without_classes_or_captions_has_none(tmp_path):
    for seed in (0, 1):
        pixels = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{seed}.png")
    prepared = prepare(FolderSource(tmp_path), size=9, crop="none")
    assert (prepared.labels, prepared.captions, prepared.classes) == (None, None, ())
    assert prepared.audit.encodings == {"PNG RGB": 2}
    assert not (prepared.path / "skipped.txt").exists()


def test_the_manifest_says_what_the_set_was_made_from():
    prepared = prepare(Drawn(), size=8, crop="pad")
    told = json.loads((prepared.path / "manifest.json").read_text())
    assert told["source"] == "Drawn(40)"
    assert told["source_fingerprint"] == Drawn().fingerprint
    assert (told["count"], told["size"], told["crop"]) == (40, 8, "pad")
    assert len(told["fingerprint"]) == 64


def test_pictures_that_cannot_be_read_are_skipped_and_named():
    prepared = prepare(Drawn(bad={3, 20}), size=8)
    assert len(prepared) == len(prepared.images) == len(prepared.captions) == 38
    assert "3.png" not in prepared.keys
    assert prepared.labels.tolist() == [index % 2 for index in range(40) if index not in (3, 20)]
    assert prepared.audit.skipped == ("picture 3 is bad", "picture 20 is bad")
    assert (prepared.path / "skipped.txt").read_text() == "picture 3 is bad\npicture 20 is bad\n"


@pytest.mark.parametrize("error", [OSError, MemoryError, RuntimeError])
def test_a_picture_too_large_for_the_memory_is_skipped_and_named(error, monkeypatch):
    def too_large(image, *, name, **options):
        if name == "7.png":
            raise error("out of memory\nat line 1")
        return fit(image, name=name, **options)

    monkeypatch.setattr(module, "fit", too_large)
    prepared = prepare(Drawn(), size=8)
    said = "7.png cannot be prepared (out of memory): copy it again or delete it."
    assert prepared.audit.skipped == (said,)
    assert len(prepared) == 39


def test_fewer_than_two_readable_pictures_are_refused_and_nothing_is_left(cache):
    with pytest.raises(DataError, match=r"1 of 40 pictures .* could not: picture 0 is bad"):
        prepare(Drawn(bad=set(range(39))), size=8)
    assert list(cache.iterdir()) == []


def test_progress_is_a_loop_in_the_caller():
    preparation = Preparation(Drawn(), size=8, workers=1)
    assert list(preparation) == [16, 32, 40]
    assert list(preparation) == []
    assert len(preparation.finish()) == 40


# ------------------------------------------------------------------------------- reuse and redo


def test_what_was_prepared_is_reused():
    first = prepare(Drawn(), size=8)
    again = Drawn()
    second = prepare(again, size=8)
    assert again.asked == 0
    assert second.path == first.path
    assert second.manifest == first.manifest


def test_whether_a_set_stands_is_told_without_preparing_it(cache):
    source = Drawn()
    assert Preparation(source, size=8).standing() is None
    assert source.asked == 0 and not cache.exists()
    prepared = prepare(source, size=8)
    assert Preparation(source, size=8).standing().manifest == prepared.manifest
    assert Preparation(Drawn(41), size=8, out=prepared.path).standing() is None


def test_another_size_crop_class_or_content_is_another_set():
    paths = {
        Preparation(source, size=size, crop=crop).path
        for source in (Drawn(), Drawn(41), Drawn(classes=("dog", "cat")))
        for size in (8, 16)
        for crop in ("centre", "pad")
    }
    assert len(paths) == 12


def test_a_changed_folder_is_prepared_anew_even_where_the_set_is_inside_it(tmp_path):
    for name in ("a", "b"):
        Image.new("RGB", (9, 9), "red").save(tmp_path / f"{name}.png")
    out = tmp_path / "set"
    first = prepare(FolderSource(tmp_path), size=8, out=out)
    assert prepare(FolderSource(tmp_path), size=8, out=out).manifest == first.manifest
    Image.new("RGB", (9, 9), "blue").save(tmp_path / "c.png")
    second = prepare(FolderSource(tmp_path), size=8, out=out)
    assert (len(first), len(second)) == (2, 3)
    assert first.images[0, 0, 0, 0] == 255  # the old map stays readable
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    "name", ["images.u8", "manifest.json", "keys.json", "labels.npy", "groups.npy"]
)
def test_a_damaged_set_says_so_and_is_prepared_anew(name):
    path = prepare(Drawn(), size=8).path
    whole = (path / name).read_bytes()
    (path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=f"is damaged \\({name}.* run `kao prepare` again"):
        PreparedSet.open(path)
    assert len(prepare(Drawn(), size=8)) == 40
    (path / name).unlink()
    with pytest.raises(DataError, match="run"):
        PreparedSet.open(path)
    assert len(prepare(Drawn(), size=8)) == 40


def test_counts_that_disagree_are_damage():
    path = prepare(Drawn(), size=8).path
    (path / "captions.json").write_text("[null]")
    with pytest.raises(DataError, match=r"captions\.json holds 1 entries instead of 40"):
        PreparedSet.open(path)


def test_a_set_of_another_format_is_refused():
    path = prepare(Drawn(), size=8).path
    told = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(told | {"format": 99}))
    with pytest.raises(DataError, match="of format 99"):
        PreparedSet.open(path)


def test_a_folder_that_is_no_prepared_set_is_refused(tmp_path):
    with pytest.raises(DataError, match="is not a prepared set"):
        PreparedSet.open(tmp_path)


def test_an_opened_set_is_handed_to_other_processes_by_its_path():
    prepared = prepare(Drawn(200), size=32)
    data = pickle.dumps(prepared)
    assert len(data) < 2_000
    assert (pickle.loads(data).images == prepared.images).all()


# -------------------------------------------------------------------------------- whole or absent


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_an_exception_in_the_middle_leaves_nothing(cache, error):
    with pytest.raises(error):
        prepare(Drawn(bad={25}, error=error), size=8)
    assert list(cache.iterdir()) == []


def test_leaving_the_loop_leaves_nothing(cache):
    steps = iter(Preparation(Drawn(), size=8, workers=1))
    next(steps)
    assert len(list(cache.iterdir())) == 1
    steps.close()
    assert list(cache.iterdir()) == []


def test_an_interrupt_at_any_moment_leaves_nothing_or_a_whole_set(cache, tmp_path):
    script = tmp_path / "slow.py"
    script.write_text(
        "import signal, time, torch\n"
        # Whoever runs the tests in the background may have had it ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from kao.data.item import Item\n"
        "from kao.data.prepare import prepare\n"
        "class Slow:\n"
        "    fingerprint, classes = 'slow', ()\n"
        "    def __len__(self): return 100_000\n"
        "    def __getitem__(self, index):\n"
        "        time.sleep(0.002)\n"
        "        return Item(torch.zeros(3, 8, 8, dtype=torch.uint8), str(index))\n"
        "print('ready', flush=True)\n"
        "prepare(Slow(), size=8)\n"
    )
    with subprocess.Popen([sys.executable, script], stdout=-1, stderr=-1) as process:
        process.stdout.readline()
        deadline = time.monotonic() + 30
        while not (cache.is_dir() and list(cache.iterdir())) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
        assert b"KeyboardInterrupt" in process.stderr.read()
    assert list(cache.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_what_a_live_one_writes_is_not(cache):
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    path = Preparation(Drawn(), size=8).path
    left = module._beside(path)
    old = left.with_name(left.name.replace(f".{os.getpid()}.", f".{dead.pid}."))
    for partial in (left, old):
        partial.mkdir(parents=True)
        (partial / "images.u8").write_bytes(b"half")
    prepare(Drawn(), size=8)
    assert left.is_dir()
    assert not old.exists()


def test_a_set_that_another_process_finished_meanwhile_is_reused():
    steps = iter(Preparation(Drawn(), size=8, workers=1))
    next(steps)
    other = prepare(Drawn(), size=8)
    created = (other.path / "manifest.json").stat().st_mtime_ns
    assert list(steps) == [32, 40]
    assert (other.path / "manifest.json").stat().st_mtime_ns == created
    assert [path.name for path in other.path.parent.iterdir()] == [other.path.name]


# --------------------------------------------------------------------------------- places, options


def test_a_full_disk_says_how_much_was_needed(cache, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.np, "save", full)
    with pytest.raises(OutputError, match=r"needs 2 MB, and the disk is full: .*KAO_CACHE"):
        prepare(Drawn(), size=128)
    assert list(cache.iterdir()) == []


def test_too_small_a_disk_is_refused_before_the_work(monkeypatch):
    source = Drawn()
    small = SimpleNamespace(total=9, used=9, free=0)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: small)
    with pytest.raises(OutputError, match="needs 2 MB, and 0 MB are free"):
        prepare(source, size=128)
    assert source.asked == 0


def test_a_place_that_is_taken_is_refused_and_kept(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    for out in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(OutputError, match="is in the way, for it is not a prepared set"):
            prepare(Drawn(), size=8, out=out)
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_a_place_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="in the way"):
        prepare(Drawn(), size=8, out=tmp_path / "file" / "set")


def test_sizes_workers_and_crops_that_cannot_work_are_refused():
    for options, says in (
        ({"size": 7}, "size = 7; expected 8"),
        ({"size": 8, "workers": 0}, "workers = 0"),
        ({"size": 8, "crop": "middle"}, "crop = 'middle'"),
    ):
        with pytest.raises(ConfigError, match=says):
            Preparation(Drawn(), **options)


def test_the_bar_counts_on_a_terminal_and_is_silent_elsewhere(capsys, monkeypatch):
    prepare(Drawn(), size=8)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(module.sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert len(prepare(Drawn(41), size=8)) == 41
    assert "41/41" in capsys.readouterr().err
