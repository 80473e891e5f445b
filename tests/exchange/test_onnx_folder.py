"""A network as ONNX says what it says in torch, and its page draws what kao draws."""

import itertools
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from giving import SMALL, config_of, drawn, noise_of, trained

import kao
from kao.config.conditioning import ConditionsConfig
from kao.config.sampling import SamplingConfig
from kao.diffusion import (
    DDIM,
    EDM,
    VE,
    Clip,
    Conditioned,
    Cosine,
    DPMSolver2M,
    Dynamic,
    Heun,
    Karras,
    LogSNR,
    VPCosine,
    grids,
    sample,
    seeds_of,
    targets,
)
from kao.errors import MissingExtraError, OutputError
from kao.exchange import onnx as exporting
from kao.exchange.diffusers_folder import write_diffusers
from kao.exchange.onnx import FILE, README, SIDECAR, write_onnx
from kao.exchange.own import write_own
from kao.exchange.steps import limited, path_of
from kao.networks import NETWORKS, Conditions, DiTConfig, EDM2Config, LinearUNetConfig

TINY = {
    "unet": replace(SMALL, attention=()),
    "dit": DiTConfig(width=16, depth=1, heads=2, patch=4),
    "linear_unet": LinearUNetConfig(width=8, levels=(1,), blocks=1, heads=2, head_width=4),
    "edm2": EDM2Config(width=8, levels=(1, 2), blocks=1, attention=(), head_width=8),
}
"""As small as they go: tracing takes its seconds by the layer."""

LONG = ("linear_unet", "edm2")
"""Those that take long all the same."""

CLASSES = ConditionsConfig(classes=True, names=("cat", "dog"))


def of_kind(kind):
    config = config_of(VPCosine(), targets.v, network=TINY[kind], conditions=CLASSES)
    return trained(config)


@pytest.fixture(scope="module")
def unet(tmp_path_factory):
    """A U-Net with classes, and its folder."""
    given, out = of_kind("unet"), tmp_path_factory.mktemp("onnx") / "out"
    return given, out, write_onnx(given, out)


def said(folder, given, batch):
    """What the file and the network say of the same random inputs."""
    import onnxruntime

    generator = torch.Generator().manual_seed(7)
    x = torch.randn(batch, 3, 16, 16, generator=generator)
    label = 1000 * torch.rand(batch, generator=generator)
    of_class = torch.randint(3, (batch,), generator=generator)
    session = onnxruntime.InferenceSession(folder / FILE, providers=["CPUExecutionProvider"])
    feed = {"x": x.numpy(), "label": label.numpy(), "class": of_class.numpy()}
    theirs = torch.from_numpy(session.run(None, feed)[0])
    return theirs, given.network(x, label, Conditions(label=of_class))


def test_every_network_has_a_tiny_one_here():
    assert set(TINY) == set(NETWORKS)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[pytest.mark.slow] if kind in LONG else [])
        for kind in NETWORKS
        if kind != "unet"
    ],
)
def test_networks_say_the_same_as_onnx_at_any_batch(kind, tmp_path):
    given = of_kind(kind)
    write_onnx(given, tmp_path / "out")
    for batch in (1, 4):
        theirs, ours = said(tmp_path / "out", given, batch)
        assert ours.std() > 1e-3
        assert (theirs - ours).abs().max() < 1e-4


def test_a_unet_says_the_same_as_onnx_and_its_classes_differ(unet):
    given, out, notes = unet
    theirs, ours = said(out, given, 5)
    assert (theirs - ours).abs().max() < 1e-4
    x, label = torch.randn(2, 3, 16, 16), torch.full((2,), 500.0)
    cat, dog = (
        given.network(x, label, Conditions(label=torch.full((2,), of_class))) for of_class in (0, 1)
    )
    assert (cat - dog).abs().max() > 1e-3
    assert "agree" in notes[0]


def test_the_page_draws_with_numpy_what_kao_draws(unet, tmp_path, monkeypatch):
    given, out, _ = unet
    program = re.search(r"```python\n(.*?)```", (out / README).read_text(), re.DOTALL)[1]
    monkeypatch.chdir(out)
    monkeypatch.setitem(sys.modules, "torch", None)  # it must do without
    names = {}
    exec(program.replace("count, seed = 4, 0", "count, seed = 4, 3"), names)
    monkeypatch.undo()

    noise = np.random.default_rng(3)
    x = torch.from_numpy(noise.standard_normal((4, 3, 16, 16), dtype=np.float32))
    denoise = Conditioned(given.denoiser, Conditions(label=torch.zeros(4, dtype=torch.int64)))
    times = given.config.sampling.grid(given.schedule, 25)
    wrapped = given.config.wrap(denoise)
    for t, s in itertools.pairwise(times):
        x, _ = DDIM().step(wrapped, x, t, s, noise=None)
    assert np.abs(names["x"] - x.numpy()).max() < 1e-3
    assert names["pictures"].shape == (4, 16, 16, 3) and names["pictures"].std() > 30


def test_the_file_and_the_sidecar_say_what_the_inputs_mean(unet):
    import onnx

    _, out, _ = unet
    told = json.loads((out / SIDECAR).read_text())
    assert told["classes"] == ["cat", "dog"] and set(told["inputs"]) == {"x", "label", "class"}
    assert told["target"] == {"kind": "v"} and told["label"] == "1000 t / t_max"
    assert len(told["path"]) == 26
    model = onnx.load(out / FILE)
    properties = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert properties["kao.target"] == told["target"]
    assert properties["kao.schedule"]["kind"] == "vp_cosine"
    assert {i.version for i in model.opset_import if i.domain == ""} == {told["opset"]}


def test_no_form_names_a_folder_of_this_machine(unet, tmp_path):
    given, out, _ = unet
    plain = trained(config_of(VPCosine(), targets.v))
    write_diffusers(plain, tmp_path / "diffusers")
    write_own(given, tmp_path / "own.safetensors")
    folders = (sys.prefix, Path(kao.__file__).parent, Path.cwd(), Path.home(), torch.__path__[0])
    names = [str(folder).encode() for folder in folders if Path(folder) != Path("/")]
    files = [file for place in (out, tmp_path) for file in place.rglob("*") if file.is_file()]
    assert {file.suffix for file in files} >= {".onnx", ".safetensors", ".json", ".md"}
    for file in files:
        assert [name for name in names if name in file.read_bytes()] == [], file.name


@pytest.mark.parametrize(
    "config",
    [
        config_of(VE(), EDM(), sampling=SamplingConfig(grid=Karras())),
        config_of(Cosine(steps=12), targets.eps, sampling=SamplingConfig(grid=grids.leading)),
        config_of(VPCosine(), targets.velocity, input_scaling=True),
    ],
)
@pytest.mark.parametrize("threshold", [None, Clip(0.9), Dynamic(0.9)])
def test_the_written_path_is_the_path_of_ddim(config, threshold):
    config = replace(config, sampling=replace(config.sampling, threshold=threshold))
    given = trained(config)
    *path, end = path_of(given)
    x = path[0]["sigma"] * noise_of(2).numpy()
    for here, there in zip(path, [*path[1:], end], strict=True):
        alpha, sigma, a, b = (here[name] for name in ("alpha", "sigma", "a", "b"))
        shown = torch.from_numpy((x * here["scale"]).astype(np.float32))
        y = given.network(shown, torch.full((2,), here["label"])).numpy()
        x0 = (b * x - sigma * y) / (alpha * b - sigma * a)
        eps = (alpha * y - a * x) / (alpha * b - sigma * a)
        names = {"np": np, "x0": x0}
        exec(limited(threshold), names)
        x = there["alpha"] * names["x0"] + there["sigma"] * eps
    ours = sample(
        config.wrap(given.denoiser),
        DDIM(),
        config.sampling.grid(given.schedule, len(path)),
        (3, 16, 16),
        seeds=seeds_of(0, range(2)),
    )
    assert np.abs(x - ours.numpy()).max() < 1e-3 * max(1, ours.abs().max())
    assert drawn(given).std() > 0


def test_a_run_that_draws_with_another_sampler_is_written_an_even_path():
    """The grid of a solver of second order is none for DDIM."""
    solver = SamplingConfig(sampler=DPMSolver2M(), grid=LogSNR(), steps=16)
    given = trained(config_of(VPCosine(), targets.v, sampling=solver))
    assert path_of(given) == path_of(trained(config_of(VPCosine(), targets.v)))
    exploding = SamplingConfig(sampler=Heun(), grid=Karras(), steps=18)
    *_, last, _ = path_of(trained(config_of(VE(), EDM(), sampling=exploding)))
    assert last["sigma"] < 0.01


def test_a_file_that_says_something_else_is_not_kept(monkeypatch, tmp_path, unet):
    given, out, _ = unet

    program = SimpleNamespace(
        model=SimpleNamespace(metadata_props={}),
        save=lambda file, external_data: file.write_bytes((out / FILE).read_bytes()),
    )
    monkeypatch.setattr(exporting, "_traced", lambda *a: program)
    with torch.no_grad():
        given.network.conv_out.bias.add_(1)
    try:
        with pytest.raises(OutputError, match="differs from the network"):
            write_onnx(given, tmp_path / "new")
    finally:
        with torch.no_grad():
            given.network.conv_out.bias.sub_(1)
    assert list(tmp_path.iterdir()) == []


def test_without_the_packages_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match="'onnx'"):
        write_onnx(of_kind("unet"), tmp_path / "out")
