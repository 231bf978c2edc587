"""Weights from files into a network, with a report of what was and what was not loaded."""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from mrkd_ray.common.errors import UserError
from mrkd_ray.networks import timm_models
from mrkd_ray.networks.registry import Official

SUFFIXES = (".pth", ".pt", ".safetensors")

# Files of torchvision's DenseNets name layers as an old PyTorch did: `norm.1` for `norm1`.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


@dataclass(frozen=True, kw_only=True)
class WeightsReport:
    """What became of each tensor. All names are those of the network's state dict."""

    source: str
    """`none`, or the file."""
    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    """In the network and not in the file: left random."""
    unexpected: tuple[str, ...] = ()
    """In the file and not in the network: ignored."""
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = ()
    """(name, shape in the file, shape in the network): left random."""
    replaced: tuple[str, ...] = ()
    """The classifier layer: new and random, as the file's classes are others."""

    @property
    def complete(self) -> bool:
        """Whether everything but the classifier layer was loaded."""
        return self.source != "none" and not self.missing and not self.mismatched

    def summary(self) -> str:
        """Return one line."""
        if self.source == "none":
            return "weights: none (random)"
        parts = [f"weights: {self.source}: {len(self.loaded)} tensors loaded"]
        parts.append(f"classifier new ({', '.join(self.replaced)})")
        if self.missing:
            parts.append(f"{len(self.missing)} NOT in the file, random ({_few(self.missing)})")
        if self.mismatched:
            shapes = [
                f"{name}: {list(had)}, not {list(want)}" for name, had, want in self.mismatched
            ]
            parts.append(f"{len(shapes)} of another shape, random ({_few(shapes)})")
        if self.unexpected:
            parts.append(f"{len(self.unexpected)} of the file unused ({_few(self.unexpected)})")
        return "; ".join(parts)


def load_weights(
    network: nn.Module,
    name: str,
    weights: str | Path,
    *,
    classifier: str,
    official: Official = dict,
) -> WeightsReport:
    """Copy weights into `network` in place, all but the layer called `classifier`.

    Args:
        network: on the CPU.
        name: the network's name, which `imagenet` looks up in its library.
        weights: `none`, `imagenet`, or the path of a state dict.
        classifier: prefix of the tensors that stay random.
        official: see `registry.Network`.

    Raises:
        UserError: the file is absent, cannot be downloaded or read, or holds nothing that fits.
    """
    if str(weights) == "none":
        return WeightsReport(source="none")
    if str(weights) == "imagenet":
        source, tensors = imagenet_tensors(name)
    else:
        source, tensors = str(weights), read_tensors(Path(weights).expanduser())
    tensors = {_OLD_DENSENET.sub(r"\1\2", key): value for key, value in tensors.items()}
    tensors = official(tensors)
    report = _copy(network.state_dict(), tensors, source, classifier)
    # A counter of batches alone is no sign that the file belongs to the network.
    if not any(tensor.endswith(("weight", "bias")) for tensor in report.loaded):
        raise UserError(
            f"weights {source}: nothing in it fits network {name!r}; it has {_few(tensors)}, the "
            f"network wants {_few(network.state_dict())}. Use the file of this network, or "
            "weights: none"
        )
    return report


def _copy(
    wanted: dict[str, Tensor], tensors: dict[str, Tensor], source: str, classifier: str
) -> WeightsReport:
    loaded, missing, replaced = [], [], []
    mismatched: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = []
    for key, target in wanted.items():
        if key.rpartition(".")[0] == classifier:
            replaced.append(key)
        elif key not in tensors:
            if not key.endswith("num_batches_tracked"):  # absent in old files, and of no effect
                missing.append(key)
        elif tensors[key].shape != target.shape:
            mismatched.append((key, tuple(tensors[key].shape), tuple(target.shape)))
        else:
            target.copy_(tensors[key])
            loaded.append(key)
    return WeightsReport(
        source=source,
        loaded=tuple(loaded),
        missing=tuple(missing),
        unexpected=tuple(key for key in tensors if key not in wanted),
        mismatched=tuple(mismatched),
        replaced=tuple(replaced),
    )


def imagenet_tensors(name: str) -> tuple[str, dict[str, Tensor]]:
    """Return (file, its tensors) of torchvision's best weights, downloading them where needed.

    Of timm's default ones for a network of timm's.
    """
    if name.startswith(timm_models.PREFIX):
        return timm_models.download(name)
    from torchvision import models

    url: str = models.get_model_weights(name).DEFAULT.url
    file = Path(torch.hub.get_dir()) / "checkpoints" / PurePosixPath(urlparse(url).path).name
    if not file.is_file():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            digest = torch.hub.HASH_REGEX.search(file.name)
            torch.hub.download_url_to_file(
                url, str(file), hash_prefix=digest and digest.group(1), progress=False
            )
        except (OSError, RuntimeError) as error:  # no connection, disk full; a wrong hash
            raise UserError(
                f"weights: imagenet: {file} is not there and cannot be downloaded from {url} "
                f"({error}). Put the file there by hand, or use weights: none or weights: PATH"
            ) from error
    return str(file), read_tensors(file)


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a state dict by name. Raises UserError where it is none."""
    if not file.is_file():
        raise UserError(f"weights {file}: no such file; give none, imagenet or a path")
    if file.suffix not in SUFFIXES:
        raise UserError(f"weights {file}: not one of {', '.join(SUFFIXES)}")
    content: Any
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(file)
        else:
            _check_stored(file)
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # what a broken file raises is anyone's guess
        reason = str(error).split("\n")[0] or type(error).__name__
        raise UserError(f"weights {file}: cannot be read as {file.suffix} ({reason})") from error
    if not (isinstance(content, dict) and content) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise UserError(f"weights {file}: expected a state dict, that is tensors by name")
    for key, value in content.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise UserError(f"weights {file}: tensor {key!r} holds NaN or infinite values")
    return content


def _check_stored(file: Path) -> None:
    """Refuse an archive that is larger than its file: PyTorch's are not compressed.

    Raises:
        ValueError: it is compressed.
    """
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if any(each.compress_type != zipfile.ZIP_STORED for each in archive.infolist()):
                raise ValueError("it is compressed, and PyTorch writes no such files")


def _few(names: Any) -> str:
    """Return the first two names."""
    names = list(names)
    return ", ".join(names[:2]) + (", ..." if len(names) > 2 else "")
