"""Our training step against a plain loop over diffusers' UNet2DModel of equal parameters.

    python bench/step.py --rounds 7 --seconds 6

In one process and in turns, so that a slow minute of the machine hits all alike:

    kao          `Trainer.step` of faces-32 as `kao train` runs it on this CPU (bf16, or float32
                 where the hardware has no bf16): batch from the memory map, flips, clipping, AdamW,
                 average of the weights
    kao fp32     the same in float32
    plain        UNet2DModel of the same number of parameters (within 2 %), eps target, clipping,
                 AdamW, float32: the loop that one writes first; its pictures are in memory already
    plain bf16   the same under bf16 autocast
    plain folded the same network as `plain bf16` on the picture folded 2x2, as ours is: what is
                 left of the ratio is not the folding

Prints images per second and ratios, each as median (smallest to largest), and writes them to
bench/results/step.json.
"""

import argparse
import json
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DModel
from torch import nn
from torch.nn import functional as F

from kao.config import Request, RunConfig, dump
from kao.data import open_source, prepare
from kao.machine import best_precision, describe, versions
from kao.networks.cost import parameters

SIZE, BATCH = 32, 32


def kao_step(precision: str) -> tuple[Callable[[], object], int]:
    """One call is one training step of the recipe; and the number of parameters."""
    overrides = [f"training.precision={precision}", f"training.batch={BATCH}"]
    config = Request.of("faces-32", overrides).over(dump(RunConfig()))
    prepared = prepare(open_source("toy:2000", size=SIZE), size=SIZE)
    trainer = config.build(prepared, torch.device("cpu"))
    stream = trainer.batches(0)
    return lambda: trainer.step(next(stream)), parameters(trainer.denoiser)


def unet(widths: tuple[int, int, int], *, channels: int) -> UNet2DModel:
    """Three levels of two blocks, attention at the two smaller sizes, as in faces-32."""
    return UNet2DModel(
        sample_size=SIZE,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=2,
        block_out_channels=widths,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
    )


def of_equal_parameters(wanted: int, *, channels: int) -> UNet2DModel:
    """Widths of about 1 : 2 : 3 whose parameters are nearest to `wanted`, and within 2 %."""
    candidates = [(w, 2 * w, 3 * w + 8 * i) for w in (40, 48, 56) for i in (-2, -1, 0, 1, 2)]
    with torch.device("meta"):
        counts = {c: parameters(unet(c, channels=channels)) for c in candidates}
    widths = min(counts, key=lambda c: abs(counts[c] - wanted))
    if abs(counts[widths] / wanted - 1) > 0.02:
        raise SystemExit(f"no widths come within 2 % of {wanted:,} parameters: {counts}")
    return unet(widths, channels=channels)


def plain_step(network: nn.Module, *, bf16: bool, fold: int) -> Callable[[], object]:
    """One call is one step of a hand-written loop."""
    scheduler = DDPMScheduler(num_train_timesteps=1000)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    pictures = torch.rand(2000, 3, SIZE, SIZE) * 2 - 1
    network.train()

    def step() -> None:
        x0 = F.pixel_unshuffle(pictures[torch.randint(0, len(pictures), (BATCH,))], fold)
        eps, t = torch.randn_like(x0), torch.randint(0, 1000, (BATCH,))
        x_t = scheduler.add_noise(x0, eps, t)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            output = network(x_t, t).sample
        loss = F.mse_loss(output.float(), eps)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    return step


def images_per_second(step: Callable[[], object], seconds: float) -> float:
    """Over whole steps of about that time."""
    start, steps = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds:
        step()
        steps += 1
    return steps * BATCH / elapsed


def spread(values: list[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=6.0)
    arguments = parser.parse_args()

    best = best_precision(torch.device("cpu"))
    ours, wanted = kao_step(best)
    steps: dict[str, Callable[[], object]] = {"kao": ours, "kao fp32": kao_step("fp32")[0]}
    counts = {"kao": wanted}
    for name, bf16, fold in (
        ("plain", False, 1),
        ("plain bf16", True, 1),
        ("plain folded", True, 2),
    ):
        network = of_equal_parameters(wanted, channels=3 * fold**2)
        counts[name] = parameters(network)
        steps[name] = plain_step(network, bf16=bf16, fold=fold)

    rates: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for turn in range(arguments.rounds):
        for name, step in steps.items():
            rates[name].append(images_per_second(step, arguments.seconds))
        print(f"round {turn + 1}: " + ", ".join(f"{n} {r[-1]:.0f}" for n, r in rates.items()))

    ratios = {
        f"kao / {name}": spread([a / b for a, b in zip(rates["kao"], rates[name], strict=True)])
        for name in steps
        if name != "kao"
    }
    for name, ratio in ratios.items():
        print(f"{name}: {ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})")
    results: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": describe(),
        "versions": {**versions(), "diffusers": version("diffusers")},
        "size": SIZE,
        "batch": BATCH,
        "precision": best,
        "rounds": arguments.rounds,
        "seconds_a_round": arguments.seconds,
        "parameters": counts,
        "images_per_second": {name: spread(values) for name, values in rates.items()},
        "ratios": ratios,
    }
    path = Path(__file__).parent / "results" / "step.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n")
    print(path)


if __name__ == "__main__":
    main()
