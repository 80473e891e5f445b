"""Ours against diffusers' example and lucidrains' package: speed, memory, quality at equal time.

    python bench/peers.py --rounds 5 --seconds 20
    python bench/peers.py --device cuda --size 64 --recipe faces-64 --batch 64
    python bench/peers.py --quality anime.zip --minutes 5 --seeds 0 1 --threads 2 --out-grids DIR

What the sides are, and what is done for each, stands in `sides`.  It needs diffusers, accelerate,
denoising-diffusion-pytorch 2.3, einops and ema-pytorch (from PYTHONPATH, where they are not to be
installed beside kao).

Speed: each side is built in a process of its own, and they work in turns; a turn is whole
optimiser steps, loading and averaging included.  Prints images a second and the largest memory as
ratios to ours, median (smallest to largest) over the rounds, and writes bench/results/peers.json
(peers-SIZE-DEVICE.json off the CPU at 32x32).

Quality: one after the other, each side trains for the same minutes of the clock on the same real
pictures; building, drawing and preparing do not count.  Each draws the same number of pictures
from its averaged weights in its own way, which are compared with real ones in the space of
`kao.metrics`.  A finished side is appended to bench/results/peers-quality.jsonl, and a command
that was interrupted goes on from there; the summary is bench/results/peers-quality.json.
"""

import argparse
import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from packages import load
from sides import SIDES, Setup
from torch import Tensor
from turns import Figures, alone, in_turns, ratios
from widths import TOLERANCE

from kao.machine import describe, usable_cores, versions
from kao.metrics import KernelDistance, Wavelets, frechet_distance, moments
from kao.visualisation import grid, save_picture

RESULTS = Path(__file__).parent / "results"
SPEED = (
    "kao",
    "kao fp32",
    "diffusers",
    "diffusers bf16",
    "diffusers, our shape",
    "diffusers, our shape, bf16",
    "lucidrains",
    "lucidrains bf16",
)
QUALITY = ("kao", "diffusers", "lucidrains", "diffusers tuned", "lucidrains tuned")


@dataclass
class Stepping:
    """A side as what is measured in turns."""

    name: str
    setup: Setup

    def __post_init__(self) -> None:
        self._side = SIDES[self.name](self.setup)
        self.about = self._side.about

    def step(self) -> int:
        """One optimiser step."""
        return self._side.step()


def speed(given: argparse.Namespace, setup: Setup) -> None:
    """Measure, print and write speed and memory."""
    sides = given.sides or SPEED
    figures = in_turns(
        {name: partial(Stepping, name, setup) for name in sides},
        rounds=given.rounds,
        seconds=given.seconds,
        threads=given.threads,
        device=torch.device(setup.device),
        load=partial(load, sides),
    )
    refuse_unequal(figures)
    ours = figures["kao"]
    table = {}
    for name, figure in figures.items():
        against = table[f"kao / {name}"] = ratios(ours, figure)
        rate = against["images_per_second"]
        print(
            f"{name:28} {figure.about['parameters'] / 1e6:6.2f} M "
            f"{figure.about['flops'] / 1e9:7.3f} GFLOP {figure.memory:8.0f} MiB   "
            f"ours x {rate['median']:.2f} ({rate['min']:.2f} to {rate['max']:.2f}), "
            f"memory x {against['memory']:.2f}"
        )
    result = {
        **about(setup, given.threads),
        "rounds": given.rounds,
        "seconds_a_round": given.seconds,
        "sides": {name: figure.table() for name, figure in figures.items()},
        "ratios": table,
    }
    usual = (setup.size, setup.device) == (32, "cpu")
    write(
        given.out
        or RESULTS / ("peers.json" if usual else f"peers-{setup.size}-{setup.device}.json"),
        result,
    )


def refuse_unequal(figures: Mapping[str, Figures]) -> None:
    """Stop where a side is larger or smaller than ours."""
    wanted = figures["kao"].about["parameters"]
    for name, figure in figures.items():
        if abs(figure.about["parameters"] / wanted - 1) > TOLERANCE:
            raise SystemExit(
                f"{name} has {figure.about['parameters']:,} parameters and ours {wanted:,}."
            )


class Trained(NamedTuple):
    """What a side came to.

    Attributes:
        figures: Of the training and the drawing, JSON values.
        pictures: uint8, (n, 3, S, S); no tensor, whose memory would end with its process.
    """

    figures: dict[str, Any]
    pictures: NDArray[np.uint8]


def trained(name: str, setup: Setup, n: int) -> Trained:
    """Train one side for its minutes, then draw from it."""
    side = SIDES[name](setup)
    budget = 60 * setup.minutes
    start, images, steps, elapsed = time.perf_counter(), 0, 0, 0.0
    while elapsed < budget and (count := side.step(elapsed / budget)):
        images, steps = images + count, steps + 1
        elapsed = time.perf_counter() - start
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    pictures = torch.cat(list(side.draw(n)))
    figures = {
        **side.about,
        "images": images,
        "steps": steps,
        "seconds": round(seconds, 1),
        "drawing_seconds": round(time.perf_counter() - start, 1),
    }
    return Trained(figures, pictures.numpy())


def quality(given: argparse.Namespace, setup: Setup) -> None:
    """Train what is missing, score, print, write."""
    prepared = setup.pictures()
    lot = torch.randperm(len(prepared), generator=torch.Generator().manual_seed(0))[: given.real]
    space = Wavelets()
    real = features(torch.from_numpy(prepared.images[lot.sort().values.numpy()]), space)
    kernel, gaussian = KernelDistance(real), moments(real)

    conditions = {
        **about(setup, given.threads),
        "minutes": setup.minutes,
        "n": given.n,
        "real": len(lot),
        "features": space.name,
    }
    ledger = (
        RESULTS / "peers-quality.jsonl" if given.out is None else given.out.with_suffix(".jsonl")
    )
    for seed in given.seeds:
        for name in given.sides or QUALITY:
            if any((row["side"], row["seed"]) == (name, seed) for row in known(ledger, conditions)):
                continue
            there = Setup(**{**asdict(setup), "seed": seed})
            told: Trained = alone(partial(trained, name, there, given.n), threads=given.threads)
            pictures = torch.from_numpy(told.pictures)
            drawn = features(pictures, space)
            score = kernel(drawn)
            row = {
                "side": name,
                "seed": seed,
                "kernel": score.value,
                "kernel_error": score.error,
                "frechet": frechet_distance(*moments(drawn), *gaussian),
                **told.figures,
                "conditions": conditions,
            }
            append(ledger, row)
            print(line(row), flush=True)
            if given.out_grids is not None:
                file = given.out_grids / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}.png"
                save_picture(grid(pictures[:64]), file)
    rows = [row for row in known(ledger, conditions) if row["seed"] in given.seeds]
    summary = compared(rows)
    for title, verdict in summary.items():
        print(
            f"{title:28} {verdict['difference']:+.4f} ± {verdict['error']:.4f}   {verdict['word']}"
        )
    plain = [{key: value for key, value in row.items() if key != "conditions"} for row in rows]
    write(
        given.out or RESULTS / "peers-quality.json",
        {"date": date.today().isoformat(), **conditions, "runs": plain, "against_ours": summary},
    )


def features(images: Tensor, space: Wavelets) -> Tensor:
    """Of uint8 pictures (N, 3, S, S), a batch at a time."""
    return torch.cat([space(batch) for batch in images.split(250)])


def compared(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Ours less each peer, over the seeds, and whether the difference counts.

    It counts if every seed of one is better than every seed of the other and the difference is
    more than twice its standard error.
    """
    sides: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        sides.setdefault(row["side"], []).append(row)
    ours = sides.get("kao", [])
    verdicts = {}
    for name, theirs in sides.items():
        if name == "kao" or not ours:
            continue
        a, b = ([row["kernel"] for row in group] for group in (ours, theirs))
        difference = sum(a) / len(a) - sum(b) / len(b)
        error = math.sqrt(
            sum(
                math.fsum(row["kernel_error"] ** 2 for row in g) / len(g) ** 2
                for g in (ours, theirs)
            )
        )
        apart = max(a) < min(b) or max(b) < min(a)
        counts = apart and abs(difference) > 2 * error
        better = "ours is better" if difference < 0 else "theirs is better"
        verdicts[f"kao - {name}"] = {
            "difference": difference,
            "error": error,
            "word": better if counts else "within the noise",
        }
    return verdicts


def line(row: Mapping[str, Any]) -> str:
    """A finished side in one line."""
    return (
        f"{row['side']:28} seed {row['seed']}  kernel {row['kernel']:8.4f} ± "
        f"{row['kernel_error']:.4f}  Frechet {row['frechet']:9.3f}  {row['images']:>8,} images in "
        f"{row['seconds']:.0f} s, drawn in {row['drawing_seconds']:.0f} s"
    )


def known(ledger: Path, conditions: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows measured under the same conditions by earlier commands."""
    if not ledger.exists():
        return []
    rows = [json.loads(text) for text in ledger.read_text(encoding="utf-8").splitlines()]
    same = json.loads(json.dumps(conditions))
    return [row for row in rows if row["conditions"] == same]


def append(ledger: Path, row: Mapping[str, Any]) -> None:
    """One line more."""
    ledger.parent.mkdir(parents=True, exist_ok=True)
    with ledger.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def about(setup: Setup, threads: int) -> dict[str, Any]:
    """What decides a result beside the code."""
    return {
        "machine": describe(),
        "versions": versions() | dict(_packages(("diffusers", "accelerate"))),
        "lucidrains": _version("denoising-diffusion-pytorch"),
        "faces": Path(setup.faces).name,
        "recipe": setup.recipe,
        "overrides": list(setup.overrides),
        "size": setup.size,
        "batch": setup.batch,
        "device": setup.device,
        "threads": threads,
    }


def _packages(names: Iterable[str]) -> list[tuple[str, str]]:
    return [(name, _version(name)) for name in names]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def write(path: Path, result: Mapping[str, Any]) -> None:
    """As JSON, with the day."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"date": date.today().isoformat(), **result}, indent=2)
    path.write_text(text + "\n", encoding="utf-8")
    print(path)


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("faces", nargs="?", default="toy:2000", help="pictures; toy faces if none")
    parser.add_argument("--quality", action="store_true", help="quality at equal time, not speed")
    parser.add_argument("--sides", nargs="+", choices=SIDES, metavar="SIDE", help=", ".join(SIDES))
    parser.add_argument("--recipe", default="faces-32")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--out", type=Path, default=None, help="the JSON to write")
    parser.add_argument("--rounds", type=int, default=5, help="speed: turns of each side")
    parser.add_argument("--seconds", type=float, default=20.0, help="speed: of a turn")
    parser.add_argument("--minutes", type=float, default=5.0, help="quality: of training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="quality")
    parser.add_argument("--n", type=int, default=1000, help="quality: pictures drawn")
    parser.add_argument("--real", type=int, default=4000, help="quality: real pictures")
    parser.add_argument("--out-grids", type=Path, default=None, help="quality: a PNG of each side")
    given = parser.parse_args()

    sides = given.sides or (QUALITY if given.quality else SPEED)
    load(sides)
    torch.set_num_threads(given.threads)
    setup = Setup(
        faces=given.faces,
        size=given.size,
        batch=given.batch,
        device=given.device,
        recipe=given.recipe,
        overrides=tuple(given.overrides),
        minutes=given.minutes if given.quality else 6000.0,
    )
    if given.quality:
        quality(given, setup)
    elif "kao" not in sides:
        parser.error("the speed of the peers is told by its ratio to ours: name kao in --sides")
    else:
        speed(given, setup)


if __name__ == "__main__":
    main()
