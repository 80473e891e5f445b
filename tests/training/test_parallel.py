"""Two processes that share or shard an objective train as one does."""

import copy

import pytest
import torch
from several import several
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from kao import shards
from kao.checkpoints.shards import load_shards, save_shards
from kao.config import RunConfig
from kao.config.sections import DataConfig, TrainingConfig
from kao.diffusion import Denoiser, DenoisingLoss, Drawn, Uncertainty, Uniform, VPCosine, targets
from kao.errors import ConfigError, LoneError
from kao.networks import DiTConfig, UNetConfig
from kao.networks.dropout import seeded
from kao.networks.recompute import recompute
from kao.processes import ALONE, Processes, join
from kao.training.ema import EMA, relative_distance, warmed_decay
from kao.training.objective import Objective
from kao.training.parallel import check_spread, clip_gradients, micro, place_in, shard_state, spread

CPU = torch.device("cpu")
BATCH, STEPS, RATE, LIMIT = 4, 3, 1e-3, 0.5
UNET = UNetConfig(width=8, levels=(1, 2), blocks=1, attention=(4,), dropout=0.2)
# Without these norms the bias of the keys has a gradient of rounding errors, which AdamW scales up.
DIT = DiTConfig(width=16, depth=2, heads=2, patch=2, positions="rotary", qk_norm=True, dropout=0.2)


class Model:
    """A tiny objective with all that is trained, spread over processes."""

    def __init__(self, processes, mode, *, recomputed="none", config=UNET):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = config.build(channels=3, size=8)
            for parameter in network.parameters():  # some begin at zero, which teaches nothing
                torch.nn.init.normal_(parameter, std=0.1)
        recompute(network, recomputed)
        schedule = VPCosine().build()
        loss = DenoisingLoss(Uniform().build(schedule), uncertainty=Uncertainty(features=4))
        self.processes = processes
        self.objective = Objective(Denoiser(network, schedule, targets.v), loss)
        self.module = spread(self.objective, mode, processes, CPU)
        self.optimizer = torch.optim.AdamW(self.objective.parameters(), lr=RATE, fused=True)
        self.ema = EMA(self.objective.denoiser, warmed_decay(0.9))

    def train(self, steps, *, pieces=1):
        """Losses and gradient norms of some steps, each of all processes."""
        generator, told = torch.Generator().manual_seed(1), []
        for step in range(steps):
            x0 = torch.rand(BATCH, 3, 8, 8, generator=generator) * 2 - 1
            t, importance = self.objective.loss.times(BATCH, generator)
            drawn = Drawn(t, importance, *self.objective.loss.noise(x0, generator))
            seeds = torch.arange(BATCH) + BATCH * step
            mine = self.processes.rows(BATCH)
            size = (mine.stop - mine.start) // pieces
            losses = []
            for piece in range(pieces):
                rows = slice(mine.start + piece * size, mine.start + (piece + 1) * size)
                if piece == pieces - 1:
                    rows = slice(rows.start, mine.stop)
                with (
                    micro(self.module, last=piece == pieces - 1),
                    seeded(self.objective.denoiser.network, seeds[rows]),
                ):
                    value = self.module(x0[rows], None, drawn.rows(rows)).value
                    (value.sum() * self.processes.world / BATCH).backward()
                losses.append(value.detach())
            norm = clip_gradients(self.objective.parameters(), LIMIT)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.ema.update((step + 1) * BATCH, BATCH)
            told.append([*self.processes.gather(torch.cat(losses)).tolist(), norm])
        return torch.tensor(told)

    def learned(self):
        """Weights and averages, whole."""
        average = {f"ema/{name}": t for name, t in self.ema.average.items()}
        return shards.whole({**self.objective.state_dict(), **average})

    def save(self, folder):
        state, parts = shards.split({"optimizer": self.optimizer.state_dict()})
        if parts:
            save_shards(folder, parts)
        return self.learned(), state["optimizer"]

    def load(self, folder, saved):
        weights, state = copy.deepcopy(saved)  # an optimiser takes tensors as its own
        for name, tensor in self.objective.state_dict().items():
            shards.put(tensor, weights[name])
        self.ema.load({name: weights[f"ema/{name}"] for name in self.ema.average})
        self.optimizer.load_state_dict(state)
        shard_state(self.optimizer)
        if folder.exists():
            load_shards(folder, place_in(self.optimizer))


WAYS = [  # mode, pieces of a share, gradient checkpointing
    ("ddp", 1, "none"),
    ("ddp", 2, "none"),
    ("fsdp", 1, "none"),
    ("fsdp", 2, "blocks"),
    ("fsdp", 1, "all"),
]


def _train_each_way(folder):
    processes, told = join(CPU), {}
    for way in WAYS:
        mode, pieces, recomputed = way
        model = Model(processes, mode, recomputed=recomputed)
        figures = model.train(STEPS, pieces=pieces)
        told[way] = figures, model.learned()
        part = sum(shards.local(p).numel() for p in model.objective.denoiser.parameters())
        told[way] += (part / sum(p.numel() for p in model.objective.denoiser.parameters()),)
    transformer = Model(processes, "fsdp", recomputed="blocks", config=DIT)
    told["transformer"] = transformer.train(STEPS), transformer.learned()
    for mode in ("ddp", "fsdp"):
        model = Model(processes, mode)
        model.train(1)
        told[mode, "saved"] = copy.deepcopy(model.save(folder / mode))
        told[mode, "further"] = model.train(2), model.learned()
        again = Model(processes, mode)
        again.load(folder / mode, told[mode, "saved"])
        told[mode, "again"] = again.train(2), again.learned()
        alone = Model(ALONE, mode)
        alone.train(1)
        again = Model(processes, mode)
        again.load(folder / "none", alone.save(folder / "none"))
        told[mode, "from one"] = again.train(2), again.learned()
    return told


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("shards")


@pytest.fixture(scope="module")
def both(folder):
    return several(2, _train_each_way, folder)


@pytest.fixture(scope="module")
def one():
    model = Model(ALONE, "ddp")
    return model.train(STEPS), model.learned()


def assert_same_run(told, expected):
    figures, learned = told[:2]
    wanted, weights = expected
    assert torch.allclose(figures, wanted, rtol=1e-5, atol=1e-6)
    assert learned.keys() == weights.keys()
    far = [n for n in weights if not torch.allclose(learned[n], weights[n], rtol=0, atol=1e-5)]
    assert not far


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_train_as_one_does(both, one, way):
    for told in both:
        assert_same_run(told[way], one)


def test_two_processes_that_shard_a_transformer_train_as_one_does(both):
    alone = Model(ALONE, "fsdp", config=DIT)
    expected = alone.train(STEPS), alone.learned()
    for told in both:
        assert_same_run(told["transformer"], expected)


def _run(prepared, processes=None):
    config = RunConfig(
        length="2 steps",
        data=DataConfig(size=prepared.size),
        network=UNET,
        training=TrainingConfig(batch=6, precision="fp32"),
    )
    trainer = config.build(prepared, CPU, processes=processes or join(CPU))
    return [step.loss for step in trainer.steps()], trainer.denoiser.state_dict()


def test_a_run_of_two_processes_drops_and_learns_what_that_of_one_does(tiny_set):
    losses, weights = _run(tiny_set, ALONE)
    for told, learned in several(2, _run, tiny_set):
        assert told == pytest.approx(losses, rel=1e-5)
        for name, weight in weights.items():
            assert torch.allclose(learned[name], weight, rtol=0, atol=1e-5), name


@pytest.mark.parametrize("way", WAYS)
def test_figures_are_the_same_in_every_process(both, way):
    assert torch.equal(both[0][way][0], both[1][way][0])


def test_sharding_shares_the_weights_out(both):
    shares = [told["fsdp", 1, "none"][2] for told in both]
    assert max(shares) < 0.6
    assert sum(shares) == pytest.approx(1)


@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_two_processes_go_on_from_what_they_saved(both, mode):
    for told in both:
        assert torch.equal(told[mode, "again"][0], told[mode, "further"][0])


@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_one_process_goes_on_from_what_two_saved(both, folder, mode):
    model = Model(ALONE, mode)
    model.load(folder / mode, both[0][mode, "saved"])
    assert_same_run(both[0][mode, "further"], (model.train(2), model.learned()))


@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_two_processes_go_on_from_what_one_saved(both, mode):
    model = Model(ALONE, mode)
    model.train(1)
    assert_same_run(both[0][mode, "from one"], (model.train(2), model.learned()))


def test_no_pickle_is_among_what_processes_save_together(both, folder):
    names = {file.suffix for file in (folder / "fsdp").iterdir()}
    assert names == {".safetensors"}


def test_a_limit_scales_all_gradients_to_its_norm():
    parameters = [torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    assert clip_gradients(parameters, 0) == 5
    assert parameters[1].grad.item() == 4
    assert clip_gradients(parameters, 1) == 5
    assert parameters[1].grad.item() == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("mode", "batch", "precision", "words"),
    [
        ("ddp", 1, "fp32", "leaves some of 2 processes without a picture"),
        ("fsdp", 5, "fp32", "try 6"),
        ("fsdp", 4, "fp16", "does not go with training.precision"),
    ],
)
def test_what_processes_cannot_share_is_refused(mode, batch, precision, words):
    with pytest.raises(ConfigError, match=words):
        check_spread(mode, Processes(0, 2), batch=batch, precision=precision)
    check_spread(mode, ALONE, batch=batch, precision=precision)


def _left():
    processes = join(CPU)
    layer = torch.nn.Linear(4, 4)
    fully_shard(layer, mesh=init_device_mesh("cpu", (processes.world,)))
    weight = layer.weight
    weight.grad = weight.detach().clone()
    meetings = {
        "clip": lambda: clip_gradients([weight], 1.0),
        "distance": lambda: relative_distance([weight], [weight]),
        "whole": lambda: shards.whole({"weight": weight}),
        "full": lambda: shards.full(weight),
    }
    told = []
    for name, meet in meetings.items() if processes.main else ():
        try:
            meet()
        except LoneError:
            told.append(name)
    return told


def test_whatever_is_put_together_says_that_another_process_is_gone():
    assert several(2, _left)[0] == ["clip", "distance", "whole", "full"]
