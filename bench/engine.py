"""What each technique of the training engine costs and gives on this machine.

    python bench/engine.py --rounds 5 --seconds 10
    python bench/engine.py --device cuda --recipe faces-64 --batch 64 --groups checkpointing compile

A group holds rungs that differ in one option of a recipe; the first is what the others are
compared with.  Each rung trains in a process of its own, and the rungs of a group take turns:
images a second and the largest memory as ratios, median (smallest to largest) over the rounds.
The loss of the eighth step stands beside them: equal, to the rounding of sums, where a technique
is to change no number.

    checkpointing  activations recomputed in the backward pass; with the bytes that are kept for it
    micro_batch    the batch in 1, 2 and 4 pieces
    curriculum     patches, and small pictures first: over a whole run, from its start to its end
    precision      float32, bf16 (and fp16 and TF32 on a GPU)
    optimizer      what a step of each method costs
    averages       one average, three more of other widths, all of them on the CPU
    data           pictures on disk, in memory (and on the GPU); with the share of time waited
    layout         channels innermost
    compile        torch.compile; not among the groups by default, since it takes minutes to start

Then two costs by themselves, in milliseconds: an update of the averages, against a loop over
the tensors; and the held-out losses, as a share of a run of ten minutes.

Prints all and writes bench/results/engine.json, where groups that were not measured this time
stay, if recipe and machine are the same.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from turns import Figures, alone, in_turns, ratios, spread

from kao.config import Request, RunConfig, dump
from kao.config.run import CHANNELS
from kao.data import open_source, prepare
from kao.data.prepared import PreparedSet
from kao.data.split import held_out_count
from kao.machine import describe, usable_cores, versions
from kao.networks.cost import activation_bytes
from kao.networks.recompute import recompute
from kao.runs.held_out import HeldOut
from kao.runs.sizing import with_precision
from kao.runs.timetable import COUNTS
from kao.training import EMA, Trainer, power_decay

RESULTS = Path(__file__).parent / "results"
_GOLDEN = 0.618034
_FIRST = 8  # steps whose losses are compared
_WARM_UP = 3
_MIB = 2**20
_RUN = 600.0
"""Seconds of the run that the held-out losses are a share of."""


@dataclass(frozen=True)
class Setup:
    """What all rungs have in common.

    Attributes:
        recipe: A recipe's name or path.
        overrides: Put over it.
        faces: The pictures.
        batch: Pictures a step.
        device: "cpu" or "cuda".
    """

    recipe: str
    overrides: tuple[str, ...]
    faces: str
    batch: int
    device: str

    def config(self, *words: str) -> RunConfig:
        """The recipe with the words of a rung over it."""
        common = [*self.overrides, f"data.source={self.faces}", f"training.batch={self.batch}"]
        # So long that no run ends, and counted in images, so that no clock decides anything.
        request = Request.of(self.recipe, [*common, "length=100M images", *words])
        return with_precision(request.over(dump(RunConfig())), torch.device(self.device))


def groups(setup: Setup) -> dict[str, dict[str, list[str]]]:
    """Overrides of each rung by its name, by groups."""
    gpu = setup.device == "cuda"
    precision = {name: [f"training.precision={name}"] for name in ("fp32", "bf16")}
    kinds = ["adamw", "adan", "muon", *(["adamw8bit"] if gpu else [])]
    optimizers = {kind: [f"optimizer.method={kind}"] for kind in kinds}
    # It averages in the place of a cool-down, and is refused beside one.
    optimizers["schedule_free"] = ["optimizer.method=schedule_free", "optimizer.schedule=constant"]
    if gpu:
        precision["fp16"] = ["training.precision=fp16"]
        precision["fp32 without TF32"] = ["training.precision=fp32", "training.tf32=false"]
    widths = "ema.widths=[0.05,0.1,0.25]"
    return {
        "checkpointing": {
            mode: [f"training.gradient_checkpointing={mode}"] for mode in ("none", "blocks", "all")
        },
        "micro_batch": {
            f"{pieces} at once" if pieces == 1 else f"in {pieces}": [
                f"training.micro_batch={-(-setup.batch // pieces)}"
            ]
            for pieces in (1, 2, 4)
        },
        "curriculum": {
            kind: [f"training.curriculum={kind}"] for kind in ("none", "patches", "progressive")
        },
        "precision": precision,
        "optimizer": optimizers,
        "averages": {
            "one": [],
            "and three widths": [widths],
            "all on the CPU": [widths, "ema.offload=true"],
        },
        "data": {
            place: [f"data.keep={place}"]
            for place in ("disk", "memory", *(["device"] if gpu else []))
        },
        "layout": {
            "contiguous": ["training.channels_last=false"],
            "channels last": ["training.channels_last=true"],
        },
        "compile": {"eager": ["training.compile=false"], "compiled": ["training.compile=true"]},
    }


class Rung:
    """Steps of one rung, as what is measured in turns."""

    def __init__(self, setup: Setup, words: list[str]):
        config = setup.config(*words)
        device = torch.device(setup.device)
        self.trainer = config.build(_pictures(config), device)
        self._stream = self.trainer.batches(0)
        self._curriculum = config.training.curriculum is not None
        self._total, self._steps = self.trainer.length.images, 0
        self._waited, self._working = 0.0, 0.0
        self.about: dict[str, Any] = {
            "overrides": words,
            "activation_mib": round(_activations(config) / _MIB, 1),
            "losses": [self.trainer.step(next(self._stream)).loss for _ in range(_FIRST)],
        }

    def step(self) -> int:
        """One optimiser step; under a curriculum at any place of the run, evenly."""
        if self._curriculum:
            share = self._steps * _GOLDEN % 1  # evenly spread, however many there are (Weyl 1916)
            self.trainer.progress.images = int(share * self._total)
        asked = time.perf_counter()
        batch = next(self._stream)
        now = time.perf_counter()
        self._waited, self._steps = self._waited + now - asked, self._steps + 1
        self.trainer.step(batch)
        self._working += time.perf_counter() - asked
        self.about["data_wait"] = self._waited / self._working
        return batch.count


def _pictures(config: RunConfig) -> PreparedSet:
    data = config.data
    return prepare(open_source(data.source, size=data.size), size=data.size, crop=data.crop)


def _activations(config: RunConfig) -> int:
    """Bytes kept for the backward pass of one piece of a batch, counted in float32."""
    training = config.training
    network = config.build_denoiser("meta").network
    recompute(network, training.gradient_checkpointing)
    pieces = training.batch if training.micro_batch == "auto" else training.micro_batch
    size = config.data.size
    return activation_bytes(network, (CHANNELS, size, size), batch=min(pieces, training.batch))


def measured(setup: Setup, name: str, given: argparse.Namespace) -> dict[str, Any]:
    """One group: figures of its rungs and their ratios to the first."""
    print(f"\n{name}")
    figures = in_turns(
        {rung: partial(Rung, setup, words) for rung, words in groups(setup)[name].items()},
        rounds=given.rounds,
        seconds=given.seconds,
        threads=given.threads,
        device=torch.device(setup.device),
    )
    first = next(iter(figures.values()))
    table = {rung: ratios(figure, first) for rung, figure in figures.items()}
    for rung, figure in figures.items():
        print(_line(rung, figure, table[rung]))
    return {
        "date": date.today().isoformat(),
        "rounds": given.rounds,
        "seconds_a_round": given.seconds,
        "rungs": {rung: figure.table() for rung, figure in figures.items()},
        "ratios": table,
    }


def _line(rung: str, figure: Figures, against: Mapping[str, Any]) -> str:
    rate, memory, about = against["images_per_second"], against["memory"], figure.about
    return (
        f"  {rung:20} x {rate['median']:.2f} ({rate['min']:.2f} to {rate['max']:.2f})  "
        f"{median(figure.rates):8.1f} images/s  {figure.memory:6.0f} MiB x {memory:.2f}  "
        f"kept {about['activation_mib']:7.1f} MiB  waits {about['data_wait']:.2%}  "
        f"loss {about['losses'][-1]:.8f}"
    )


def averages(setup: Setup, rounds: int) -> dict[str, Any]:
    """Milliseconds of an update of the averages, several ways in turns."""
    device = torch.device(setup.device)
    model = setup.config().build_denoiser().to(device)
    fixed = [EMA(model, lambda images, batch: 0.999)]
    several = [EMA(model, power_decay(width)) for width in (0.05, 0.10, 0.15, 0.25)]
    offloaded = [EMA(model, lambda images, batch: 0.999, offload=True)]
    copies = {name: value.clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def loop() -> None:
        for name, value in model.state_dict().items():
            copies[name].lerp_(value, 1e-3)

    def update(group: list[EMA]) -> None:
        for average in group:
            average.update(10**6, setup.batch)

    ways: dict[str, Callable[[], None]] = {
        "a loop over tensors": loop,
        "one": partial(update, fixed),
        "four widths": partial(update, several),
        "one on the CPU": partial(update, offloaded),
    }
    return _milliseconds(ways, rounds, device)


def held_out(setup: Setup, rounds: int) -> dict[str, Any]:
    """Seconds of one call of the held-out losses, and their share of a run of ten minutes."""
    config, device = setup.config(), torch.device(setup.device)
    prepared = _pictures(config)
    trainer = config.build(prepared, device)
    rate = _images_per_second(trainer, seconds=5.0)
    every = int(rate * _RUN / COUNTS["held_out"])
    count = held_out_count(len(prepared), config.data.held_out)
    hook = HeldOut(prepared, _Nobody(), held_out=count, every=every)
    spent = _milliseconds({"a call": partial(hook, trainer)}, rounds, device)
    share = COUNTS["held_out"] * spent["a call"]["median"] / 1000 / _RUN
    return {**spent, "pairs": hook.count, "images_per_second": rate, "share_of_the_run": share}


class _Nobody:
    """A tracker that forgets."""

    def event(self, kind: str, images: int, values: Mapping[str, Any]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def _images_per_second(trainer: Trainer, *, seconds: float) -> float:
    stream, images = trainer.batches(0), 0
    for _ in range(_WARM_UP):
        trainer.step(next(stream))
    started = time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        batch = next(stream)
        trainer.step(batch)
        images += batch.count
    return images / elapsed


def _milliseconds(
    ways: Mapping[str, Callable[[], None]], rounds: int, device: torch.device
) -> dict[str, dict[str, float]]:
    """Of each way, in turns; once before that is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn > 0:
                taken[name].append(1000 * (time.perf_counter() - started))
    return {name: spread(values) for name, values in taken.items()}


def earlier(path: Path, conditions: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured under the same conditions before; nothing if there is none."""
    if not path.exists():
        return {}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found if found["conditions"] == json.loads(json.dumps(conditions)) else {}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--recipe", default="faces-32")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--faces", default="toy:2000", help="the pictures; toy faces by default")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--groups", nargs="+", default=None, metavar="GROUP")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="of a turn")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--out", type=Path, default=None, help="the JSON to write")
    given = parser.parse_args()

    setup = Setup(given.recipe, tuple(given.overrides), given.faces, given.batch, given.device)
    known = groups(setup)
    chosen = given.groups or [name for name in known if name != "compile"]
    if unknown := [name for name in chosen if name not in known]:
        parser.error(f"there is no group {unknown[0]}; there are: {', '.join(known)}")
    _pictures(setup.config())  # once, before anything is timed

    conditions = {
        "machine": describe(),
        "versions": versions(),
        "recipe": setup.recipe,
        "overrides": given.overrides,
        "faces": Path(setup.faces).name,
        "batch": setup.batch,
        "device": setup.device,
        "threads": given.threads,
    }
    usual = (setup.recipe, setup.device) == ("faces-32", "cpu")
    name = "engine.json" if usual else f"engine-{setup.recipe}-{setup.device}.json"
    path = given.out or RESULTS / name
    result = {"conditions": conditions, "groups": {}, **earlier(path, conditions)}
    for group in chosen:
        result["groups"][group] = measured(setup, group, given)
        _write(path, result)  # a long measurement may be interrupted
    for title, cost in (("averages_ms", averages), ("held_out_ms", held_out)):
        result[title] = alone(partial(cost, setup, 4 * given.rounds), threads=given.threads)
        print(f"\n{title}")
        for way, value in result[title].items():
            print(f"  {way:20} {value['median'] if isinstance(value, dict) else value:.4g}")
        _write(path, result)
    print(path)


def _write(path: Path, result: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
