"""What each sampler makes of a number of steps: the table of quality against cost, for the docs.

    python bench/front.py runs/anime-32 runs/cats-32 --n 1024

A cell is a sampler on a grid in a number of steps.  All cells of a run draw from the same seeds in
float32 and are held against the same real pictures, in one process.  Cells of many steps draw
fewer pictures (--calls bounds the network calls of a cell): the distance has no bias, so they
compare, with a larger standard error.

A finished cell is appended to bench/results/front-RUN.jsonl, and a killed command goes on from
there.  Prints a table and writes bench/results/front-RUN.json.
"""

import argparse
import json
from datetime import date
from pathlib import Path

from kao.machine import describe, versions
from kao.metrics import KernelDistance, Wavelets
from kao.runs import Run
from kao.runs.budgets import Candidate, Ledger, described, to_json
from kao.runs.tuning import SIZABLE, Bench, real_pictures
from kao.runs.ways import settings

STEPS = (5, 10, 20, 50, 100, 250, 1000)
SAMPLERS = (
    "ddim,ddpm,euler,euler_a,heun,pndm,dpm++2m,dpm++3m,dpm++2s,dpm++2m_sde,unipc"  # lcm: distilled
)
GRIDS = "uniform,karras,log_snr"
RESULTS = Path(__file__).parent / "results"


def pictures_of(steps: int, *, n: int, calls: int) -> int:
    """How many a cell draws: `n`, or as many as `calls` network calls allow, 64 at least."""
    return min(n, max(SIZABLE, calls // steps))


def measure(path: Path, arguments: argparse.Namespace) -> None:
    """All cells of one run."""
    run = Run.open(path)
    checkpoint, _ = run.checkpoint()
    bench = Bench(
        run,
        run.denoiser(checkpoint),
        real_pictures(run.config, n=arguments.reals, seed=arguments.seed, source=arguments.real),
        features=Wavelets(),
        distance=KernelDistance,
        measure="kernel distance",
        seed=arguments.seed,
        batch=arguments.batch,
        checkpoint=checkpoint.images,
    )
    RESULTS.mkdir(exist_ok=True)
    ledger = Ledger(RESULTS / f"front-{run.path.name}.jsonl", bench.conditions)
    known = ledger.known()
    bench.warm_up()
    for sampling in cells_of(run, arguments):
        n = pictures_of(sampling.steps, n=arguments.n, calls=arguments.calls)
        cell = known.get((sampling, n))
        if cell is None:
            cell = bench.trial(sampling).measure(n)
            ledger.add(cell)
        print(line(cell), flush=True)
    results = {
        "date": date.today().isoformat(),
        "machine": describe(),
        "versions": versions(),
        "device": bench.device.type,
        "run": run.path.name,
        # All that was measured under these conditions, by earlier commands too.
        **to_json(bench.conditions, list(ledger.known().values())),
    }
    file = RESULTS / f"front-{run.path.name}.json"
    file.write_text(json.dumps(results, indent=2) + "\n")
    print(file)


def cells_of(run: Run, arguments: argparse.Namespace) -> list:
    """The cells, those of few steps first; samplers that this run cannot use are left out."""
    ways, notes = settings(
        run,
        samplers=arguments.samplers.split(","),
        grids=arguments.grids.split(","),
        steps=arguments.steps,
        etas=arguments.etas,
    )
    for note in notes:
        print(note)
    return ways


def line(cell: Candidate) -> str:
    """One row of the table."""
    return (
        f"{cell.calls:>5} calls  {cell.seconds:8.4f} s  {cell.score:9.4f} ± {cell.error:.4f}  "
        f"n {cell.n:>5}  {described(cell.sampling)}"
    )


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--n", type=int, default=512, help="pictures a cell")
    parser.add_argument("--calls", type=int, default=20_000, help="most network calls a cell")
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS))
    parser.add_argument("--samplers", default=SAMPLERS)
    parser.add_argument("--grids", default=GRIDS)
    parser.add_argument("--etas", type=float, nargs="+", default=[])
    parser.add_argument("--real", default=None, help="pictures to compare with")
    parser.add_argument("--reals", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=64)
    arguments = parser.parse_args()
    for path in arguments.runs:
        measure(path, arguments)


if __name__ == "__main__":
    main()
