"""The folder of a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrkd_ray.common.files import replacing, write_json

if TYPE_CHECKING:
    import torch

    from mrkd_ray.features.normalisation import Statistics


TRAINED_ON = "trained_on.txt"  # beside an exported model: the digest of every training clip


def _save_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        save_file(
            {name: tensor.detach().contiguous() for name, tensor in tensors.items()}, temporary
        )


def export_model(
    folder: Path, network: torch.nn.Module, statistics: Statistics, config: dict[str, Any]
) -> None:
    """Write model.safetensors (weights and normalisation) and config.json."""
    import torch

    tensors = {f"network.{key}": value.cpu() for key, value in network.state_dict().items()}
    tensors["mean"] = torch.from_numpy(statistics.mean)
    tensors["std"] = torch.from_numpy(statistics.std)
    _save_tensors(folder / "model.safetensors", tensors)
    write_json(folder / "config.json", config)
