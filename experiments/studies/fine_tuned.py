"""The last ten of `mn04`'s seventeen blocks fine-tuned, from a linear probe on: right labels.

    MRKD_WEIGHTS=../shared/weights python experiments/studies/fine_tuned.py --data FOLDER

FOLDER is ESC-50. What the first seven blocks give of each whole clip is computed once and kept in
the cache. The head is begun as a logistic regression on `mn04`'s mean embedding (Kumar et al.
2022), and then learns with the ten blocks: AdamW, BatchNorm's statistics as they are, mixup,
circular shift, one running average of the weights. Predictions of each fold lie in the cache: the
same call goes on from them. It prints, for each fold and for all, the probe's accuracy in %, that
of the last weights and of the average, and how much the average is ahead of the probe, with a 95 %
interval.
"""

import argparse
import copy
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from mrkd_ray.audio.decoding import load
from mrkd_ray.common.arrays import Float64, Int64
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.files import replacing
from mrkd_ray.common.hashing import hash_of
from mrkd_ray.datasets.base import Dataset
from mrkd_ray.datasets.opening import open_dataset
from mrkd_ray.datasets.splits import make_splits
from mrkd_ray.representations import mobilenet
from mrkd_ray.representations.timing import AUDIOSET
from mrkd_ray.results import printed_table
from mrkd_ray.scores.intervals import paired_bootstrap
from mrkd_ray.training.weight_average import WeightAverage

Float16 = NDArray[np.float16]
FROZEN = 7  # blocks; the others are four fifths of the parameters and a third of the work
DECAY = 0.99
SAMPLES = 5 * AUDIOSET.sample_rate  # of a clip


class FineTuned(nn.Module):
    """What the frozen blocks give [B, 16, bands, frames] to logits, begun as a probe does."""

    def __init__(self, blocks: nn.Module, probe: LogisticRegression, mean: Tensor, std: Tensor):
        super().__init__()
        self.blocks = copy.deepcopy(blocks).requires_grad_(True)
        weight = torch.from_numpy(probe.coef_).float() / std
        self.head = nn.Linear(weight.shape[1], len(weight))
        with torch.no_grad():
            self.head.weight.copy_(weight)
            self.head.bias.copy_(torch.from_numpy(probe.intercept_).float() - weight @ mean)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, M]."""
        features = self.blocks(x).mean((2, 3))
        found: Tensor = self.head(nn.functional.dropout(features, 0.2, self.training))
        return found

    def train(self, mode: bool = True) -> "FineTuned":
        """BatchNorm's statistics stay those of AudioSet."""
        super().train(mode)
        self.blocks.eval()
        return self


def main() -> None:
    """Train and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--folds", default=[1, 2, 3, 4, 5], type=int, nargs="+")
    parser.add_argument("--epochs", default=5, type=int)
    parser.add_argument("--lr", default=1e-3, type=float, help="Of the head.")
    parser.add_argument("--blocks-lr", default=3e-4, type=float)
    parser.add_argument("--mixup", default=0.3, type=float)
    parser.add_argument("--seed", default=0, type=int)
    parser.add_argument("--cache", default="cache", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    try:
        dataset = open_dataset(Path(asked.data), asked.cache)
        network = mobilenet.trained("mn04", torch.device("cpu"))
        frozen, embeddings = features(dataset, network, asked.cache / "fine_tuned")
        splits = make_splits(dataset, asked.folds, 0)
    except UserError as error:
        raise SystemExit(str(error)) from None
    place = {clip.clip_id: i for i, clip in enumerate(dataset.clips)}
    labels = np.array([dataset.classes.index(clip.label) for clip in dataset.clips])
    recipe = {name: value for name, value in vars(asked).items() if name not in ("folds", "cache")}
    every: list[Float64] = []
    table = Table("fold", "probe, %", "last, %", "average, %", "average less probe [95%]", "")
    for split in splits:
        train, test = (
            np.array([place[clip_id] for clip_id in side]) for side in (split.train, split.test)
        )
        name = f"fold{split.fold}-{hash_of(*map(str, recipe.items()))[:8]}.npy"
        file = asked.cache / "fine_tuned" / name
        if not file.exists():
            rng = np.random.default_rng([asked.seed, split.fold])
            blocks = network.features[FROZEN:]
            found = hits(blocks, frozen, embeddings, labels, (train, test), asked, rng)
            with replacing(file) as temporary, temporary.open("wb") as opened:
                np.save(opened, found)
        every.append(np.load(file))
        add_row(table, str(split.fold), every[-1:])
        print(f"fold {split.fold}: {100 * every[-1].mean(axis=1)} %", file=sys.stderr, flush=True)
    add_row(table, "all", every)
    Console().print(table)


def add_row(table: Table, name: str, folds: list[Float64]) -> None:
    """Add the accuracies of folds, and the difference with its interval."""
    means = 100 * np.concatenate(folds, axis=1).mean(axis=1)
    gain = paired_bootstrap([(hit[2] - hit[0])[None] for hit in folds])
    table.add_row(name, *(f"{mean:.1f}" for mean in means), *printed_table.cells(gain))


def features(
    dataset: Dataset, network: mobilenet.AudioMobileNet, folder: Path
) -> tuple[Float16, Tensor]:
    """Return what the frozen blocks give of each clip, and its mean embedding [N, D]."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{dataset.cache_name}.npy"
    if not file.exists():
        found = []
        for clip in dataset.clips:
            whole = torch.from_numpy(load(clip.path).at(AUDIOSET.sample_rate))
            waveform = nn.functional.pad(whole, (0, SAMPLES - len(whole)))[None]  # or cut to it
            with torch.inference_mode():
                found.append(network.features[:FROZEN](mobilenet.logmel(waveform)[:, None])[0])
        np.save(file, torch.stack(found).half().numpy())
    frozen = np.load(file, mmap_mode="r")
    with torch.inference_mode():
        embeddings = torch.cat([network.features[FROZEN:](x).mean((2, 3)) for x in batches(frozen)])
    return frozen, embeddings


def batches(frozen: Float16, size: int = 50) -> Iterator[Tensor]:
    """Yield rows in batches."""
    for rows in np.array_split(frozen, -(-len(frozen) // size)):
        found = torch.from_numpy(rows.astype(np.float32))
        yield found.contiguous(memory_format=torch.channels_last)


def hits(
    blocks: nn.Module,
    frozen: Float16,
    embeddings: Tensor,
    labels: Int64,
    sides: tuple[Int64, Int64],
    asked: argparse.Namespace,
    rng: np.random.Generator,
) -> Float64:
    """Return where the probe, the last weights and their average are right: [3, n]."""
    train, test = sides
    own = embeddings[train]
    mean, std = own.mean(0), own.std(0)
    probe = LogisticRegression(C=0.01, max_iter=500).fit(
        ((own - mean) / std).numpy(), labels[train]
    )
    torch.manual_seed(asked.seed)
    tuned = FineTuned(blocks, probe, mean, std).to(memory_format=torch.channels_last)
    before = predicted(tuned, frozen[test])
    average = WeightAverage(tuned, DECAY)
    groups = [
        {"params": tuned.head.parameters(), "most": asked.lr},
        {"params": tuned.blocks.parameters(), "most": asked.blocks_lr},
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.0, fused=True)
    targets = torch.from_numpy(np.eye(labels.max() + 1, dtype=np.float32)[labels])
    steps = asked.epochs * -(-len(train) // 32)
    order = np.concatenate([rng.permutation(train) for _ in range(asked.epochs)])
    tuned.train()
    for step, rows in enumerate(np.array_split(order, steps)):
        x, wanted = torch.from_numpy(frozen[rows].astype(np.float32)), targets[rows]
        shifts = rng.integers(0, x.shape[3], len(x)).tolist()
        x = torch.stack([each.roll(shift, 2) for each, shift in zip(x, shifts, strict=True)])
        x = x.contiguous(memory_format=torch.channels_last)
        share = rng.beta(asked.mixup, asked.mixup, len(x)).astype(np.float32)
        kept = torch.from_numpy(np.maximum(share, 1 - share))
        other = torch.from_numpy(rng.permutation(len(x)))
        x = mixed(x, other, kept[:, None, None, None])
        wanted = mixed(wanted, other, kept[:, None])
        done = step / steps
        for group in optimiser.param_groups:
            group["lr"] = group["most"] * min(1, 10 * done) * (1 + math.cos(math.pi * done)) / 2
        loss = nn.functional.cross_entropy(tuned(x), wanted)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        average.update_parameters(tuned)
    found = (before, predicted(tuned, frozen[test]), predicted(average.module, frozen[test]))
    return np.stack([said == labels[test] for said in found]).astype(np.float64)


def mixed(x: Tensor, other: Tensor, kept: Tensor) -> Tensor:
    """Return rows mixed with other rows."""
    return x * kept + x[other] * (1 - kept)


def predicted(module: nn.Module, frozen: Float16) -> Int64:
    """Return the likeliest class of each row."""
    module.eval()
    with torch.inference_mode():
        found: Int64 = torch.cat([module(x).argmax(1) for x in batches(frozen)]).numpy()
    return found


if __name__ == "__main__":
    main()
