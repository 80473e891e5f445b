"""Files of improved-diffusion and guided-diffusion."""

import pickle
from dataclasses import replace

import openai_reference as reference
import pytest
import torch
from openai_reference import Options

from kao.diffusion import Cosine, Linear, targets
from kao.errors import CheckpointError, ConfigError
from kao.exchange import import_model
from kao.exchange.openai_unet import read_shape, rules
from kao.exchange.renaming import to_ours, to_theirs
from kao.networks import Conditions

CIFAR = Options(multiples=(1, 2, 2), blocks=2, heads=4, outputs=6)
IMPROVED = {
    "improved, scale and shift": CIFAR,
    "improved, adding": replace(CIFAR, film=False, outputs=3),
}
GUIDED = {
    "guided 64, new order": Options(
        multiples=(1, 2, 3),
        attention=(0, 1, 2),
        new_order=True,
        residual=True,
        outputs=6,
        classes=5,
    ),
    "guided 256, legacy order": Options(attention=(1,), residual=True, outputs=6),
}


def write(folder, options, *, change=lambda state: state):
    """A file of bare tensors, as both programs write them; returns it and the tensors."""
    return save(folder, change(state := reference.drawn(options))), state


def write_shapes(folder, options, *, change=lambda state: state):
    """A file of tensors that hold one number each, whatever their shape."""
    shapes = reference.names(options)
    return save(folder, change({name: torch.zeros(()).expand(shape) for name, shape in shapes}))


def save(folder, state):
    path = folder / "ema_0.9999_010000.pt"
    torch.save(state, path)
    return path


def facts_of(options):
    order = "new" if options.new_order else "legacy"
    return {"size": 8, "heads": options.heads, "attention_order": order}


@pytest.fixture(scope="module")
def seen():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, 8, 8, generator=generator), torch.tensor([3.0, 777.0])


@pytest.mark.parametrize("options", [pytest.param(o, id=n) for n, o in (IMPROVED | GUIDED).items()])
def test_an_imported_network_says_what_the_programs_say(options, tmp_path, seen):
    path, state = write(tmp_path, options)
    model = import_model(str(path), facts=facts_of(options))
    y = torch.tensor([1, 4]) if options.classes else None
    with torch.no_grad():
        ours = model.build()(*seen, Conditions(label=y))
        theirs = reference.forward(state, options, *seen, y)
    assert theirs.std() > 0.3
    assert (ours - theirs).abs().max() <= 1e-5


def test_the_order_of_queries_and_keys_makes_a_difference(tmp_path, seen):
    path, state = write(tmp_path, CIFAR)
    model = import_model(str(path), facts=facts_of(CIFAR) | {"attention_order": "new"})
    with torch.no_grad():
        difference = model.build()(*seen) - reference.forward(state, CIFAR, *seen)
    assert difference.abs().max() > 1e-3


def test_rescaled_times_are_told_as_0_to_1000(tmp_path, seen):
    path, state = write(tmp_path, CIFAR)
    facts = facts_of(CIFAR) | {"steps": 4000, "rescale_timesteps": True}
    x, t = seen
    with torch.no_grad():
        ours = import_model(str(path), facts=facts).build()(x, t)
        theirs = reference.forward(state, CIFAR, x, t * (1000 / 4000))
    assert (ours - theirs).abs().max() <= 1e-5


def test_the_second_half_of_the_outputs_is_the_variance(tmp_path):
    # In [-1, 1], from beta_tilde to beta in logarithms (Nichol & Dhariwal 2021, eq. 15).
    path, state = write(tmp_path, CIFAR)
    model = import_model(str(path), facts=facts_of(CIFAR))
    assert model.learned_variance and model.target is targets.eps
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        prediction = model.denoiser()(x, torch.tensor(11.0, dtype=torch.float64))
        theirs = reference.forward(state, CIFAR, x, torch.tensor([10.0]))
    assert torch.allclose(prediction.eps, theirs[:, :3], atol=1e-4)
    assert torch.allclose(prediction.variance, (theirs[:, 3:] + 1) / 2, atol=1e-5)


def test_no_class_is_a_row_of_zeros_and_a_note_says_so(tmp_path):
    options = GUIDED["guided 64, new order"]
    path, state = write(tmp_path, options)
    model = import_model(str(path), facts=facts_of(options))
    table = model.weights["classes.weight"]
    assert torch.equal(table[:5], state["label_emb.weight"]) and not table[5].any()
    assert model.classes == ("0", "1", "2", "3", "4")
    assert any("without a class" in note for note in model.notes)


@pytest.mark.parametrize(
    "options, size, schedule, heads, head_width",
    [
        (Options(multiples=(1, 2, 2, 2)), 32, Cosine(steps=4000), 4, 0),
        (Options(multiples=(1, 2, 3, 4)), 64, Cosine(steps=4000), 4, 0),
        (Options(multiples=(1, 2, 3, 4), residual=True), 64, Cosine(), 1, 64),
        (Options(multiples=(1, 1, 2, 3, 4), residual=True), 128, Linear(), 4, 0),
        (Options(multiples=(1, 1, 2, 2, 4, 4), residual=True), 256, Linear(), 1, 64),
    ],
)
def test_levels_of_published_networks_tell_the_rest(
    options, size, schedule, heads, head_width, tmp_path
):
    path = write_shapes(tmp_path, replace(options, attention=(1, 2)))
    model = import_model(str(path))
    assert (model.size, model.schedule) == (size, schedule)
    assert (model.network.heads, model.network.head_width) == (heads, head_width)
    assert model.network.attention == (size // 2, size // 4)
    words = ("schedule", "heads", "order")
    assert all(any(word in note for note in model.notes) for word in words)


def test_what_is_said_goes_before_what_is_assumed(tmp_path):
    path = write_shapes(tmp_path, CIFAR)
    facts = {
        "size": 24,
        "head_width": 32,
        "attention_order": "new",
        "schedule": "linear",
        "steps": 500,
        "target": "x0",
        "dropout": 0.3,
    }
    model = import_model(str(path), facts=facts)
    assert model.notes == ()
    assert model.size == 24 and model.network.attention == (12,)
    assert model.schedule == Linear(steps=500, beta_first=0.0002, beta_last=0.04)
    assert (model.network.head_width, model.network.dropout) == (32, 0.3)
    assert model.target is targets.x0


def test_half_precision_becomes_float32(tmp_path):
    path, state = write(tmp_path, CIFAR, change=lambda s: {n: t.half() for n, t in s.items()})
    weight = import_model(str(path), facts=facts_of(CIFAR)).weights["conv_in.weight"]
    assert weight.dtype == torch.float32
    assert torch.equal(weight, state["input_blocks.0.0.weight"].half().float())


@pytest.mark.parametrize(
    "facts, message",
    [
        ({}, r"size of its pictures is not known: say it, as in size=64"),
        ({"size": 16, "heads": 2, "head_width": 32}, "say one of them"),
        (
            {"size": 16, "schedule": "cosin"},
            r'linear or cosine \(did you mean "cosine"\?\)',
        ),
        ({"size": 16, "rescale_timesteps": 1}, "expected true or false"),
        ({"size": 16, "head_widht": 32}, 'did you mean "head_width"'),
        ({"size": 18}, "multiple of 4"),
        ({"size": 16, "heads": 3}, "must divide"),
    ],
)
def test_a_fact_that_cannot_be_is_refused(facts, message, tmp_path):
    path = write_shapes(tmp_path, CIFAR)
    with pytest.raises(ConfigError, match=message):
        import_model(str(path), facts=facts)


def without(*parts):
    return lambda state: {n: t for n, t in state.items() if not any(part in n for part in parts)}


@pytest.mark.parametrize(
    "options, change, error, message",
    [
        (Options(channels=6), without(), ConfigError, "told another picture"),
        (Options(channels=6, outputs=6), without(), ConfigError, "told another picture"),
        (Options(), without("output_blocks"), ConfigError, "classifier"),
        (Options(width=32), without(), ConfigError, "groups of one channel"),
        (Options(), without(".op.", ".conv."), ConfigError, "conv_resample"),
        (Options(), without("out.0.bias"), CheckpointError, "out.0.bias is missing"),
        (
            Options(),
            without("middle_block.1"),
            CheckpointError,
            "middle_block.1.norm.weight is mis",
        ),
    ],
)
def test_other_networks_of_these_programs_are_refused(options, change, error, message, tmp_path):
    path = write_shapes(tmp_path, options, change=change)
    with pytest.raises(error, match=message):
        import_model(str(path), facts={"size": 16, "heads": 2})


class Command:
    def __reduce__(self):
        return print, ("run",)


def test_a_file_that_would_run_a_program_is_not_opened(tmp_path, capsys):
    path = tmp_path / "model.pt"
    torch.save({"time_embed.0.weight": torch.zeros(1), "more": Command()}, path)
    with pytest.raises(CheckpointError, match="could run a program"):
        import_model(str(path))
    path.write_bytes(pickle.dumps(Command(), protocol=2))
    with pytest.raises(CheckpointError, match="could run a program"):
        import_model(str(path))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize("options", [pytest.param(o, id=n) for n, o in (IMPROVED | GUIDED).items()])
def test_renamed_there_and_back_nothing_is_changed(options, interleaved):
    state = reference.drawn(options)
    shape = read_shape(state, origin="here")
    heads = dict.fromkeys(shape.widths, options.heads)
    known = rules(shape, heads=heads, interleaved=interleaved)
    back = to_theirs(known, to_ours(known, state, origin="here"))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
