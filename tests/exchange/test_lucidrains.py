"""Files of denoising_diffusion_pytorch's trainer."""

import math
from dataclasses import replace

import lucidrains_reference as reference
import pytest
import torch

from kao.diffusion import Betas, Cosine, Linear, Sigmoid, targets
from kao.errors import CheckpointError, ConfigError
from kao.exchange import import_model
from kao.exchange.lucidrains_unet import read_shape, rules
from kao.exchange.renaming import to_ours, to_theirs

CHAINS = {
    "linear": torch.linspace(0.0005, 0.1, 200, dtype=torch.float64),
    "long": torch.linspace(2.5e-5, 5e-3, 4000, dtype=torch.float64),
    "cosine": 1 - (abar := Cosine(steps=100).build().abar)[1:] / abar[:-1],
    "sigmoid": 1 - (abar := Sigmoid(steps=1000).build().abar)[1:] / abar[:-1],
    "other": torch.linspace(0.01, 0.02, 50, dtype=torch.float64).square() + 0.01,
}

FORMS = {
    "2.3": reference.NEWEST,
    "2.3 of three levels": replace(reference.NEWEST, multiples=(1, 2, 4), full=(1, 2)),
    "2.3 with other heads": replace(reference.NEWEST, heads=2, head_width=8, memory=3),
    "2.3 with a wide first layer": replace(reference.NEWEST, first=24, multiples=(1, 3), full=(1,)),
    "2.3 with variances": replace(reference.NEWEST, outputs=6),
    "1.9": reference.VERSION_1_9,
    "1.8": reference.VERSION_1_8,
    "1.7.0": reference.VERSION_1_7,
    "1.0.0": reference.VERSION_1_0,
    "0.29.0": reference.VERSION_0_29,
}


def chain(betas, *, objective="pred_v", gamma=math.inf):
    """The buffers of the package's GaussianDiffusion that lie beside its network."""
    abar = (1 - betas.double()).cumprod(0)
    snr = abar / (1 - abar)
    clipped = snr.clamp(max=gamma)
    unit = {"pred_noise": snr, "pred_x0": torch.ones_like(snr), "pred_v": snr + 1}[objective]
    tables = {"betas": betas, "alphas_cumprod": abar, "loss_weight": clipped / unit}
    return {name: table.float() for name, table in tables.items()}


def write(folder, options, *, tables=None, version="2.3.4", averaged=True, seed=0):
    """A file as the package's Trainer.save writes it; returns it and the average's tensors."""
    tables = chain(CHAINS["sigmoid"]) if tables is None else tables

    def diffusion(state):
        return {**{f"model.{name}": tensor for name, tensor in state.items()}, **tables}

    state = reference.drawn(options, seed=seed)
    content = {
        "step": 1000,
        "model": diffusion(reference.drawn(options, seed=seed + 1)),
        "opt": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-4}]},
        "scaler": None,
    }
    if version is not None:
        content["version"] = version
    if averaged:
        average = {f"ema_model.{name}": tensor for name, tensor in diffusion(state).items()}
        content["ema"] = {"initted": torch.tensor(True), "step": torch.tensor(1000), **average}
    path = folder / "model-1.pt"
    torch.save(content, path)
    return path, state


@pytest.fixture(scope="module")
def seen():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, 16, 16, generator=generator), torch.tensor([3.0, 777.0])


@pytest.mark.parametrize("form", FORMS)
def test_an_imported_network_says_what_the_package_says(form, tmp_path, seen):
    options = FORMS[form]
    path, state = write(tmp_path, options, version=form.split()[0])
    with torch.no_grad():
        ours = import_model(str(path), facts={"size": 16}).build()(*seen)
        theirs = reference.forward(state, options, *seen)
    assert theirs.std() > 0.2
    assert (ours - theirs).abs().max() <= 1e-5


@pytest.mark.parametrize(
    "name, kind",
    [
        ("linear", Linear),
        ("long", Linear),
        ("cosine", Cosine),
        ("sigmoid", Sigmoid),
        ("other", Betas),
    ],
)
def test_the_tables_in_the_file_tell_the_schedule(name, kind, tmp_path):
    path, _ = write(tmp_path, reference.NEWEST, tables=chain(CHAINS[name]))
    schedule = import_model(str(path)).schedule
    assert isinstance(schedule, kind)
    abar = (1 - CHAINS[name]).cumprod(0)
    assert torch.allclose(schedule.build().abar[1:], abar, rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", ["cosine", "long"])
@pytest.mark.parametrize("gamma", [math.inf, 5.0])
@pytest.mark.parametrize(
    "objective, target",
    [("pred_noise", targets.eps), ("pred_x0", targets.x0), ("pred_v", targets.v)],
)
def test_the_weights_of_the_loss_tell_the_target(objective, target, gamma, name, tmp_path):
    tables = chain(CHAINS[name], objective=objective, gamma=gamma)
    path, _ = write(tmp_path, reference.NEWEST, tables=tables)
    model = import_model(str(path))
    assert model.target is target
    assert not any("predicts" in note for note in model.notes)


def test_a_network_with_variances_predicts_noise_whatever_the_weights_say(tmp_path):
    path, _ = write(tmp_path, replace(reference.NEWEST, outputs=6))
    model = import_model(str(path))
    assert model.learned_variance and model.target is targets.eps


def test_without_weights_of_the_loss_the_target_is_assumed_or_said(tmp_path):
    tables = chain(CHAINS["cosine"])
    del tables["loss_weight"]
    path, _ = write(tmp_path, reference.VERSION_1_0, tables=tables, version="1.0.0")
    model = import_model(str(path))
    assert model.target is targets.eps
    assert any("predicts" in note for note in model.notes)
    said = import_model(str(path), facts={"target": "x0"})
    assert said.target is targets.x0
    assert not any("predicts" in note for note in said.notes)


def test_the_average_is_taken_unless_the_other_is_asked_for(tmp_path):
    path, average = write(tmp_path, reference.NEWEST)
    name = "final_conv.weight"
    plain = reference.drawn(reference.NEWEST, seed=1)
    assert torch.equal(import_model(str(path)).weights["conv_out.weight"], average[name])
    model = import_model(str(path), weights="model")
    assert torch.equal(model.weights["conv_out.weight"], plain[name])
    path, _ = write(tmp_path, reference.NEWEST, averaged=False)
    assert torch.equal(import_model(str(path)).weights["conv_out.weight"], plain[name])
    with pytest.raises(CheckpointError, match="it holds model"):
        import_model(str(path), weights="ema")


def test_what_was_assumed_is_noted_and_what_was_said_is_not(tmp_path):
    path, _ = write(tmp_path, reference.VERSION_1_0, version=None)
    notes = import_model(str(path)).notes
    for word in ("size", "heads", "groups", "version"):
        assert any(word in note for note in notes), word
    facts = {"size": 64, "heads": 8, "groups": 4, "version": "1.7.0"}
    model = import_model(str(path), facts=facts)
    assert all("sets" in note or "passed over" in note for note in model.notes)
    assert (model.size, model.network.heads, model.network.head_width) == (64, 8, 16)
    assert model.network.groups == 4
    assert model.network.attention_norm == "rms" and model.network.standardised


def test_a_version_without_an_equal_here_is_refused(tmp_path):
    path, _ = write(tmp_path, reference.VERSION_1_7, version="1.7.1")
    with pytest.raises(ConfigError, match=r"but not 1\.7\.1"):
        import_model(str(path))


@pytest.mark.parametrize(
    "facts, message",
    [
        ({"sise": 64}, 'did you mean "size"'),
        ({"size": 0}, "size = 0; expected a whole number, 1 or more"),
        ({"target": "v2"}, r"target = 'v2'; expected eps or x0 or v \(did you mean"),
        ({"target": "eps"}, 'predicts "v": leave it out'),
        ({"heads": 3}, "heads = 3, but the network has 4"),
        ({"theta": math.inf}, "theta = inf; expected a number above 1"),
    ],
)
def test_a_fact_that_cannot_be_is_refused(facts, message, tmp_path):
    path, _ = write(tmp_path, reference.NEWEST)
    with pytest.raises(ConfigError, match=message):
        import_model(str(path), facts=facts)


def test_a_network_told_its_own_prediction_is_refused(tmp_path):
    path, _ = write(tmp_path, replace(reference.NEWEST, channels=6, outputs=3))
    with pytest.raises(ConfigError, match="self_condition"):
        import_model(str(path))


def test_a_file_without_its_chain_is_refused(tmp_path):
    path, _ = write(tmp_path, reference.NEWEST, tables={})
    with pytest.raises(CheckpointError, match="no table of betas"):
        import_model(str(path))


@pytest.mark.parametrize("form", FORMS)
def test_renamed_there_and_back_nothing_is_changed(form):
    state = reference.drawn(FORMS[form])
    known = rules(read_shape(state, origin="here"))
    back = to_theirs(known, to_ours(known, state, origin="here"))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
