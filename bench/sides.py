"""Three trainers of the same pictures: ours, diffusers' example and lucidrains' package.

Each is its own author's way of doing it, at the same number of parameters (within 2 %), the same
batch and the same prepared pictures, mirrored at random:

    kao          `Trainer.steps` of a recipe, as `kao train` runs it
    diffusers    UNet2DModel in the loop of the `train_unconditional` example, with its settings:
                 DDPMScheduler of 1000 steps, eps, AdamW (rate 1e-4, betas 0.95 and 0.999, decay
                 1e-6), cosine rate after 500 steps of warm-up, clipping, EMAModel with its warm-up,
                 Accelerator; "our shape" is the same with three levels and attention at the two
                 smaller sizes, as in faces-32, instead of the example's six levels
    lucidrains   Unet, GaussianDiffusion and the package's own Trainer, driven step by step, with
                 its defaults: v, sigmoid schedule of 1000 steps, Adam (rate 1e-4), clipping, EMA of
                 0.995 at each tenth step

"bf16" is the option of that name of the same loop.  "tuned" gives it what a short run wants, which
ours has by default: the best precision of the hardware, a rate of 1e-3, and a warm-up of 100 steps.

Both peers get their pictures decoded, from memory and in the process itself, which is kinder than
the image files, resized again in every epoch, that both start from.
"""

import contextlib
import io
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import torch
from packages import lucidrains, needed
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from widths import Shape, lucid_unet, unet2d

from kao.config import Request, RunConfig, dump
from kao.data import open_source, prepare
from kao.data.prepared import PreparedSet
from kao.machine import best_precision
from kao.networks.cost import parameters
from kao.runs import draw
from kao.runs.sizing import with_precision

_DRAWING_STEPS = 50  # of the peers; ours draws as its recipe says


@dataclass(frozen=True)
class Setup:
    """What all sides have in common.

    Attributes:
        faces: A folder, a ZIP file, or "toy:2000".
        size: Of the pictures, pixels.
        batch: Pictures a step.
        device: "cpu" or "cuda".
        seed: Of the weights and of all that is drawn.
        recipe: Of ours; its network says how many parameters the others have.
        overrides: Put over the recipe.
        minutes: How long the side will train; only plans of the learning rate look at it.
    """

    faces: str
    size: int
    batch: int
    device: str
    seed: int = 0
    recipe: str = "faces-32"
    overrides: tuple[str, ...] = ()
    minutes: float = 6000.0

    @property
    def config(self) -> RunConfig:
        """Ours, with what all sides have in common put over it."""
        words = [
            *self.overrides,
            f"data.source={self.faces}",
            f"data.size={self.size}",
            f"training.batch={self.batch}",
            f"seed={self.seed}",
            f"length={self.minutes} minutes",
            "data.augment.flip=true",
        ]
        return Request.of(self.recipe, words).over(dump(RunConfig()))

    @property
    def parameters(self) -> int:
        """How many numbers the network of the recipe learns."""
        return parameters(self.config.build_denoiser("meta"))

    def pictures(self) -> PreparedSet:
        """The pictures, prepared on the first call."""
        source = open_source(self.faces, size=self.size)
        return prepare(source, size=self.size, crop=self.config.data.crop)


class Side(Protocol):
    """One trainer.

    Attributes:
        about: Parameters and operations, for the report.
    """

    about: dict[str, Any]

    def step(self, done: float = 0.0) -> int:
        """One optimiser step; returns the number of images, 0 if the run is over.

        Args:
            done: Share of the run that is behind, 0..1, for sides that do not look at the clock.
        """

    def draw(self, count: int) -> Iterator[Tensor]:
        """Pictures of the averaged weights, uint8, (up to the batch, 3, S, S) at a time."""


class Mirrored(Dataset[Tensor]):
    """The prepared pictures in memory, each mirrored by lot.

    As many as fill whole batches, since both loops would count a smaller last one of an epoch.

    Args:
        prepared: The pictures.
        batch: Pictures a step.
        low: Darkest value; the brightest is 1.
    """

    def __init__(self, prepared: PreparedSet, *, batch: int, low: float):
        whole = len(prepared) // batch * batch
        if whole == 0:
            raise SystemExit(f"{len(prepared)} pictures do not fill a batch of {batch}: give more.")
        self.images, self.low = torch.tensor(prepared.images[:whole]), low

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        image = self.images[index]
        if torch.rand(()) < 0.5:
            image = image.flip(-1)
        return image.float() * ((1 - self.low) / 255) + self.low


class Kao:
    """`Trainer.steps`, as `kao train` runs it, without its files."""

    def __init__(self, setup: Setup, *, precision: str = "auto"):
        device = torch.device(setup.device)
        prepared = setup.pictures()
        config = Request({"training": {"precision": precision}}).over(dump(setup.config))
        self.config = with_precision(config, device)
        self.trainer = self.config.build(prepared, device)
        self._steps = self.trainer.steps()
        self._batch = setup.batch
        network = self.config.build_denoiser("meta").network
        label = torch.empty(1, device="meta")
        self.about = _about(
            self.trainer.denoiser,
            lambda: network(_picture(setup, device="meta"), label, None),
            precision=self.config.training.precision,
        )

    def step(self, done: float = 0.0) -> int:
        """See `Side`; the trainer looks at the clock itself."""
        return self._batch if next(self._steps, None) is not None else 0

    def draw(self, count: int) -> Iterator[Tensor]:
        """See `Side`."""
        average = next(iter(self.trainer.ema.values())).average
        denoiser = self.config.build_denoiser()
        denoiser.load_state_dict({**self.trainer.denoiser.state_dict(), **average})
        denoiser.to(self.trainer.device).eval()
        yield from draw(denoiser, self.config, indices=range(count))


class Diffusers:
    """UNet2DModel in the loop of the `train_unconditional` example."""

    def __init__(
        self,
        setup: Setup,
        *,
        shape: Shape = "example",
        precision: Literal["no", "bf16"] = "no",
        rate: float = 1e-4,
        warmup: int = 500,
    ):
        accelerate, diffusers = needed("accelerate"), needed("diffusers")
        training = needed("diffusers.training_utils")
        torch.manual_seed(setup.seed)
        network = unet2d(shape, size=setup.size, wanted=setup.parameters)
        self._batch, self._warmup, self._pace = setup.batch, warmup, _Pace(warmup)
        self.about = _about(
            network,
            lambda: network(_picture(setup), torch.zeros(1, dtype=torch.long)),
            precision="fp32" if precision == "no" else precision,
            widths=list(network.config.block_out_channels),
        )
        self.scheduler = diffusers.DDPMScheduler(num_train_timesteps=1000)
        self._pipeline = diffusers.DDIMPipeline
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=rate, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8
        )
        pictures = Mirrored(setup.pictures(), batch=setup.batch, low=-1.0)
        loader = DataLoader(pictures, batch_size=setup.batch, shuffle=True)
        self.accelerator = accelerate.Accelerator(
            mixed_precision=precision, cpu=setup.device == "cpu"
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._pace)
        prepared = self.accelerator.prepare(network, optimizer, loader, schedule)
        self.network, self.optimizer, self._loader, self.schedule = prepared
        self.average = training.EMAModel(
            self.network.parameters(),
            decay=0.9999,
            use_ema_warmup=True,
            inv_gamma=1.0,
            power=0.75,
        )
        self.average.to(self.accelerator.device)
        self._stream = _forever(self._loader)
        self.network.train()

    def step(self, done: float = 0.0) -> int:
        """See `Side`."""
        self._pace.done = done
        x0 = next(self._stream)
        eps = torch.randn_like(x0)
        t = torch.randint(0, 1000, (len(x0),), device=x0.device)
        x_t = self.scheduler.add_noise(x0, eps, t)
        with self.accelerator.accumulate(self.network):
            loss = F.mse_loss(self.network(x_t, t).sample.float(), eps)
            self.accelerator.backward(loss)
            if self.accelerator.sync_gradients:
                self.accelerator.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad()
        if self.accelerator.sync_gradients:
            self.average.step(self.network.parameters())
        loss.detach().item()
        return len(x0)

    def draw(self, count: int) -> Iterator[Tensor]:
        """See `Side`: DDIM in 50 steps."""
        network = self.accelerator.unwrap_model(self.network, keep_fp32_wrapper=False)
        self.average.copy_to(network.parameters())
        pipeline = self._pipeline(network.eval(), self.scheduler)
        pipeline.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(0)
        for start in range(0, count, 64):
            images = pipeline(
                batch_size=min(64, count - start),
                generator=generator,
                num_inference_steps=_DRAWING_STEPS,
                output_type="np",
            ).images
            yield torch.from_numpy(images * 255).round().byte().permute(0, 3, 1, 2)


class Lucidrains:
    """Unet and GaussianDiffusion under the package's own Trainer."""

    def __init__(self, setup: Setup, *, bf16: bool = False, rate: float = 1e-4):
        package = lucidrains()
        torch.manual_seed(setup.seed)
        network, widths = lucid_unet(package, wanted=setup.parameters)
        self.about = _about(
            network,
            lambda: network(_picture(setup), torch.zeros(1)),
            precision="bf16" if bf16 else "fp32",
            widths=widths,
        )
        diffusion = package.GaussianDiffusion(
            network, image_size=setup.size, sampling_timesteps=_DRAWING_STEPS
        )
        # Their Trainer opens a folder of image files in worker processes: hand it ours instead.
        pictures = Mirrored(setup.pictures(), batch=setup.batch, low=0.0)
        module = sys.modules[package.Trainer.__module__]
        vars(module).update(Dataset=lambda *_, **__: pictures, cpu_count=lambda: 0)
        self._folder = tempfile.TemporaryDirectory()
        self.trainer = package.Trainer(
            diffusion,
            self._folder.name,
            train_batch_size=setup.batch,
            train_lr=rate,
            train_num_steps=0,
            save_and_sample_every=10**9,
            results_folder=self._folder.name,
            amp=bf16,
            mixed_precision_type="bf16",
            calculate_fid=False,
        )
        self._batch = setup.batch

    def step(self, done: float = 0.0) -> int:
        """See `Side`; their rate is the same from beginning to end."""
        self.trainer.train_num_steps = self.trainer.step + 1
        with _silence():
            self.trainer.train()
        return self._batch

    def draw(self, count: int) -> Iterator[Tensor]:
        """See `Side`: DDIM in 50 steps."""
        torch.manual_seed(0)
        model = self.trainer.ema.ema_model.eval()
        for start in range(0, count, 64):
            with _silence():
                images = model.sample(batch_size=min(64, count - start))
            yield (images * 255).round().byte().cpu()


class _Pace:
    """Share of the peak rate: linear warm-up in steps, then half a cosine down to 0.

    The example plans its cosine in steps.  This one follows the clock, so that it has come down
    when the minutes are over, whatever the speed.
    """

    def __init__(self, warmup: int):
        self.warmup, self.done, self._begun = warmup, 0.0, 0.0

    def __call__(self, step: int) -> float:
        if step < self.warmup:
            self._begun = self.done
            return step / self.warmup
        share = (self.done - self._begun) / (1 - self._begun)
        return 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * min(1.0, share)))))


def tuned_precision() -> bool:
    """Whether the peers are quickest in bf16 here."""
    here = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return best_precision(here) == "bf16"


def _tuned_diffusers(setup: Setup) -> Diffusers:
    precision: Literal["no", "bf16"] = "bf16" if tuned_precision() else "no"
    return Diffusers(setup, precision=precision, rate=1e-3, warmup=100)


def _tuned_lucidrains(setup: Setup) -> Lucidrains:
    return Lucidrains(setup, bf16=tuned_precision(), rate=1e-3)


SIDES: Mapping[str, Callable[[Setup], Side]] = {
    "kao": Kao,
    "kao fp32": partial(Kao, precision="fp32"),
    "diffusers": Diffusers,
    "diffusers bf16": partial(Diffusers, precision="bf16"),
    "diffusers, our shape": partial(Diffusers, shape="ours"),
    "diffusers, our shape, bf16": partial(Diffusers, shape="ours", precision="bf16"),
    "diffusers tuned": _tuned_diffusers,
    "lucidrains": Lucidrains,
    "lucidrains bf16": partial(Lucidrains, bf16=True),
    "lucidrains tuned": _tuned_lucidrains,
}


def _about(network: nn.Module, forward: Callable[[], object], **more: Any) -> dict[str, Any]:
    """Parameters, and operations of one forward pass for one picture."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        forward()
    return {"parameters": parameters(network), "flops": counter.get_total_flops(), **more}


def _picture(setup: Setup, device: str = "cpu") -> Tensor:
    return torch.zeros(1, 3, setup.size, setup.size, device=device)


def _forever(loader: Iterable[Tensor]) -> Iterator[Tensor]:
    while True:
        yield from loader


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Without the progress bar and the words of a package."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
