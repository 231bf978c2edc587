"""The folder of a trained model, written and read: enough to classify with, and nothing unpickled.

`model.safetensors` holds the network's tensors as `network.NAME`, and `mean` and `std` of the
normalisation. `config.json` says what they are of. `trained_on.txt` lists the digests of the clips
that the model has seen, one a line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrkd_ray.common.errors import UserError
from mrkd_ray.common.files import replacing, write_json, write_text
from mrkd_ray.representations.catalogue import REPRESENTATIONS

if TYPE_CHECKING:
    import torch

    from mrkd_ray.features.normalisation import Statistics

TENSORS, CONFIG, TRAINED_ON = "model.safetensors", "config.json", "trained_on.txt"
NOT_LEARNED = ("mean", "std", "running_mean", "running_var", "num_batches_tracked")
"""Last parts of the names of tensors that are no parameters: the normalisation's, BatchNorm's."""


@dataclass(frozen=True)
class TrainedModel:
    """A trained branch as its folder has it.

    Attributes:
        branch: its name in its cohort.
        config: of config.json, as written.
        classes: names of the M classes, in the order of the logits.
        multi_label: whether each class has a probability of its own.
        representation: name.
        network: in evaluation mode, on the device asked for.
        statistics: of the training clips.
        trained_on: digests of the clips that it was trained on.
    """

    branch: str
    config: dict[str, Any]
    classes: tuple[str, ...]
    multi_label: bool
    representation: str
    network: torch.nn.Module
    statistics: Statistics
    trained_on: frozenset[str]


def write_model(
    folder: Path,
    *,
    branch: str,
    representation: str,
    representation_version: str,
    network_name: str,
    network: torch.nn.Module,
    statistics: Statistics,
    classes: Sequence[str],
    multi_label: bool,
    trained_on: Iterable[str],
    made_with: Mapping[str, Any],
) -> None:
    """Write a model's folder.

    Args:
        branch: its name in its cohort.
        representation_version: of the features that it was trained on.
        network_name: what it is built by.
        trained_on: digests of the clips that it has seen.
        made_with: what else is worth knowing, for config.json.
    """
    import torch

    tensors = {f"network.{key}": value.cpu() for key, value in network.state_dict().items()}
    tensors["mean"] = torch.from_numpy(statistics.mean)
    tensors["std"] = torch.from_numpy(statistics.std)
    save_tensors(folder / TENSORS, tensors)
    config = {
        "branch": branch,
        "representation": representation,
        "representation_version": representation_version,
        "network": network_name,
        "classes": list(classes),
        "multi_label": multi_label,
        **made_with,
    }
    write_json(folder / CONFIG, config)
    write_text(folder / TRAINED_ON, "\n".join(trained_on) + "\n")


def is_model(folder: Path) -> bool:
    """Return whether a folder looks like a model's."""
    return (folder / CONFIG).is_file()


def read_config(folder: Path) -> dict[str, Any]:
    """Return what a model's config.json says. Raises OSError or ValueError."""
    config: dict[str, Any] = json.loads((folder / CONFIG).read_text())
    return config


def read_size(folder: Path) -> tuple[int, int]:
    """Return a model's parameters and the bytes of its tensors, without PyTorch.

    Raises:
        OSError, safetensors.SafetensorError: the file is missing or damaged.
    """
    from safetensors import safe_open

    path = folder / TENSORS
    with safe_open(path, "numpy") as file:
        learned = [name for name in file.keys() if name.split(".")[-1] not in NOT_LEARNED]  # noqa: SIM118
        parameters = sum(math.prod(file.get_slice(name).get_shape()) for name in learned)
    return parameters, path.stat().st_size


def read_model(folder: Path, device: torch.device) -> TrainedModel:
    """Read what `write_model` wrote.

    Raises:
        UserError: a file is missing or damaged, or the representation is computed in another way
            than it was for the model.
    """
    from safetensors import SafetensorError

    try:
        return _read(folder, device)
    except UserError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"{folder}: not a whole model ({type(error).__name__}: {error}). It needs "
            f"{TENSORS} and {CONFIG} as training wrote them."
        ) from None


def _read(folder: Path, device: torch.device) -> TrainedModel:
    import torch
    from safetensors.torch import load_file

    from mrkd_ray.features.normalisation import Statistics
    from mrkd_ray.networks.catalogue import build

    config = read_config(folder)
    representation = str(config["representation"])
    entry = REPRESENTATIONS[representation]
    version = entry.version
    if version != config["representation_version"]:
        raise UserError(
            f"{folder}: trained on {representation} version {config['representation_version']}, "
            f"but this installation computes version {version} (its parameters, constants or "
            "front-end differ). Install the mrkd_ray that it was trained with, or train again."
        )
    classes = tuple(config["classes"])
    tensors = load_file(folder / TENSORS, device=str(device))
    network, _ = build(str(config["network"]), len(classes), "none", bins=entry.bins)
    prefix = "network."
    network.load_state_dict(
        {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
    )
    return TrainedModel(
        branch=str(config["branch"]),
        config=config,
        classes=classes,
        multi_label=bool(config.get("multi_label", False)),
        representation=representation,
        network=network.to(device).to(memory_format=torch.channels_last).eval(),
        statistics=Statistics(tensors["mean"].cpu().numpy(), tensors["std"].cpu().numpy()),
        trained_on=frozenset((folder / TRAINED_ON).read_text().split()),
    )


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors as safetensors, atomically."""
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        save_file(
            {name: tensor.detach().contiguous() for name, tensor in tensors.items()}, temporary
        )
