"""Checkpoints and exported models, whole or not there at all.

Weights and momentum are safetensors, the rest JSON and plain NumPy arrays; nothing is unpickled.
A checkpoint is a folder `cycle-000012` that holds one file a branch, the figures up to it, and a
manifest of them; it appears under that name only when all of them are complete. The one before is
kept, for where a file of the last one is damaged.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import numpy as np

from mrkd_ray.common import manifest
from mrkd_ray.common.arrays import Float32
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.files import link_or_copy, replacing, sync, write_json
from mrkd_ray.common.hashing import sha256_of
from mrkd_ray.common.reading import Damaged, parse_json, read_text
from mrkd_ray.inference.model_folder import read_tensors, save_tensors

if TYPE_CHECKING:
    import torch

KEPT = 2  # committed checkpoints: the last one, and one to fall back to

HISTORY = ("history.csv", "predicted.npy")
"""Files of the cell's folder, written anew after each cycle: a checkpoint has those before it."""


# One branch ------------------------------------------------------------------------------------


def save_branch(
    folder: Path,
    name: str,
    modules: Mapping[str, torch.nn.Module],
    optimiser: torch.optim.Optimizer,
    cycle: int,
    precision: str,
    belief: torch.Tensor | None = None,
) -> None:
    """Write weights, momentum, the next cycle, and "fp32" or "bf16", in which they were computed.

    `modules` are the `network` and what else the branch has. `belief` [N, M], where there is one,
    is what the branch remembers of its teachers.

    The learning rate follows from the cycle.
    """
    import torch

    tensors = {
        f"{prefix}.{key}": value
        for prefix, module in modules.items()
        for key, value in module.state_dict().items()
    }
    for key, parameter in _parameters(modules):
        momentum = optimiser.state.get(parameter, {}).get("momentum_buffer")
        if momentum is not None:
            tensors[f"momentum.{key}"] = momentum
    tensors["cycle"] = torch.tensor(cycle)
    if belief is not None:
        tensors["belief"] = belief
    tensors["bf16"] = torch.tensor(precision == "bf16")
    save_tensors(folder / f"{name}.safetensors", tensors)


def load_branch(
    folder: Path,
    name: str,
    modules: Mapping[str, torch.nn.Module],
    optimiser: torch.optim.Optimizer,
    precision: str,
    device: torch.device,
) -> tuple[int, torch.Tensor | None]:
    """Restore what `save_branch` wrote; return the next cycle and the belief, if any.

    Raises:
        UserError: it was computed in another precision (`auto` on other hardware), or before
            another cycle than the folder's name says.
        Damaged: the file is gone or another.
    """
    import torch

    path = folder / f"{name}.safetensors"
    tensors = read_tensors(folder, path.name, device)
    before = "bf16" if tensors["bf16"] else "fp32"
    if before != precision:
        raise UserError(
            f"{path}: was computed in {before}, and this machine computes in {precision}. Go on "
            f"where it was begun, or remove {folder} to begin the cell anew."
        )
    cycle = int(tensors["cycle"])
    if cycle != cycle_of(folder):
        raise UserError(
            f"{path}: precedes cycle {cycle} and not the folder's; remove {folder} to begin anew"
        )
    _take_weights(modules, tensors)
    for key, parameter in _parameters(modules):
        momentum = tensors.get(f"momentum.{key}")
        if momentum is not None:
            buffer = torch.empty_like(parameter)  # keeps the parameter's memory format
            optimiser.state[parameter] = {"momentum_buffer": buffer.copy_(momentum).detach()}
    return cycle, tensors.get("belief")


def load_weights(
    folder: Path, name: str, modules: Mapping[str, torch.nn.Module], device: torch.device
) -> None:
    """Take the weights that `save_branch` wrote, and nothing else. Raises Damaged."""
    _take_weights(modules, read_tensors(folder, f"{name}.safetensors", device))


def _take_weights(
    modules: Mapping[str, torch.nn.Module], tensors: Mapping[str, torch.Tensor]
) -> None:
    for name, module in modules.items():
        prefix = f"{name}."
        own = {key: value for key, value in tensors.items() if key.startswith(prefix)}
        module.load_state_dict({key.removeprefix(prefix): value for key, value in own.items()})


def _parameters(
    modules: Mapping[str, torch.nn.Module],
) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Yield the parameters by the names of their momentum: the network's have no prefix."""
    for name, module in modules.items():
        yield from module.named_parameters(prefix="" if name == "network" else name)


# A cohort --------------------------------------------------------------------------------------


def begin(root: Path, cycle: int) -> Path:
    """Return a fresh hidden folder under `root` for the checkpoint that precedes `cycle`.

    No other attempt at this cycle has the same: branches of one that failed may still be writing.
    """
    folder = root / f".cycle-{cycle:06d}.{secrets.token_hex(4)}"
    folder.mkdir(parents=True)
    return folder


def commit(begun: Path, rows: list[dict[str, Any]]) -> None:
    """Make a folder that `begin` returned the latest checkpoint; remove older ones and attempts.

    Args:
        rows: the figures of the cycle that ended, kept with it.

    What is begun for later cycles stays: branches may be ahead.
    """
    write_json(begun / "rows.json", rows)
    for name in HISTORY:
        if (written := begun.parents[1] / name).exists():
            link_or_copy(written, begun / name)
    manifest.write(begun)
    final = begun.with_name(_committed_name(begun))
    shutil.rmtree(final, ignore_errors=True)
    begun.replace(final)
    sync(final.parent)
    kept = (*_committed(final.parent)[:KEPT], best(final.parent))
    for other in final.parent.iterdir():
        if other not in kept and _committed_name(other) <= final.name:
            shutil.rmtree(other, ignore_errors=True)


def best(root: Path) -> Path:
    """Return the folder under `root` of the branches' best cycles."""
    return root / "best"


def keep(committed: Path, name: str) -> None:
    """Make a branch's file in a committed checkpoint the one of its best cycle."""
    kept = best(committed.parent)
    kept.mkdir(exist_ok=True)
    with replacing(kept / f"{name}.safetensors") as temporary:
        link_or_copy(committed / f"{name}.safetensors", temporary)
    manifest.write(kept)


def _committed_name(folder: Path) -> str:
    return folder.stem.removeprefix(".")  # .cycle-000012.1f2e3d4c -> cycle-000012


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the figures of the last cycle of a checkpoint. Raises Damaged."""
    path = folder / "rows.json"
    rows: list[dict[str, Any]] = parse_json(path, read_text(path))
    whole = isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
    if not (whole and rows and all("predicted" in row for row in rows)):
        raise Damaged(path, "not the figures of a cycle")
    return rows


def latest(root: Path) -> Path | None:
    """Return the folder of the latest complete checkpoint under `root`, if any."""
    return next(iter(_committed(root)), None)


def _committed(root: Path) -> list[Path]:
    """Return the folders of complete checkpoints, the latest first."""
    return sorted(root.glob("cycle-*"), reverse=True)


def discard_damaged(root: Path) -> list[str]:
    """Remove checkpoints under `root` of which a file is not what was written.

    Without the files of the best cycles, where they are kept, no checkpoint is of use.

    Returns:
        For each of them, what was found.
    """
    found = []
    for folder in _committed(root):
        try:
            manifest.check(folder)
            read_rows(folder)
        except Damaged as error:
            found.append(str(error))
            shutil.rmtree(folder)
        else:
            break  # an older one is not gone on from
    try:
        _check_best(root)
    except Damaged as error:
        found.append(str(error))
        shutil.rmtree(root)
    return found


def _check_best(root: Path) -> None:
    """Check the files of the best cycles: as written down, or as in the latest checkpoint.

    `keep` may have ended between the file and the manifest.
    """
    committed = latest(root)
    last = manifest.read(committed) if committed else None
    for name in manifest.read(best(root)) or ():
        path = best(root) / name
        if not last or not path.exists() or sha256_of(path) != last.get(name):
            manifest.check(best(root), [name])


def cycle_of(folder: Path) -> int:
    """Return the cycle that a checkpoint precedes."""
    return int(folder.name.removeprefix("cycle-"))


def save_teacher(
    folder: Path, clip_ids: Sequence[str], shards: Iterable[Float32], shape: tuple[int, int, int]
) -> None:
    """Write soft_labels.npz: `clip_id` [N] and `teacher` [K, N, M], K = 1 where all share it.

    As np.savez does, but from shards of rows, one in memory at a time.

    Args:
        shards: arrays [n, M] float32 that make up the K teachers, one teacher after the other.
        shape: (K, N, M).
    """
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    with replacing(folder / "soft_labels.npz") as temporary, ZipFile(temporary, "w") as archive:
        with archive.open("clip_id.npy", "w") as file:
            np.save(file, np.array(clip_ids))
        with archive.open("teacher.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(file, header)
            for shard in shards:
                file.write(np.ascontiguousarray(shard, np.float32).data)
