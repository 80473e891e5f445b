"""Human faces to anime faces: fine-tuning against training from scratch, and what techniques cost.

    python bench/finetuning.py runs/people anime.zip --runs DIR --seeds 0 1

The base is a run of `faces-32` on human faces.  Two parts, each over all seeds:

* scratch and fine-tuned see --images anime faces, with the same network, batch and time an image.
* techniques: fine-tuned again over --short images, each time with one thing changed.

Every run is a process of its own: its processor seconds and largest resident set are told, and
neither depends on what else the machine is doing.  Scores while training come from the run's own
log; at the end 1,000 pictures are compared with 4,000 real ones in two feature spaces.  A run that
stands in --runs already is not trained again.  Prints a line each and writes
bench/results/finetuning.json; --grids DIR writes what each drew.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import torch
from pairs import REAL, SIZE, features, features_of_real
from torch import Tensor

from kao.data.prepare import prepare
from kao.data.sources import open_source
from kao.machine import describe, versions
from kao.metrics import KernelDistance
from kao.metrics.spaces import open_space
from kao.runs import Run, draw
from kao.tracking import read_events
from kao.visualisation import grid, save_picture

OUT = Path(__file__).parent / "results/finetuning.json"
SPACES = ("wavelets", "faces")

HALF, FULL = "optimizer.rate=2e-3", "optimizer.rate=4e-3"
"""Of the rate that the base was trained with."""

LONG = {
    "scratch": [],
    "fine-tuned": [HALF],
    "full-rate": [FULL],
}
"""Over --images; all but the first start from the base."""

SHORT: dict[str, list[str]] = {
    "short-scratch": [],
    "short-tuned": [HALF],
    "short-full-rate": [FULL],
    "fp32": [HALF, "training.precision=fp32"],
    "checkpointing": [HALF, "training.gradient_checkpointing=all"],
    "accumulation": [HALF, "training.micro_batch=16"],
    "patches": [HALF, "training.curriculum=patches"],
    "learned-times": [HALF, "loss.times=loss_moment"],
    "laplace": [HALF, "schedule=laplace"],
}
"""Over --short; what each changes of "short-tuned".  The last two are the optimised noise
schedule: times drawn by the loss, and more of them in the middle (Hang et al. 2024)."""

_FROM_SCRATCH = ("scratch", "short-scratch")
_MIB = 2**20


def command(given: argparse.Namespace, name: str, seed: int, path: Path) -> list[str]:
    """The `kao` command of one run."""
    long = name in LONG
    images = given.images if long else given.short
    words = [*(LONG if long else SHORT)[name], f"seed={seed}"]
    common = ["--run", str(path), "--images", str(images), *words]
    if name in _FROM_SCRATCH:
        return ["train", given.faces, "faces-32", *common]
    return ["finetune", given.base, given.faces, *common]


def trained(given: argparse.Namespace, name: str, seed: int) -> Path:
    """The run, trained unless it stands there; what it took is kept beside it."""
    path = given.runs / f"{name}-{seed}"
    cost = given.runs / f"{name}-{seed}.json"
    if cost.exists() or (path / "run.toml").exists():
        return path
    words = [sys.executable, "-m", "kao", *command(given, name, seed, path)]
    child = subprocess.Popen(words, env=os.environ | {"OMP_NUM_THREADS": "1"})
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {child.returncode}.")
    told = {
        "processor_seconds": used.ru_utime + used.ru_stime,
        "resident_mib": used.ru_maxrss * 1024 / _MIB,
    }
    cost.write_text(json.dumps(told), encoding="utf-8")
    return path


def facts(path: Path, real: Mapping[str, Tensor], *, n: int, grids: Path | None) -> dict[str, Any]:
    """What a run took, how it came along, and how good it is."""
    run = Run.open(path)
    drawn = torch.cat(list(draw(run.denoiser(), run.drawing(), indices=range(n))))
    if grids is not None:
        save_picture(grid(drawn[:32], columns=8), grids / f"{path.name}.png")
    told: dict[str, Any] = {"images": run.checkpoint()[0].images}
    for space, seen in real.items():
        score = KernelDistance(seen)(features(drawn, open_space(space)))
        told |= {space: score.value, f"{space}_error": score.error}
    told["over_time"] = [
        [event["images"], event["score"]["value"], event["score"]["error"]]
        for event in read_events(path)
        if event["event"] == "evaluation"
    ]
    cost = path.with_name(f"{path.name}.json")
    if cost.exists():
        told |= json.loads(cost.read_text(encoding="utf-8"))
    return told


def main() -> None:
    """Train what is missing, score, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("base", help="a run of faces-32 on other faces")
    parser.add_argument("faces", help="a folder or zip file of pictures")
    parser.add_argument("--runs", type=Path, required=True, help="where the runs are or go")
    parser.add_argument("--images", type=int, default=45_000)
    parser.add_argument("--short", type=int, default=15_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--settings", nargs="+", default=[*LONG, *SHORT], choices=[*LONG, *SHORT])
    parser.add_argument("--n", type=int, default=1000, help="pictures drawn from each run")
    parser.add_argument("--grids", type=Path)
    given = parser.parse_args()
    given.runs.mkdir(parents=True, exist_ok=True)

    prepared = prepare(open_source(given.faces, size=SIZE), size=SIZE)
    real = {name: features_of_real(prepared, open_space(name)) for name in SPACES}
    before = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    results: dict[str, dict[str, Any]] = before.get("runs", {})
    for name in given.settings:
        for seed in given.seeds:
            path = trained(given, name, seed)
            told = facts(path, real, n=given.n, grids=given.grids)
            results.setdefault(name, {})[str(seed)] = told
            shown = {key: value for key, value in told.items() if key != "over_time"}
            print(f"{name}, seed {seed}: {shown}", flush=True)
            about = {
                "date": date.today().isoformat(),
                "machine": describe(),
                "versions": versions(),
                "base": {"name": Path(given.base).name, "images": _seen(given.base)},
                "faces": Path(given.faces).name,
                "n": given.n,
                "real": REAL,
                "settings": {**LONG, **SHORT},
                "runs": results,
            }
            OUT.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _seen(base: str) -> int:
    return Run.open(base).checkpoint()[0].images


if __name__ == "__main__":
    main()
