"""DiTTransformer2DModel as our DiT: the same numbers."""

import json

import pytest
import torch
from pipelines import DIT, filled

from kao.diffusion import targets
from kao.errors import CheckpointError, ConfigError
from kao.exchange import import_model
from kao.exchange.diffusers_dit import read_config, rules
from kao.exchange.renaming import to_ours, to_theirs
from kao.networks import Conditions
from kao.networks.conditions import Takes
from kao.networks.cost import parameters

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

SMALL = {
    **DIT,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "num_embeds_ada_norm": 5,
    "num_layers": 3,
    "sample_size": 8,
}


def theirs_of(config):
    """With one embedding of level and class in all blocks, as the published weights have it."""
    network = filled(diffusers.DiTTransformer2DModel.from_config(config))
    first, *others = (block.norm1.emb for block in network.transformer_blocks)
    for other in others:
        other.load_state_dict(first.state_dict())
    return network


@pytest.fixture
def saved(tmp_path):
    theirs = theirs_of(SMALL)
    theirs.save_pretrained(tmp_path / "transformer")
    diffusers.DDIMScheduler().save_pretrained(tmp_path / "scheduler")
    return theirs, tmp_path


def test_the_published_configuration_has_675_million_parameters_with_its_classes():
    # Peebles & Xie count 256 positions of 1152 numbers, too, which are fixed.
    with torch.device("meta"):
        network = read_config(DIT).build(channels=4, size=32, outputs=8, takes=Takes(classes=1000))
    assert parameters(network) == 675_129_632 - 256 * 1152


@torch.no_grad()
def test_it_says_the_same_as_diffusers_with_and_without_a_class(saved):
    theirs, folder = saved
    model = import_model(str(folder))
    assert (model.channels, model.size, model.learned_variance) == (4, 8, True)
    assert len(model.classes) == 5 and model.target is targets.eps
    network = model.build()
    x = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([0, 7, 500, 999])
    for label in (torch.tensor([1, 4, 0, 1]), torch.full((4,), 5)):
        expected = theirs(x, t, class_labels=label).sample
        met = network(x, t.float(), Conditions(label=label))
        assert 0.05 < expected.std() < 5
        worst = (met - expected).abs().amax(dim=(1, 2, 3))
        assert (worst < 3e-6).all()
    assert torch.equal(met, network(x, t.float(), None))


def test_the_number_that_keeps_a_norm_from_dividing_by_zero_is_read():
    assert read_config(SMALL).mlp_norm_eps == 1e-5
    assert read_config({**SMALL, "norm_eps": 1e-3}).mlp_norm_eps == 1e-3


def test_the_name_of_the_published_weights_is_known_with_its_empty_options(saved):
    _, folder = saved
    file = folder / "transformer" / "config.json"
    config = json.loads(file.read_text())
    old = {"_class_name": "Transformer2DModel", "num_vector_embeds": None}
    old |= {
        "cross_attention_dim": None,
        "only_cross_attention": False,
        "norm_type": "ada_norm_zero",
    }
    file.write_text(json.dumps({**config, **old}))
    assert import_model(str(folder)).network == read_config(SMALL)


def test_class_names_are_those_of_the_pipeline(saved):
    _, folder = saved
    names = {"0": "cat", "1": "dog", "2": "crane", "3": "crane", "4": "owl"}
    (folder / "model_index.json").write_text(json.dumps({"id2label": names}))
    assert import_model(str(folder)).classes == ("cat", "dog", "crane (2)", "crane (3)", "owl")


def test_blocks_with_embeddings_of_their_own_are_refused(saved):
    theirs, folder = saved
    with torch.no_grad():
        theirs.transformer_blocks[1].norm1.emb.class_embedder.embedding_table.weight[0, 0] += 1
    theirs.save_pretrained(folder / "transformer")
    with pytest.raises(CheckpointError, match=r"transformer_blocks\.1\..* differs from"):
        import_model(str(folder))


def test_weights_go_back_to_the_names_they_came_from():
    state = theirs_of(SMALL).state_dict()
    named = rules(read_config(SMALL), outputs=8)
    back = to_theirs(named, to_ours(named, state, origin="here"))
    assert state.keys() == back.keys()
    assert all(torch.equal(tensor, back[name]) for name, tensor in state.items())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"norm_type": "layer_norm"}, "norm_type = 'layer_norm'"),
        ({"activation_fn": "geglu"}, "activation_fn = 'geglu'"),
        ({"attention_bias": False}, "attention_bias = False"),
        ({"norm_elementwise_affine": True}, "norm_elementwise_affine = True"),
        ({"cross_attention_dim": 768}, "cross_attention_dim = 768"),
        ({"sample_size": [8, 16]}, r"sample_size = \[8, 16\]"),
        ({"gate": 1}, "gate = 1 is no option"),
        ({"num_layers": "3"}, "num_layers = '3' in config.json is damaged"),
        ({"norm_eps": None}, "norm_eps = None in config.json is damaged"),
        ({"sample_size": 0}, "sample_size = 0 in config.json is damaged"),
        ({"dropout": "x"}, "dropout = 'x' in config.json is damaged"),
    ],
)
def test_what_a_dit_has_not_is_refused_by_its_key(change, words):
    with pytest.raises(ConfigError, match=words):
        read_config({**SMALL, **change})
