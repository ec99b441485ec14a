"""The smallest network of each family, as sections of a configuration."""

from __future__ import annotations

from typing import Any

RESNET = {"encoder_name": "tu-test_resnet"}
TINY: dict[str, dict[str, Any]] = {
    "unet": {**RESNET, "encoder_depth": 3, "decoder_channels": [16, 16, 8]},
    "unetplusplus": {**RESNET, "encoder_depth": 3, "decoder_channels": [16, 16, 8]},
    "deeplabv3plus": {**RESNET, "decoder_channels": 16},
    "upernet": {"encoder_name": "tu-test_convnext", "decoder_channels": 16},
    "segformer": {
        "config": {
            "hidden_sizes": [8, 8, 16, 16],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 1, 2, 2],
            "decoder_hidden_size": 16,
        }
    },
    "mask2former": {
        "config": {
            "feature_size": 32,
            "mask_feature_size": 32,
            "hidden_dim": 32,
            "encoder_feedforward_dim": 16,
            "dim_feedforward": 16,
            "encoder_layers": 1,
            "decoder_layers": 3,
            "num_attention_heads": 2,
            "num_queries": 8,
            "train_num_points": 32,
        },
        "backbone": {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4},
    },
}


def tiny(family: str) -> dict[str, Any]:
    """Give the section `model` of a family."""
    return {"name": family, **TINY[family]}
