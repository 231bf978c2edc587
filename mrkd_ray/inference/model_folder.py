"""The folder of a trained model, written and read: enough to classify with, and nothing unpickled.

`model.safetensors` holds the network's tensors as `network.NAME`, and `mean` and `std` of the
normalisation. `config.json` says what they are of. `backbone.safetensors` is the frozen network
that the representation is made with, if any: the model needs no other file. `trained_on.txt` lists
the digests of the clips that the model has seen, one a line. `calibration.safetensors` has what it
says of clips that it did not learn from. `SHA256SUMS` has the sums of them all.

A folder may come from a stranger: nothing is taken from it that was not looked at first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mrkd_ray.common import manifest
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.files import link_or_copy, replacing, write_json, write_text
from mrkd_ray.common.hashing import sha256_of
from mrkd_ray.common.reading import Damaged, check_regular, parse_json
from mrkd_ray.common.text import is_printable
from mrkd_ray.inference import calibration
from mrkd_ray.inference.calibration import Evidence
from mrkd_ray.representations import frozen, pretrained
from mrkd_ray.representations.catalogue import REPRESENTATIONS
from mrkd_ray.representations.timing import WINDOW_TICKS

if TYPE_CHECKING:
    import torch

    from mrkd_ray.features.normalisation import Statistics

LARGEST_TEXT = 1 << 26
"""Bytes of the largest config.json or trained_on.txt that is read: 2 M clips."""

TENSORS, CONFIG, TRAINED_ON = "model.safetensors", "config.json", "trained_on.txt"
BACKBONE = "backbone.safetensors"
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
        window_ticks: of a window (`representations.timing`).
        network: in evaluation mode, on the device asked for.
        statistics: of the training clips.
        trained_on: digests of the clips that it was trained on.
        sha256: of its file of tensors.
        evidence: what it said of clips that it did not learn from; None of an earlier version's.
    """

    branch: str
    config: dict[str, Any]
    classes: tuple[str, ...]
    multi_label: bool
    representation: str
    window_ticks: int
    network: torch.nn.Module
    statistics: Statistics
    trained_on: frozenset[str]
    sha256: str
    evidence: Evidence | None = None


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
    window_ticks: int = WINDOW_TICKS,
    trained_on: Iterable[str],
    made_with: Mapping[str, Any],
    backbone: Path | None = None,
    evidence: Evidence | None = None,
) -> None:
    """Write a model's folder.

    Args:
        branch: its name in its cohort.
        representation_version: of the features that it was trained on.
        network_name: what it is built by.
        window_ticks: of a window.
        trained_on: digests of the clips that it has seen.
        made_with: what else is worth knowing, for config.json.
        backbone: the file that becomes `BACKBONE`, as a link where the file system has such.
        evidence: what it says of clips that it did not learn from.
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
        "window_ticks": window_ticks,
        **made_with,
    }
    if backbone is not None:
        (folder / BACKBONE).unlink(missing_ok=True)
        link_or_copy(backbone, folder / BACKBONE)
    if evidence is not None:
        evidence.write(folder)
    write_json(folder / CONFIG, config)
    write_text(folder / TRAINED_ON, "\n".join(trained_on) + "\n")
    manifest.write(folder)


def is_model(folder: Path) -> bool:
    """Return whether a folder looks like a model's."""
    return (folder / CONFIG).is_file()


def branch_folders(folder: Path) -> list[Path]:
    """Return the folders of the branches of a branch, a cell or a run's `best/`, by name; or []."""
    if is_model(folder):
        return [folder]
    for place in (folder, folder / "best"):
        # Finder and Jupyter put hidden files and folders everywhere.
        if found := sorted(p for p in place.glob("branches/*") if not p.name.startswith(".")):
            return found
    return []


class ModelConfig(BaseModel):
    """What config.json must say for a model to be built; it says more."""

    model_config = ConfigDict(extra="allow", strict=True)

    branch: str
    representation: str
    representation_version: str
    network: str
    classes: list[str] = Field(min_length=1)
    multi_label: bool = False
    window_ticks: int = Field(WINDOW_TICKS, ge=1, le=10_000)

    @field_validator("classes")
    @classmethod
    def _names(cls, classes: list[str]) -> list[str]:
        if len(set(classes)) < len(classes):
            raise ValueError("a class is there twice")
        if bad := next((name for name in classes if not is_printable(name)), None):
            raise ValueError(f"a class with control characters, {bad!r}")
        return classes


def read_config(folder: Path) -> dict[str, Any]:
    """Return what a model's config.json says.

    Raises:
        Damaged: it is gone or another than was written, or does not say what a model is.
    """
    path = folder / CONFIG
    config = parse_json(path, manifest.content(folder, CONFIG, LARGEST_TEXT))
    try:
        ModelConfig.model_validate(config)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "all of it"
        raise Damaged(path, f"{where}: {first['msg'].removeprefix('Value error, ')}") from None
    found: dict[str, Any] = config
    return found


class Size(NamedTuple):
    """Of a model, or of several together.

    Attributes:
        parameters: in all, those of frozen pretrained networks included.
        trained: of them, those that were trained here.
        bytes: of all tensors.
    """

    parameters: int
    trained: int
    bytes: int


def read_size(folder: Path) -> Size:
    """Return a model's size, without PyTorch.

    Raises:
        OSError, safetensors.SafetensorError: the file is missing or damaged.
    """
    trained, size = _size_of(folder / TENSORS)
    frozen_, more = 0, 0
    if (folder / BACKBONE).exists():
        frozen_, more = _size_of(folder / BACKBONE)
    else:
        with suppress(Damaged):  # which is told when it is loaded
            found = read_config(folder).get("backbone") or {}
            frozen_, more = int(found.get("parameters", 0)), int(found.get("bytes", 0))
    return Size(trained + frozen_, trained, size + more)


def _size_of(path: Path) -> tuple[int, int]:
    from safetensors import safe_open

    check_regular(path)
    with safe_open(path, "numpy") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    return count_learned(shapes), path.stat().st_size


def count_learned(shapes: Mapping[str, Sequence[int]]) -> int:
    """Return how many values of tensors of these shapes, by name, are parameters."""
    learned = (shape for name, shape in shapes.items() if name.split(".")[-1] not in NOT_LEARNED)
    return sum(math.prod(shape) for shape in learned)


def read_model(folder: Path, device: torch.device) -> TrainedModel:
    """Read what `write_model` wrote.

    Raises:
        UserError: a file is missing or damaged, pretrained weights that neither the folder nor this
            machine has included, or the representation is computed in another way than it was for
            the model.
    """
    try:
        return _read(folder, device)
    except Damaged as error:
        raise UserError(
            f"{folder}: not a whole model: {error}. It needs {TENSORS}, {CONFIG} and {TRAINED_ON} "
            "as training wrote them: copy the folder again, or train again with --resume."
        ) from None


def _read(folder: Path, device: torch.device) -> TrainedModel:
    import torch

    from mrkd_ray.features.normalisation import Statistics
    from mrkd_ray.networks.catalogue import build, shapes
    from mrkd_ray.representations import mobilenet

    config = read_config(folder)
    representation = config["representation"]
    _, at, network_from_imagenet = representation.partition(frozen.SEPARATOR)
    if at and (folder / BACKBONE).is_file():  # its sha256 is in the version
        check_regular(folder / BACKBONE)
        frozen.bring(network_from_imagenet, folder / BACKBONE)
    entry = REPRESENTATIONS[representation]
    version = entry.version
    if version != config["representation_version"]:
        raise UserError(
            f"{folder}: trained on {representation} version {config['representation_version']}, "
            f"but this installation computes version {version} (its parameters, constants or "
            "front-end differ). Install the mrkd_ray that it was trained with, or train again."
        )
    if entry.weights and not pretrained.there(entry.weights) and (folder / BACKBONE).exists():
        wanted = mobilenet.backbone_shapes(entry.weights)
        tensors = read_tensors(folder, BACKBONE, torch.device("cpu"), wanted)
        if not mobilenet.carry(entry.weights, tensors):
            raise Damaged(folder / BACKBONE, f"not the network {entry.weights}")
    else:
        entry.check()
    classes = tuple(config["classes"])
    # Before anything is allocated: a name in a stranger's file may be that of a huge network.
    expected = shapes(config["network"], len(classes), entry.bins)
    wanted = {f"network.{name}": tuple(shape) for name, shape in expected.items()}
    wanted |= dict.fromkeys(("mean", "std"), (3, entry.bins))
    tensors = read_tensors(folder, TENSORS, torch.device("cpu"), wanted)
    mean, std = (tensors.pop(name).numpy().astype("float32") for name in ("mean", "std"))
    if not (std > 0).all():
        raise Damaged(folder / TENSORS, "a standard deviation of the normalisation is not above 0")
    network, _ = build(config["network"], len(classes), "none", bins=entry.bins)
    network.load_state_dict({name.removeprefix("network."): x for name, x in tensors.items()})
    return TrainedModel(
        branch=config["branch"],
        config=config,
        classes=classes,
        multi_label=config.get("multi_label", False),
        representation=representation,
        window_ticks=config.get("window_ticks", WINDOW_TICKS),
        network=network.to(device).to(memory_format=torch.channels_last).eval(),
        statistics=Statistics(mean, std),
        trained_on=frozenset(read_digests(folder)),
        sha256=sha256_of(folder / TENSORS),
        evidence=calibration.read_evidence(folder, len(classes), config.get("multi_label", False)),
    )


def read_digests(folder: Path) -> list[str]:
    """Return the digests of the clips that a model has seen. Raises Damaged."""
    content = manifest.content(folder, TRAINED_ON, LARGEST_TEXT)
    try:
        return content.decode("ascii").split()
    except UnicodeDecodeError:
        raise Damaged(folder / TRAINED_ON, "not a list of digests") from None


def read_tensors(
    folder: Path,
    name: str,
    device: torch.device,
    wanted: Mapping[str, tuple[int, ...]] | None = None,
) -> dict[str, torch.Tensor]:
    """Read a file of tensors: the bytes that were compared with the folder's manifest.

    Args:
        wanted: the shapes that they must have, by name; no others may be there.

    Raises:
        Damaged: the file is gone or another, or a value is not finite.
    """
    import torch
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load

    path = folder / name
    try:
        check_regular(path)
        if wanted is not None:
            with safe_open(path, "numpy") as file:
                found = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
            if wrong := sorted(k for k in wanted.keys() | found if wanted.get(k) != found.get(k)):
                key = wrong[0]
                raise Damaged(
                    path,
                    f"tensor {key!r} has shape {found.get(key)}, and the network of {CONFIG} "
                    f"{wanted.get(key)}",
                )
        tensors: dict[str, torch.Tensor] = load(manifest.content(folder, name))
    except FileNotFoundError:
        raise Damaged(path, "it is gone") from None
    except (OSError, SafetensorError, ValueError, KeyError, AssertionError) as error:
        if isinstance(error, Damaged):
            raise
        raise Damaged(path, str(error) or type(error).__name__) from None
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise Damaged(path, f"tensor {key!r} holds NaN or infinite values")
    return {key: tensor.to(device) for key, tensor in tensors.items()}


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors as safetensors, atomically."""
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        save_file(
            {name: tensor.detach().contiguous() for name, tensor in tensors.items()}, temporary
        )
