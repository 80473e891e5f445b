"""Published models as tests have them: their configurations, made small, with random weights."""

import torch

_UNET = {
    "act_fn": "silu",
    "center_input_sample": False,
    "in_channels": 3,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_num_groups": 32,
    "out_channels": 3,
    "time_embedding_type": "positional",
}
_DDPM = {
    **_UNET,
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-06,
}
_SIX_LEVELS = {
    "block_out_channels": [128, 128, 256, 256, 512, 512],
    "down_block_types": [*["DownBlock2D"] * 4, "AttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4],
}

UNETS = {
    "google/ddpm-celebahq-256": {**_DDPM, **_SIX_LEVELS, "sample_size": 256},
    "google/ddpm-cifar10-32": {
        **_DDPM,
        "block_out_channels": [128, 256, 256, 256],
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
        "sample_size": 32,
    },
    "anton-l/ddpm-ema-flowers-64": {
        **_UNET,
        **_SIX_LEVELS,
        "attention_head_dim": 8,
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "norm_eps": 1e-05,
        "sample_size": 64,
    },
}
"""The config.json of these repositories' networks."""

COUNTS = {
    "google/ddpm-celebahq-256": 113_673_219,
    "google/ddpm-cifar10-32": 35_746_307,
    "anton-l/ddpm-ema-flowers-64": 113_673_219,
}
"""Numbers that these networks have."""

DIT = {
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "attention_head_dim": 72,
    "dropout": 0.0,
    "in_channels": 4,
    "norm_elementwise_affine": False,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "norm_type": "ada_norm_zero",
    "num_attention_heads": 16,
    "num_embeds_ada_norm": 1000,
    "num_layers": 28,
    "out_channels": 8,
    "patch_size": 2,
    "sample_size": 32,
    "upcast_attention": False,
}
"""Of facebook/DiT-XL-2-256."""


def shrunk(config):
    """The same options with an eighth of the channels, on 32 pixels."""
    widths = [width // 8 for width in config["block_out_channels"]]
    return {**config, "block_out_channels": widths, "norm_num_groups": 8, "sample_size": 32}


def filled(module, seed=0):
    """The module, with weights that are random everywhere and keep the size of what passes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            noise = torch.randn(tensor.shape, generator=generator)
            if tensor.ndim == 1:
                centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
                tensor.copy_(centre + 0.1 * noise)
            else:
                tensor.copy_(noise * tensor[0].numel() ** -0.5)
    return module.eval()
