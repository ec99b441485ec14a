"""Tiny networks of transformers from random weights, with their processors: one of each kind of output."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

LABELS = {0: "background", 1: "nerve", 2: "vessel"}
NAMES = {"id2label": LABELS, "label2id": {v: k for k, v in LABELS.items()}}
QUERIES = {"num_queries": 6, "hidden_dim": 32, "mask_feature_size": 32, "feature_size": 32}
SWIN = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 2], "window_size": 4, "image_size": 64}
STAGES = ["stage1", "stage2", "stage3", "stage4"]


def segformer() -> tuple[Any, Any]:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation
    from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

    config = SegformerConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 8, 16, 16],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=8,
        **NAMES,
    )
    return SegformerForSemanticSegmentation(config), SegformerImageProcessorPil(size={"height": 96, "width": 64})


def upernet() -> tuple[Any, Any]:
    from transformers import ConvNextConfig, UperNetConfig, UperNetForSemanticSegmentation

    backbone = ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], out_features=STAGES)
    config = UperNetConfig(backbone_config=backbone, hidden_size=16, auxiliary_channels=8, pool_scales=[1, 2], **NAMES)
    return UperNetForSemanticSegmentation(config), segformer()[1]


def mask2former() -> tuple[Any, Any]:
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig
    from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil

    config = Mask2FormerConfig(
        backbone_config=SwinConfig(**SWIN, out_features=STAGES),
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        encoder_feedforward_dim=16,
        dim_feedforward=16,
        **QUERIES,
        **NAMES,
    )
    return Mask2FormerForUniversalSegmentation(config), Mask2FormerImageProcessorPil(
        size={"shortest_edge": 64, "longest_edge": 96}, ignore_index=255
    )


def maskformer() -> tuple[Any, Any]:
    from transformers import DetrConfig, MaskFormerConfig, MaskFormerForInstanceSegmentation, SwinConfig
    from transformers.models.maskformer.image_processing_pil_maskformer import MaskFormerImageProcessorPil

    decoder = DetrConfig(
        d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, num_queries=6,
    )  # fmt: skip
    config = MaskFormerConfig(
        fpn_feature_size=32,
        mask_feature_size=32,
        backbone_config=SwinConfig(**SWIN, out_features=STAGES),
        decoder_config=decoder,
        **NAMES,
    )
    return MaskFormerForInstanceSegmentation(config), MaskFormerImageProcessorPil(
        size={"height": 64, "width": 96}, ignore_index=255
    )


def oneformer() -> tuple[Any, Any]:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        OneFormerConfig,
        OneFormerForUniversalSegmentation,
        OneFormerProcessor,
        PreTrainedTokenizerFast,
        SwinConfig,
    )
    from transformers.models.oneformer.image_processing_pil_oneformer import OneFormerImageProcessorPil

    config = OneFormerConfig(
        backbone_config=SwinConfig(**SWIN, out_features=STAGES),
        num_queries=6, hidden_dim=32, conv_dim=32, mask_dim=32, num_attention_heads=2, encoder_feedforward_dim=16,
        dim_feedforward=16, encoder_layers=1, decoder_layers=2, query_dec_layers=1, text_encoder_width=32,
        text_encoder_num_layers=1, text_encoder_context_length=8, text_encoder_vocab_size=20, task_seq_len=8,
        text_encoder_proj_layers=1, text_encoder_n_ctx=2, max_seq_len=8, **NAMES,
    )  # fmt: skip
    words = ["<pad>", "<unk>", "the", "task", "is", "semantic", "a", "photo", "with", "an"]
    tokenizer = Tokenizer(models.WordLevel({w: k for k, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    info = {str(k): {"name": name, "isthing": 0} for k, name in LABELS.items()}
    folder = Path(tempfile.mkdtemp())
    (folder / "classes.json").write_text(json.dumps(info))
    images = OneFormerImageProcessorPil(
        size={"height": 64, "width": 96}, repo_path=str(folder), class_info_file="classes.json", num_text=4
    )
    text = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>")
    return OneFormerForUniversalSegmentation(config), OneFormerProcessor(
        image_processor=images, tokenizer=text, max_seq_length=8, task_seq_length=8
    )


def eomt() -> tuple[Any, Any]:
    from transformers import EomtConfig, EomtForUniversalSegmentation
    from transformers.models.eomt.image_processing_pil_eomt import EomtImageProcessorPil

    config = EomtConfig(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=2, image_size=64, patch_size=8, num_queries=6,
        num_blocks=1, num_upscale_blocks=1, **NAMES,
    )  # fmt: skip
    return EomtForUniversalSegmentation(config), EomtImageProcessorPil(
        size={"shortest_edge": 64, "longest_edge": None}, do_split_image=True, ignore_index=255
    )


KINDS: dict[str, Callable[[], tuple[Any, Any]]] = {
    f.__name__: f for f in (segformer, upernet, mask2former, maskformer, oneformer, eomt)
}


SEEDS = {"segformer": 11, "upernet": 2, "mask2former": 1, "maskformer": 13, "oneformer": 9, "eomt": 31}
"""Random weights with which several classes win on the demo's images."""


def make(kind: str) -> tuple[Any, Any]:
    """Make a network and its processor."""
    model, processor = KINDS[kind]()
    torch.manual_seed(SEEDS[kind])
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval(), processor
