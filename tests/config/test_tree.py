import math
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kao.config import RunConfig, dump, leaves, load_config, load_recipe
from kao.config.conditioning import ConditionsConfig
from kao.config.finetuning import FinetuneConfig
from kao.config.sampling import GuidanceConfig
from kao.config.sections import EMAConfig, EvaluationConfig
from kao.config.tree import Origin, component, from_overrides, merge, parse
from kao.diffusion import (
    DDIM,
    EDM,
    Ancestral,
    Cosine,
    Flow,
    Heun,
    Huber,
    MinSNR,
    norms,
    targets,
)
from kao.errors import ConfigError
from kao.networks import UNetConfig
from kao.training import Progressive, Trapezoid

HERE = Origin("my.toml")


def registries(cls=RunConfig, path=""):
    """(dotted path, registry) of every component in the tree."""
    for field in fields(cls):
        if "registry" in field.metadata:
            yield f"{path}{field.name}", field.metadata["registry"]
        elif is_dataclass(hint := get_type_hints(cls)[field.name]):
            yield from registries(hint, f"{path}{field.name}.")


ENTRIES = [(path, kind) for path, registry in registries() for kind in registry]


def at(path, value):
    """at("a.b", 1) -> {"a": {"b": 1}}."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


def fails(table, origin=HERE):
    with pytest.raises(ConfigError) as caught:
        parse(RunConfig, table, origin)
    return str(caught.value)


# --- there and back -----------------------------------------------------------------------------


def test_every_registry_of_the_tree_is_found():
    assert {path for path, _ in registries()} == {
        "schedule",
        "target",
        "network",
        "finetune.schedule",
        "finetune.target",
        "loss.times",
        "loss.weight",
        "loss.norm",
        "optimizer.method",
        "optimizer.schedule",
        "training.curriculum",
        "sampling.sampler",
        "sampling.grid",
        "sampling.threshold",
    }


@pytest.mark.parametrize(("path", "kind"), ENTRIES)
def test_every_component_comes_back_from_toml_as_itself(path, kind):
    config = parse(RunConfig, at(path, {"kind": kind}), HERE)
    assert leaves(dump(config))[f"{path}.kind"] == kind
    assert load_config(config.to_toml(), "run.toml") == config


@pytest.mark.parametrize(("path", "kind"), ENTRIES)
def test_a_name_alone_means_the_component_with_its_defaults(path, kind):
    assert parse(RunConfig, at(path, kind), HERE) == parse(
        RunConfig, at(path, {"kind": kind}), HERE
    )


def values(hint):
    """Values of a type that a configuration may hold."""
    if hint in PLAIN:
        return PLAIN[hint]
    if is_dataclass(hint):
        return trees(hint)
    if get_origin(hint) is Literal:
        return st.sampled_from(get_args(hint))
    if get_origin(hint) is tuple:
        inner, more = get_args(hint)
        if more is ...:
            return st.lists(values(inner), max_size=4).map(tuple)
        return st.tuples(values(inner), values(more))
    return st.one_of([values(part) for part in get_args(hint)])


PLAIN = {
    bool: st.booleans(),
    int: st.integers(0, 10**12),
    # What every component takes: shares, rates and scales alike.
    float: st.floats(1e-6, 1),
    # Lone surrogates are no text that a UTF-8 file could hold.
    str: st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
}


NAMED = {
    "rho": st.floats(1, 9),
    "sigma_min": st.floats(1e-6, 0.4),
    "sigma_max": st.floats(0.5, 1),
    "churn": st.floats(0, 0.4),
    "churn_min": st.floats(0, 0.4),
    "churn_max": st.floats(0.5, 1),
    "bins": st.integers(2, 500),
    "memory": st.integers(1, 500),
    "warmup": st.integers(1, 50),
    "floor": st.floats(0.01, 0.9),
    "knots": st.sampled_from([(), (0.0, 0.25, 1.0)]),
    "batch": st.integers(1, 10**6),
    "micro_batch": st.just("auto") | st.integers(1, 10**6),
    "parts": st.sampled_from([(2,), (4, 2)]),
    "momentum": st.floats(0.01, 0.99),
    "difference": st.floats(0, 0.99),
    "least": st.integers(1, 64),
    "reference": st.integers(1, 10**9),
}
"""Options whose values must fit together, or lie elsewhere."""

GUIDANCE = st.just(GuidanceConfig()) | st.builds(
    GuidanceConfig,
    worse=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
    scale=st.floats(1.5, 9),
    interval=st.tuples(st.floats(0, 0.4), st.floats(0.5, 1)),
    rescale=st.floats(0, 1),
)
"""Neither a worse model nor a scale stands alone."""


AVERAGES = st.builds(
    EMAConfig,
    decay=st.floats(0, 0.999),
    widths=st.lists(st.sampled_from([0.05, 0.1, 0.12]), unique=True).map(tuple),
    snapshots=st.just("auto") | st.integers(0, 10**9),
    warmup=st.booleans(),
    offload=st.booleans(),
)
"""A width lies in its range, and is named once."""


PROGRESSIVE = st.builds(Progressive, parts=st.just((4, 2)), until=st.just((0.25, 0.5)))
"""Each size has the moment at which it ends."""

SCORES = st.builds(
    EvaluationConfig,
    every=st.just("auto") | st.integers(0, 10**9),
    pictures=st.just("auto") | st.integers(16, 10**6),
    steps=st.integers(1, 1000),
    features=st.sampled_from(["faces", "wavelets", "inception"]),
    share=st.floats(0.001, 0.5),
    stop=st.sampled_from(["never", "auto"]),
)
"""Spaces have names, and a share of the time leaves some to train in."""

FINETUNE = st.builds(
    FinetuneConfig,
    base=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    schedule=st.sampled_from([None, Cosine(), Flow()]),
    target=st.sampled_from([None, targets.eps, EDM()]),
    new=st.lists(st.sampled_from(["conv_in.weight", "positions"])).map(tuple),
    train=st.sampled_from(["all", "norms_attention", "lora"]),
    freeze=st.integers(0, 100),
    rank=st.integers(1, 100),
    alpha=st.floats(0, 100),
    old_rate=st.floats(0.01, 10),
)
"""A rank is one or more."""

CLASSES = st.builds(
    ConditionsConfig,
    classes=st.just(True),
    names=st.sampled_from([(), ("cat", "dog"), ("female", "male")]),
    drop=st.floats(0, 0.99),
)
"""Classes have names of their own, and some are told."""

FLOORED = st.builds(MinSNR, gamma=st.floats(1, 100), floor=st.floats(0, 1))
"""A floor is no higher than gamma."""

SPECIAL = {
    MinSNR: FLOORED,
    ConditionsConfig: CLASSES,
    GuidanceConfig: GUIDANCE,
    EMAConfig: AVERAGES,
    EvaluationConfig: SCORES,
    FinetuneConfig: FINETUNE,
    Progressive: PROGRESSIVE,
}


def trees(cls):
    if cls in SPECIAL:
        return SPECIAL[cls]
    hints = get_type_hints(cls)

    def of(field):
        if field.name in NAMED:
            return NAMED[field.name]
        if "registry" not in field.metadata:
            return values(hints[field.name])
        entries = field.metadata["registry"].values()
        return st.one_of([trees(e) if isinstance(e, type) else st.just(e) for e in entries])

    return st.builds(cls, **{field.name: of(field) for field in fields(cls)})


@settings(deadline=None, max_examples=150, derandomize=True)
@given(config=trees(RunConfig))
def test_any_configuration_comes_back_from_its_toml(config):
    assert load_config(config.to_toml(), "run.toml") == config


def test_what_is_left_out_keeps_its_default():
    assert parse(RunConfig, {}, HERE) == RunConfig()
    config = parse(RunConfig, {"network": {"kind": "unet", "width": 64}}, HERE)
    assert config == replace(RunConfig(), network=UNetConfig(width=64))


def test_a_registry_entry_may_be_a_function_a_dataclass_or_none():
    table = {"target": "eps", "loss": {"weight": "plain", "norm": {"kind": "huber", "delta": 0.5}}}
    config = parse(RunConfig, table, HERE)
    assert config.target is targets.eps
    assert config.loss.weight is None
    assert config.loss.norm == Huber(delta=0.5)
    assert dump(config)["loss"]["weight"] == {"kind": "plain"}


def test_a_component_outside_its_registry_has_no_name_to_be_saved_under():
    with pytest.raises(ConfigError, match=r"is not in the registry .*eps, x0, v.*add it there"):
        dump(replace(RunConfig(), target=lambda level: (0.0, 1.0)))


# --- what is refused ----------------------------------------------------------------------------


def test_an_unknown_key_is_named_with_its_near_miss_section_and_line():
    text = '# mine\n[network]\nkind = "unet"\nwidht = 64\n'
    with pytest.raises(ConfigError) as caught:
        load_config(text, "my.toml")
    assert str(caught.value).startswith(
        'unknown key "widht" in [network] of my.toml:4 (did you mean "width"?); '
        "[network] has: width, levels, blocks, attention,"
    )


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"lenght": "1 step"}, 'unknown key "lenght" in the top level of my.toml (did you mean'),
        (at("data.augment.flipp", True), 'unknown key "flipp" in [data.augment] of my.toml (did'),
        (at("schedule", {"kind": "flow", "steps": 9}), 'unknown key "steps" in [schedule]'),
        (at("schedule", {"kind": "flow", "steps": 9}), "[schedule] has: shift."),
        (at("data.zebra", 1), 'unknown key "zebra" in [data] of my.toml; [data] has: source, size'),
        (at("schedule", "lineer"), 'unknown schedule "lineer" in my.toml (did you mean "linear"?)'),
        (at("schedule", "lineer"), "there are: linear, scaled_linear, cosine,"),
        (at("target", {"kind": "v", "gamma": 1}), 'target "v" takes no options'),
        (at("target", {"kind": "v", "gamma": 1}), "my.toml gives it gamma: remove"),
        (at("schedule", {"steps": 9}), "expected a name or a table with a kind: linear,"),
        (at("schedule", 5), "schedule = 5 in my.toml; expected a name or a table with a kind"),
        (at("data", "faces"), "data = 'faces' in my.toml; expected a table [data]."),
    ],
)
def test_keys_and_kinds_that_do_not_exist_are_refused_with_what_does(table, words):
    assert words in fails(table)


def test_a_key_that_stands_on_several_lines_is_given_none():
    text = "[loss]\nsize = 1\n[data]\nsize = 2\n"
    with pytest.raises(ConfigError, match=r'unknown key "size" in \[loss\] of my\.toml;'):
        load_config(text, "my.toml")


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("network.width", "wide", "a whole number"),
        ("network.width", "64", "a whole number"),
        ("network.width", 64.5, "a whole number"),
        ("network.width", True, "a whole number"),
        ("network.levels", 3, "a list, each a whole number"),
        ("network.levels", [1, "two"], "a list, each a whole number"),
        ("network.stem", 3, "one of 1, 2, 4"),
        ("optimizer.rate", "fast", "a number"),
        ("optimizer.betas", [0.9], "a list of 2, each a number"),
        ("data.augment.flip", 1, "true or false"),
        ("data.source", 3, "a text"),
        ("data.crop", "center", 'one of "centre", "pad", "none"'),
        ("hooks.log", "often", 'a whole number or one of "auto"'),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_in_words(path, value, expected):
    table = merge(dump(RunConfig()), at(path, value))
    assert fails(table) == f"{path} = {value!r} in my.toml; expected {expected}."


def test_a_wrong_type_is_found_on_its_line():
    text = '\n[training]\n\nbatch = "many"\n'
    assert "training.batch = 'many' in my.toml:4;" in fails(
        {"training": {"batch": "many"}}, Origin("my.toml", text)
    )


def test_a_whole_number_is_a_number():
    assert parse(RunConfig, at("ema.decay", 0), HERE).ema.decay == 0.0


def test_what_is_no_toml_is_said_to_be_none():
    with pytest.raises(ConfigError, match=r"run\.toml is not TOML: .*line 1"):
        load_config("length: 5", "run.toml")


# --- tables over tables -------------------------------------------------------------------------


def test_merging_changes_neither_table():
    base, change = {"a": {"b": 1, "c": 2}}, {"a": {"b": 3}, "d": 4}
    assert merge(base, change) == {"a": {"b": 3, "c": 2}, "d": 4}
    assert (base, change) == ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}, "d": 4})


COSINE = {"kind": "cosine", "steps": 50}


@pytest.mark.parametrize(
    ("change", "merged"),
    [
        ({"steps": 9}, {"kind": "cosine", "steps": 9}),
        ({"kind": "cosine", "offset": 0.1}, {"kind": "cosine", "steps": 50, "offset": 0.1}),
        ({"kind": "linear"}, {"kind": "linear"}),
        ("flow", {"kind": "flow"}),
        ("cosine", COSINE),
    ],
)
def test_a_component_of_another_kind_replaces_the_old_one_with_its_options(change, merged):
    assert merge({"schedule": COSINE}, {"schedule": change}) == {"schedule": merged}


def test_options_go_to_the_kind_that_a_name_alone_gave():
    merged = merge({"schedule": "cosine"}, {"schedule": {"steps": 9}})
    assert merged == {"schedule": {"kind": "cosine", "steps": 9}}


def test_leaves_are_dotted_paths():
    assert leaves({"a": {"b": 1, "c": {"d": [2]}}, "e": 3}) == {"a.b": 1, "a.c.d": [2], "e": 3}


# --- key=value ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "table"),
    [
        ("network.width=64", {"network": {"width": 64}}),
        ("optimizer.rate=1e-3", {"optimizer": {"rate": 0.001}}),
        ("network.levels=[1, 2]", {"network": {"levels": [1, 2]}}),
        ("network.attention=[]", {"network": {"attention": []}}),
        ('data.classes=["cat"]', {"data": {"classes": ["cat"]}}),
        ("data.augment.flip=false", {"data": {"augment": {"flip": False}}}),
        ("schedule=flow", {"schedule": "flow"}),
        ('schedule={kind="cosine", steps=50}', {"schedule": COSINE}),
        ("length=100k images", {"length": "100k images"}),
        ('data.source="1"', {"data": {"source": "1"}}),
        ("data.source=a=b", {"data": {"source": "a=b"}}),
        ("data.source=", {"data": {"source": ""}}),
    ],
)
def test_overrides_are_toml_values_or_text(word, table):
    assert from_overrides([word]) == table


def test_overrides_are_put_together_the_last_one_counting():
    words = ["network.width=8", "network.blocks=1", "network.width=16"]
    assert from_overrides(words) == {"network": {"width": 16, "blocks": 1}}


@pytest.mark.parametrize("words", [["schedule.kind=cosine", "schedule.steps=50"]])
def test_a_kind_and_its_options_may_come_in_any_order(words):
    assert from_overrides(words) == from_overrides(words[::-1]) == {"schedule": COSINE}


@pytest.mark.parametrize("word", ["network.width", "=3", ".width=3", "network..width=3", "a.=1"])
def test_a_word_that_is_no_override_is_refused(word):
    with pytest.raises(
        ConfigError, match=f'^"{word}" is not an override: expected key=value, such'
    ):
        from_overrides([word])


# --- a tree of one's own ------------------------------------------------------------------------


@dataclass(frozen=True)
class Mine:
    sampler: object = component({"ddim": DDIM, "none": None, "l1": norms.l1}, None)


@pytest.mark.parametrize("value", [None, norms.l1, DDIM(eta=0.5)])
def test_the_tree_knows_nothing_of_what_it_holds(value):
    assert parse(Mine, dump(Mine(value)), HERE) == Mine(value)


def test_the_defaults_fit_together():
    RunConfig().check()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (at("seed", -1), "seed = -1; expected 0 or more."),
        (at("training.batch", 0), "training.batch = 0; expected 1 or more."),
        (at("hooks.log", 0), "hooks.log = 0; expected 1 or more."),
        (at("hooks.keep_last", 0), "hooks.keep_last = 0; expected 1 or more."),
        (at("ema.decay", 1), "ema.decay = 1.0; expected 0 or more, below 1."),
        (at("optimizer.rate", 0), "optimizer.rate = 0.0; expected a finite number above 0"),
        (at("optimizer.schedule.cooldown", 2), "cooldown = 2.0; expected a share of the run"),
        (at("optimizer.schedule.warmup", -1), "warmup = -1; expected 0 images or more"),
        (at("length", "soon"), 'length = "soon"; expected a number above 0 and a unit'),
        (at("data.augment.crop", 99), "data.augment.crop = 99; expected 0 to 31 pixels"),
        (at("network.width", 7), "network.width = 7; the sinusoidal embedding needs an even width"),
        (at("data.size", 36), "needs a size that is a multiple of 8, and data.size = 36: try"),
        (at("network.attention", [5]), "names the size 5, which no level has at data.size = 32"),
        (
            {"schedule": "flow", "target": "eps"},
            'target = "eps" does not go with a schedule that ends in pure noise',
        ),
        (
            {"schedule": COSINE, "sampling": {"steps": 51}},
            "steps = 51, but the schedule has 50 times to visit",
        ),
        ({"sampling": {"grid": "leading"}}, "VPCosineSchedule is continuous"),
    ],
)
def test_values_that_do_not_fit_together_are_refused_before_anything_is_built(change, words):
    with pytest.raises(ConfigError) as caught:
        parse(RunConfig, merge(dump(RunConfig()), change), HERE).check()
    assert words in str(caught.value)


OF_COMPONENTS = [
    ("schedule.steps", "linear", 1, "schedule.steps = 1, but a chain needs"),
    ("target.sigma_data", "edm", -1, "target.sigma_data = -1.0, but the data's"),
    ("network.width", "unet", 7, "network.width = 7; the sinusoidal embedding"),
    ("finetune.schedule.steps", "linear", 1, "finetune.schedule.steps = 1, but a chain needs"),
    ("finetune.target.sigma_data", "edm", -1, "finetune.target.sigma_data = -1.0, but the"),
    ("loss.times.bins", "warped", 1, "loss.times.bins = 1, but a density"),
    ("loss.weight.gamma", "min_snr", -1, "loss.weight.gamma = -1.0, but it must"),
    ("loss.norm.delta", "huber", 0, "loss.norm.delta = 0.0, but it must"),
    ("optimizer.method.momentum", "muon", 1, "optimizer.method.momentum = 1.0; expected"),
    ("training.curriculum.whole", "patches", 2, "training.curriculum.whole = 2.0"),
    ("optimizer.schedule.warmup", "trapezoid", -1, "optimizer.schedule.warmup = -1; expected"),
    ("sampling.sampler.eta", "ddim", 2, "sampling.sampler.eta = 2.0, but it lies"),
    (
        "sampling.sampler.churn_min",
        "heun",
        1e7,
        "sampling.sampler.churn_min = 10000000.0 and sampling.sampler.churn_max = 1000000.0, but",
    ),
    ("sampling.grid.rho", "karras", 0, "sampling.grid.rho = 0.0, but it lies"),
    (
        "sampling.threshold.limit",
        "clip",
        -1,
        "[sampling.threshold] of my.toml: The clipping limit is -1.0, but",
    ),
]


@pytest.mark.parametrize(
    ("key", "kind", "value", "words"), OF_COMPONENTS, ids=[key for key, *_ in OF_COMPONENTS]
)
def test_what_a_component_refuses_is_named_by_its_place(key, kind, value, words):
    path, _, option = key.rpartition(".")
    with pytest.raises(ConfigError) as caught:
        parse(RunConfig, at(path, {"kind": kind, option: value}), HERE).check()
    assert str(caught.value).startswith(words)


def test_a_refusal_is_tried_in_every_registry():
    assert {key.rpartition(".")[0] for key, *_ in OF_COMPONENTS} == {p for p, _ in registries()}


NUMBERS = [
    pytest.param(path, kind, field.name, id=f"{path}.{kind}.{field.name}")
    for path, registry in registries()
    for kind, entry in registry.items()
    if isinstance(entry, type)
    for field in fields(entry)
    if get_type_hints(entry)[field.name] is float
]


@pytest.mark.parametrize(("path", "kind", "option"), NUMBERS)
def test_an_option_that_is_no_number_is_refused_by_a_key_that_exists(path, kind, option):
    with pytest.raises(ConfigError) as caught:
        parse(RunConfig, at(path, {"kind": kind, option: math.nan}), HERE).check()
    place = f"{path}.{option} = nan"
    assert place in str(caught.value) or str(caught.value).startswith(f"[{path}] of my.toml: ")


def test_components_carry_their_options():
    table = {
        "schedule": {"kind": "cosine", "steps": 50},
        "target": {"kind": "edm", "sigma_data": 0.3},
        "loss": {"weight": {"kind": "min_snr", "gamma": 2}},
        "optimizer": {"schedule": {"kind": "trapezoid", "warmup": 5}},
        "sampling": {"sampler": {"kind": "ddpm", "variance": "beta"}},
    }
    config = parse(RunConfig, table, HERE)
    assert config.schedule == Cosine(steps=50)
    assert config.target == EDM(sigma_data=0.3)
    assert config.loss.weight == MinSNR(gamma=2.0)
    assert config.optimizer.schedule == Trapezoid(warmup=5)
    assert config.sampling.sampler == Ancestral(variance="beta")
    assert parse(RunConfig, {"schedule": "flow"}, HERE).schedule == Flow()
    assert parse(RunConfig, at("sampling.sampler", "heun"), HERE).sampling.sampler == Heun()


@pytest.mark.parametrize("name", ["fl\udce4chen", "\ud800", "a\nb\x1b[31m", "\u732b", "q\"u'o\\te"])
def test_names_of_any_bytes_come_back_from_a_configuration(tmp_path, name):
    from kao.files import read_text, write_text

    table = {"data": {"source": name, "classes": [name]}}
    config = parse(RunConfig, table, Origin("a test"))
    write_text(tmp_path / "run.toml", config.to_toml())
    again = load_config(read_text(tmp_path / "run.toml"), "run.toml")
    assert again == config and again.data.source == name and again.data.classes == (name,)


def number_keys(cls, hold=(), kinds=None):
    """(key, its type, the kinds that it needs) for each number that a configuration can have."""
    hints = get_type_hints(cls)
    for field in fields(cls):
        names = (*hold, field.name)
        for kind, entry in field.metadata.get("registry", {}).items():
            if isinstance(entry, type):
                told = from_overrides([f"{'.'.join(names)}.kind={kind}"])
                yield from number_keys(entry, names, merge(kinds or {}, told))
        if is_dataclass(hints[field.name]):
            yield from number_keys(hints[field.name], names, kinds)
        elif "int" in str(hints[field.name]) or "float" in str(hints[field.name]):
            yield ".".join(names), hints[field.name], kinds or {}


NUMBERS = list(number_keys(RunConfig))
IDS = ["-".join([key, *map(str, leaves(kinds).values())]) for key, _, kinds in NUMBERS]


@pytest.mark.parametrize(("key", "hint", "kinds"), NUMBERS, ids=IDS)
def test_every_number_is_read_or_refused_in_words(key, hint, kinds):
    for value in ("9" * 20, "nan", "1e999", "-0.0"):
        word = f"{key}=[{value}]" if get_origin(hint) is tuple else f"{key}={value}"
        try:
            config = parse(RunConfig, merge(kinds, from_overrides([word])), Origin("x"))
        except ConfigError as error:
            assert any(part in str(error) for part in key.split("."))
        else:
            assert "int" not in str(hint) or value == "-0.0"
            assert "-0.0" not in str(leaves(dump(config))[key])


def test_whole_numbers_have_64_bits():
    assert parse(RunConfig, {"seed": 2**63 - 1}, Origin("x")).seed == 2**63 - 1
    for word in (f"seed={2**63}", f"conditions.counts=[1, {2**63}]", f"seed={'9' * 5000}"):
        with pytest.raises(ConfigError, match="whole number"):
            parse(RunConfig, from_overrides([word]), Origin("x"))


def test_a_file_with_a_number_of_thousands_of_digits_is_refused(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text(f"seed = {'9' * 5000}")
    with pytest.raises(ConfigError, match="not TOML"):
        load_config(file.read_text(), "my.toml")
    with pytest.raises(ConfigError, match="not TOML"):
        load_recipe(str(file))
