"""Files with the interfaces of published feature networks, and random weights in them."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kao.metrics import WeightFile

OTHER = "0123456789abcdef" * 4
"""A hash that is not the published one."""


class Layers(nn.Module):
    """Pictures in [-1, 1] to (B, 2048, 1, 1), as the layers of Inception-v3 before its last."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 512, 5, stride=29)
        self.pool = nn.AdaptiveAvgPool2d(2)

    def forward(self, x: Tensor):
        return self.pool(F.relu(self.convolution(x))).reshape(-1, 2048, 1, 1)


class InceptionStandIn(nn.Module):
    """Inception-v3 in all but its layers: the arguments, the resize, the units and the output."""

    def __init__(self):
        super().__init__()
        self.layers = Layers()
        self.output = nn.Linear(2048, 1008)

    def forward(
        self,
        img: Tensor,
        return_features: bool = False,
        use_fp16: bool = False,
        no_output_bias: bool = False,
    ):
        batch, _, height, width = img.shape
        x = img.to(torch.float16 if use_fp16 else torch.float32)
        theta = torch.eye(2, 3, device=x.device)
        # Target centres onto source corners: TensorFlow 1's source = target * size / 299.
        theta[0, 2] = 1 / width - 1 / 299
        theta[1, 2] = 1 / height - 1 / 299
        theta = theta.to(x.dtype).unsqueeze(0).repeat(batch, 1, 1)
        grid = F.affine_grid(theta, [batch, 3, 299, 299], align_corners=False)
        x = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
        features = self.layers((x - 128) / 128).reshape(-1, 2048)
        if return_features:
            return features
        if no_output_bias:
            return F.linear(features, self.output.weight).softmax(dim=1)
        return self.output(features).softmax(dim=1)


class LPIPSStandIn(nn.Module):
    """VGG-16 with LPIPS in all but its layers: pictures in 0..255, features normalised in each."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 8, 3, padding=1)

    def forward(
        self,
        img: Tensor,
        resize_images: bool = True,
        return_features: bool = False,
        return_lpips: bool = False,
    ):
        x = img.to(torch.float32) / 127.5 - 1
        if resize_images:
            x = F.interpolate(x, [224, 224], mode="bilinear")
        first = F.relu(self.first(x))
        second = F.relu(self.second(F.max_pool2d(first, 2)))
        if not return_lpips:
            return second.mean(dim=[2, 3])
        parts: list[Tensor] = []
        for layer in (first, second):
            unit = layer / (layer.square().sum(dim=1, keepdim=True) + 1e-10).sqrt()
            parts.append(unit.flatten(1) / float(layer.shape[2] * layer.shape[3]) ** 0.5)
        return torch.cat(parts, dim=1)


def scripted(network: type[nn.Module], path: Path) -> WeightFile:
    """Save a stand-in as TorchScript, with the same random weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.jit.script(network()).save(str(path))
    return WeightFile(path, OTHER)


def tiny_dinov2(folder: Path) -> Path:
    """Save a DINOv2 of two layers as `save_pretrained` does."""
    from transformers import Dinov2Config, Dinov2Model

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    return _saved(lambda: Dinov2Model(Dinov2Config(image_size=28, patch_size=14, **sizes)), folder)


def tiny_clip(folder: Path) -> Path:
    """Save the seeing half of a CLIP of two layers, for pictures of 28 x 28 pixels."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    more = {"intermediate_size": 32, "projection_dim": 8, "image_size": 28, "patch_size": 14}
    config = CLIPVisionConfig(**sizes, **more)
    return _saved(lambda: CLIPVisionModelWithProjection(config), folder)


def _saved(make, folder: Path) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        make().save_pretrained(folder)
    return folder
