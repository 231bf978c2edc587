"""A trained model to go on from (`--init`): which branch starts where, and with which classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mrkd_ray.common import manifest
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.hashing import hash_of, sha256_of
from mrkd_ray.common.reading import Damaged
from mrkd_ray.common.text import few
from mrkd_ray.config.fields import BranchSpec
from mrkd_ray.inference.model_folder import TENSORS, branch_folders, read_config, read_tensors
from mrkd_ray.representations.catalogue import REPRESENTATIONS

if TYPE_CHECKING:
    import torch

    from mrkd_ray.features.normalisation import Statistics


@dataclass(frozen=True, kw_only=True)
class StartingPoint:
    """A trained branch that a new one goes on from.

    Attributes:
        folder: of its model.
        spec: its representation and network.
        classes: names, in the order of its logits.
        digest: hash of its weights and classes.
    """

    folder: Path
    spec: BranchSpec
    classes: tuple[str, ...]
    digest: str

    def line(self, classes: Sequence[str]) -> str:
        """Say for people what a branch with these classes takes from it, and what is new."""
        parts = [f"{sum(name in self.classes for name in classes)} classes taken"]
        if new := [name for name in classes if name not in self.classes]:
            parts.append(f"{len(new)} new and random ({few(new)})")
        if left := [name for name in self.classes if name not in classes]:
            parts.append(f"{len(left)} left out ({few(left)})")
        return f"{self.spec} goes on from {self.folder}: all layers and {', '.join(parts)}"


def starting_points(
    model: str | None, specs: Iterable[BranchSpec], *, multi_label: bool
) -> dict[BranchSpec, StartingPoint]:
    """Return for each branch the one of a model with its representation and network.

    Args:
        model: the folder of a run (its `best/`), of a cell or of a branch; None: there are none.
        specs: branches that will be trained.
        multi_label: of the data that they will be trained on.

    Raises:
        UserError: no model there, none of this kind for a branch or more than one, another version
            of its representation, or labels of the other kind.
    """
    if model is None:
        return {}
    found = [_read(folder) for folder in branch_folders(Path(model))]
    if not found:
        raise UserError(f"init {model}: no model there: give the folder of a run, cell or branch")
    points = {}
    for spec in dict.fromkeys(specs):
        own = [each for each in found if each[0].spec == spec]
        if len(own) != 1:
            there = ", ".join(str(each[0].spec) for each in found)
            raise UserError(
                f"init {model}: it has {'no' if not own else 'several'} {spec} to go on from, but "
                f"{there}: train the same branches (--branch), or give the folder of one"
            )
        point, version, kind = own[0]
        if version != REPRESENTATIONS[spec.representation].version:
            raise UserError(
                f"init {point.folder}: trained on {spec.representation} version {version}, and "
                "this installation computes another: train anew"
            )
        if kind != multi_label:
            kinds = ("one label", "several labels")
            raise UserError(
                f"init {point.folder}: its clips had {kinds[kind]} each, and those of the data "
                f"have {kinds[multi_label]}"
            )
        points[spec] = point
    return points


def _read(folder: Path) -> tuple[StartingPoint, str, bool]:
    """Return a branch, the version of its representation, and whether it is multi-label."""
    try:
        manifest.check(folder)
        config = read_config(folder)
        digest = hash_of(config["classes"], sha256_of(folder / TENSORS))
    except (Damaged, OSError) as error:
        raise UserError(f"init {folder}: not a whole model: {error}") from None
    spec = BranchSpec(representation=config["representation"], network=config["network"])
    point = StartingPoint(folder=folder, spec=spec, classes=tuple(config["classes"]), digest=digest)
    return point, config["representation_version"], config.get("multi_label", False)


def start(network: torch.nn.Module, point: StartingPoint, classes: Sequence[str]) -> Statistics:
    """Give a new network the weights of a trained one; return the statistics that it was fed with.

    Of the last layer it takes the rows of the classes that both have. The others stay as they are.

    Raises:
        UserError: the weights are of another network.
    """
    import torch

    from mrkd_ray.features.normalisation import Statistics
    from mrkd_ray.networks.catalogue import classifier_layer

    cpu = torch.device("cpu")
    tensors = read_tensors(point.folder, TENSORS, cpu)
    head = f"{classifier_layer(network)}."
    both = [name for name in classes if name in point.classes]
    new, old = (
        torch.tensor([names.index(name) for name in both], dtype=torch.long)
        for names in (list(classes), point.classes)
    )
    for name, tensor in network.state_dict().items():
        given = tensors.get(f"network.{name}")
        is_head = name.startswith(head)
        shape = (len(point.classes), *tensor.shape[1:]) if is_head else tuple(tensor.shape)
        if given is None or tuple(given.shape) != shape:
            raise UserError(f"init {point.folder}: its {name} is of another network")
        with torch.no_grad():
            if is_head:
                tensor[new] = given[old]
            else:
                tensor.copy_(given)
    return Statistics(tensors["mean"].numpy(), tensors["std"].numpy())
