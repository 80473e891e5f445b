import numpy as np
import pytest
import torch
from PIL import Image
from standins import tiny_clip, tiny_dinov2
from transformers import CLIPVisionModelWithProjection, Dinov2Model, image_transforms
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
)

from kao.errors import ConfigError, MissingExtraError
from kao.metrics import CLIP, DINOv2


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory):
    return tiny_dinov2(tmp_path_factory.mktemp("dinov2"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return tiny_clip(tmp_path_factory.mktemp("clip"))


def pictures(count, size):
    generator = torch.Generator().manual_seed(0)
    shape = (count, 3, size, size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@torch.no_grad()
def test_dinov2_is_the_class_token_of_pictures_prepared_by_transformers(dinov2):
    images = pictures(2, 40)
    prepared = []
    for image in images.permute(0, 2, 3, 1).numpy():
        x = image_transforms.resize(image, (224, 224), resample=Image.Resampling.BICUBIC)
        x = image_transforms.rescale(x, 1 / 255, dtype=np.float32)
        x = image_transforms.normalize(x, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        prepared.append(torch.from_numpy(x).permute(2, 0, 1).float())
    network = Dinov2Model.from_pretrained(dinov2).eval()
    expected = network(pixel_values=torch.stack(prepared)).last_hidden_state[:, 0]
    features = DINOv2(dinov2)(images)
    assert features.shape == (2, 16)
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [20, 28, 100])
@torch.no_grad()
def test_clip_is_the_embedding_of_cmmd_of_length_1(clip, size):
    """Resized by Pillow to bytes, then to 0..1, as `io_util` of their code does it."""
    images, prepared = pictures(2, size), []
    for image in images.permute(0, 2, 3, 1).contiguous().numpy():
        resized = Image.fromarray(image).resize((28, 28), resample=Image.Resampling.BICUBIC)
        x = np.asarray(resized).astype(np.float32) / 255
        x = image_transforms.normalize(x, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
        prepared.append(torch.from_numpy(x).permute(2, 0, 1).float())
    network = CLIPVisionModelWithProjection.from_pretrained(clip).eval()
    embedding = network(pixel_values=torch.stack(prepared)).image_embeds
    features = CLIP(clip)(images)
    torch.testing.assert_close(features, torch.nn.functional.normalize(embedding))
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2))


def test_the_name_changes_with_the_weights_and_not_with_the_file(dinov2, tmp_path):
    name = DINOv2(dinov2).name
    network = Dinov2Model.from_pretrained(dinov2)
    network.save_pretrained(tmp_path / "parts", max_shard_size="20KB")
    assert len([*(tmp_path / "parts").glob("*.safetensors")]) > 1
    assert DINOv2(tmp_path / "parts").name == name
    with torch.no_grad():
        network.layernorm.bias[0] += 1
    network.save_pretrained(tmp_path / "other")
    assert DINOv2(tmp_path / "other").name != name


@pytest.mark.parametrize("space", [DINOv2, CLIP])
def test_which_weights_were_loaded_is_told(space, dinov2, clip):
    told = []
    place = dinov2 if space is DINOv2 else clip
    opened = space(place, tell=told.append)
    (sentence,) = told
    assert f"are those found in {place}, digest {opened.name[-8:]}: no digest is" in sentence


def test_weights_in_the_folder_of_weights_are_found(clip, tmp_path, monkeypatch):
    (tmp_path / "clip").symlink_to(clip)
    monkeypatch.setenv("KAO_WEIGHTS", str(tmp_path))
    assert CLIP().name == CLIP(clip).name


def test_weights_of_another_network_are_refused(dinov2, clip):
    with pytest.raises(ConfigError, match=r"another network than Dinov2Model: .* missing"):
        DINOv2(clip)
    with pytest.raises(ConfigError, match="holds another network than CLIPVisionModelWithProj"):
        CLIP(dinov2)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"dinov2=.*no, and there is no such folder: give one"):
        DINOv2(tmp_path / "no")


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(
        ConfigError, match=r'space "clip" cannot be read from .*: put the files of '
    ):
        CLIP(tmp_path)


def test_damaged_weights_are_refused(dinov2, tmp_path):
    (tmp_path / "config.json").write_bytes((dinov2 / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"half")
    with pytest.raises(ConfigError, match='space "dinov2" cannot be read from'):
        DINOv2(tmp_path)


def test_without_a_network_a_sentence_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv("KAO_WEIGHTS", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError) as error:
        DINOv2()
    message = str(error.value)
    assert message.startswith('The weights of the feature space "dinov2" cannot be read from faceb')
    assert message.endswith(
        "): put the files of https://huggingface.co/facebook/dinov2-large into a folder, and say "
        "where it is with --weights dinov2=FOLDER, or call it $KAO_WEIGHTS/dinov2."
    )
    assert "\n" not in message


def test_a_hub_that_does_not_answer_is_asked_once(tmp_path, monkeypatch, capfd):
    asked = []

    class Cut:
        def head(self, url, *, timeout):
            asked.append(url)
            raise OSError("no route")

    monkeypatch.delenv("KAO_WEIGHTS", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.get_session", Cut)
    with pytest.raises(ConfigError, match=r"facebook/dinov2-large \(no route\): put the files"):
        DINOv2()
    assert len(asked) == 1
    assert capfd.readouterr() == ("", "")


def test_without_transformers_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"to see pictures as CLIP does .* extra 'text'"):
        CLIP()
