"""A run may be killed at any moment, and ends as if it had not been."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load

from kao.checkpoints import Checkpoint, Snapshot
from kao.tracking import read_events

KILLS = 20
STEPS = 90

RECIPE = """
[schedule]
kind = "vp_cosine"
[optimizer]
method = "adamw"
schedule = { kind = "trapezoid", warmup = 30, cooldown = 0.4 }
"""  # of its own, since those of the package are tuned now and then
WORDS = (
    "training.batch=3",  # so that an epoch of eight pictures ends within a batch
    "network.dropout=0.2",
    "data.augment.crop=2",
    "loss.times.kind=loss_moment",  # a loss that remembers
    "loss.times.bins=2",
    "loss.times.warmup=1",
    "loss.uncertainty=true",
    "ema.widths=[0.1,0.2]",
    "ema.snapshots=45",
    "hooks.log=9",
    "hooks.samples=9999",
    "hooks.checkpoints=6",
    "hooks.keep_last=2",
    "hooks.pictures=1",
    "sampling.steps=1",
    f"length={STEPS} steps",
)


def learned(run):
    """The SHA-256 of all that a run learned, by file."""
    files = [*Checkpoint.all(run)[-1].path.glob("*.safetensors")]
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    for snapshot in Snapshot.all(run):  # whose metadata stand in any order
        tensors = load(snapshot.path.read_bytes())
        raw = b"".join(tensors[name].numpy().tobytes() for name in sorted(tensors))
        digests[f"snapshot {snapshot.images}"] = hashlib.sha256(raw).hexdigest()
    return digests


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_a_run_that_is_killed_twenty_times_ends_with_the_same_bytes(tiny, tmp_path):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    script = Path(__file__).with_name("killed.py")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    words = [sys.executable, script, recipe, straight, killed, str(KILLS), "0", *tiny, *WORDS]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *ends, last = json.loads(done.stdout)
    assert [end for end, _ in ends] == ["killed"] * KILLS
    assert last == ["ended", False]
    # Some kills came while a checkpoint was half written.
    assert sum(partial for _, partial in ends) >= 3

    assert learned(killed) == learned(straight)
    kinds = {"model", "ema-0.999", "ema-w0.100", "loss"}
    assert {f"{kind}.safetensors" for kind in kinds} <= learned(killed).keys()
    assert "snapshot 135" in learned(killed)
    assert Checkpoint.all(killed)[-1].images == 3 * STEPS
    # Nothing is left of what was cut short, and each line of the log is there once.
    assert [c.images for c in Checkpoint.all(killed)] == [
        c.images for c in Checkpoint.all(straight)
    ]
    assert not list(killed.glob("checkpoints/.*"))
    lines = [
        [e["images"] for e in read_events(run) if e["event"] in ("train", "checkpoint")]
        for run in (killed, straight)
    ]
    assert lines[0] == lines[1]
