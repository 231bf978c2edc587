"""The Audio Spectrogram Transformer (AST: Gong et al. 2021) of `transformers`, for our windows."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor, nn

from mrkd_ray.common.errors import UserError
from mrkd_ray.networks.registry import network

BINS = 128
STD = 0.5  # of what AST was trained on; our windows have 1
TOKENS = 2  # before the patches: of the class, and of AST's own teacher


class SpectrogramTransformer(nn.Module):
    """Windows of `logmel128` [B, 3, 128, frames] to logits; deltas are not used.

    Its tensors have the names of the files that people share, for example of
    `MIT/ast-finetuned-audioset-10-10-0.4593`. These know 10 s: a window gets the positions of the
    first frames.

    Args:
        n_classes: M, the number of logits.
        config: what differs from `transformers.ASTConfig`, whose defaults are those of that file.

    Raises:
        UserError: transformers is not installed.
    """

    def __init__(self, n_classes: int, **config: Any) -> None:
        super().__init__()
        if importlib.util.find_spec("transformers") is None:
            raise UserError("network 'ast' needs one more package: pip install -e '.[ast]'")
        from transformers import ASTConfig, ASTForAudioClassification

        whole = ASTForAudioClassification(ASTConfig(**{"num_labels": n_classes, **config}))
        self.audio_spectrogram_transformer = whole.audio_spectrogram_transformer
        self.classifier = whole.classifier

    def forward(self, windows: Tensor) -> Tensor:
        """Raises ValueError where windows have another number of bins."""
        if windows.shape[2] != BINS:
            raise ValueError(f"it takes logmel128, {BINS} bins")
        transformer: Any = self.audio_spectrogram_transformer
        positions = _first(transformer.embeddings, windows.shape[3])
        inputs = STD * windows[:, 0].mT
        replaced = {"embeddings.position_embeddings": positions}
        hidden = torch.func.functional_call(transformer, replaced, (inputs,)).pooler_output
        logits: Tensor = self.classifier(hidden)
        return logits


def _first(embeddings: Any, frames: int) -> Tensor:
    """Return the positions of the patches that begin in the first frames: [1, tokens, width]."""
    config, table = embeddings.config, embeddings.position_embeddings
    rows, columns = embeddings.get_shape(config)  # of patches, in frequency and time
    fit = (frames - config.patch_size) // config.time_stride + 1
    grid = table[:, TOKENS:].unflatten(1, (rows, columns))[:, :, :fit].flatten(1, 2)
    return torch.cat([table[:, :TOKENS], grid], dim=1)


@network("ast", description="Audio Spectrogram Transformer, for `logmel128`; 86 M (the ast extra)")
def ast(n_classes: int) -> nn.Module:
    """transformers' AST; with `weights: PATH`, what others trained on AudioSet."""
    return SpectrogramTransformer(n_classes)
