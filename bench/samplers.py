"""What a sampler costs beside the network: its own time as a share of the network's.

    python bench/samplers.py --rounds 5 --steps 6

Draws a batch with the network of faces-32, untrained, by every sampler in turns, so that a slow
minute of the machine hits all alike.  The clock stands around the whole trajectory and around
each call of the network in it; the rest is the sampler's: levels and coefficients, the prediction
from the network's output, the update of the images, and the noise.

Prints percentages of the network's time, each as median (smallest to largest), and writes them to
bench/results/samplers.json.
"""

import argparse
import json
import time
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from kao.config import Request, RunConfig, dump
from kao.diffusion import SAMPLERS, Denoiser, Sampler, SeededNoise, grids, trajectory
from kao.diffusion.samplers import PNDM, Heun
from kao.machine import describe, versions
from kao.networks.cost import parameters

SIZE, BATCH = 32, 64
VARIANTS: dict[str, Sampler] = {name: kind() for name, kind in SAMPLERS.items()} | {
    "pndm, runge_kutta": PNDM(start="runge_kutta"),
    "heun, churned": Heun(churn=0.2),
}


class Clocked(nn.Module):
    """A network, and the seconds that its calls took.

    Args:
        network: What is called.

    Attributes:
        seconds: Since it was last set to 0.
        calls: Likewise.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.seconds, self.calls = 0.0, 0

    def forward(self, x: Tensor, label: Tensor, condition: Any) -> Tensor:
        """Call the network."""
        start = time.perf_counter()
        y: Tensor = self.network(x, label, condition)
        self.seconds += time.perf_counter() - start
        self.calls += 1
        return y


@torch.no_grad()
def overhead(denoiser: Denoiser, network: Clocked, sampler: Sampler, times: Tensor) -> float:
    """Percent of the network's time that the rest of one trajectory takes."""
    noise = SeededNoise(range(BATCH))
    x = denoiser.schedule(times[0]).sigma * noise(torch.empty(BATCH, 3, SIZE, SIZE))
    network.seconds, network.calls = 0.0, 0
    start = time.perf_counter()
    for _ in trajectory(denoiser, sampler, x, times, noise=noise):
        pass
    return 100 * ((time.perf_counter() - start) / network.seconds - 1)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    arguments = parser.parse_args()

    config = Request.of("faces-32", []).over(dump(RunConfig()))
    network = Clocked(config.network.build(channels=3, size=SIZE)).eval()
    denoiser = Denoiser(network, config.schedule.build(), config.target)
    times = grids.uniform(denoiser.schedule, arguments.steps)

    shares: dict[str, list[float]] = {name: [] for name in VARIANTS}
    calls: dict[str, int] = {}
    overhead(denoiser, network, VARIANTS["ddim"], times)
    for turn in range(arguments.rounds):
        for name, sampler in VARIANTS.items():
            shares[name].append(overhead(denoiser, network, sampler, times))
            calls[name] = network.calls
        print(f"round {turn + 1}: most {max(s[-1] for s in shares.values()):.2f} %")

    table = {
        name: {
            "calls": calls[name],
            "percent": {"median": median(values), "min": min(values), "max": max(values)},
        }
        for name, values in shares.items()
    }
    for name, values in shares.items():
        spread = f"{median(values):.2f} % ({min(values):.2f} to {max(values):.2f})"
        print(f"{name:18} {calls[name]:3} calls   {spread}")
    results: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": describe(),
        "versions": versions(),
        "size": SIZE,
        "batch": BATCH,
        "threads": torch.get_num_threads(),
        "parameters": parameters(network),
        "steps": arguments.steps,
        "n": arguments.rounds,
        "of_the_network": table,
    }
    path = Path(__file__).parent / "results" / "samplers.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n")
    print(path)


if __name__ == "__main__":
    main()
