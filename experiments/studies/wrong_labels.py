"""Does `mrkd recommend` know how many labels are wrong? On data whose labels are right.

    python experiments/studies/wrong_labels.py --data ../shared/data/esc10

For each share so many labels are replaced by another class, drawn at random, and a cohort is
chosen for that data: three small networks, on log-Mel, PCEN and gammatone. Shown: the part of the
labels that is wrong on the clips that decide; what the command says of it; how many labels it
doubts, which part of these is wrong (precision), and which part of the wrong ones it doubts
(recall); the ensemble's accuracy, the part of the right labels that it has in front, and whether
it is underfit: then, as with few `--cycles`, the command says nothing. Interrupted, it goes on
with the next call.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from mrkd_ray.common.errors import UserError
from mrkd_ray.config.parsing import parse
from mrkd_ray.config.schema import RecommendConfig
from mrkd_ray.datasets.label_experiments import with_noise
from mrkd_ray.datasets.opening import Dataset, open_dataset
from mrkd_ray.recommend.recommend import recommend
from mrkd_ray.scores.doubtful_labels import in_front

ASKED = {"representations": "logmel64,pcen64,gammatone64", "networks": "vgg_small", "size": 3}


def main() -> None:
    """Run what lacks and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--shares", default="0,0.1,0.3")
    parser.add_argument("--cycles", default=20, type=int)
    parser.add_argument("--output", default="results", type=Path)
    parser.add_argument("--cache", default="cache", type=Path)
    parser.add_argument("--runner", default="ray")
    asked = parser.parse_args()
    try:
        show(asked)
    except UserError as error:
        raise SystemExit(str(error)) from None


def show(asked: argparse.Namespace) -> None:
    """Do it, for what is asked.

    Raises:
        UserError: as `recommend`; data with several labels a clip.
    """
    dataset = open_dataset(asked.data, asked.cache)
    if dataset.multi_label:
        raise UserError(f"{dataset.root}: labels are replaced where a clip has one")
    true = {str(clip.path): clip.label for clip in dataset.clips}
    headings = ("wrong, %", "estimate, %", "doubted", "precision, %", "recall, %", "accuracy, %")
    table = Table(*headings, "in front, %", "underfit")
    for share in map(float, asked.shares.split(",")):
        file = asked.output / f"wrong-{dataset.name}" / f"{share:g}.csv"
        write(dataset, share, file)
        config = parse(
            RecommendConfig,
            ASKED
            | {"data": str(file), "name": f"wrong-{dataset.name}-{share:g}"}
            | {"output": asked.output, "cache": asked.cache, "runner": asked.runner}
            | {"cycles": asked.cycles},
            "wrong_labels",
        )
        choice = recommend(config, file.with_suffix(".yaml"), force=True)
        probed = choice.probed
        wrong = np.array(
            [
                probed.classes[label] != true[clip_id]
                for clip_id, label in zip(probed.clip_ids, probed.labels, strict=True)
            ]
        )
        table.add_row(
            percent(wrong),
            f"{100 * choice.wrong_share:.1f} ± {100 * choice.wrong_share_error:.1f}",
            f"{choice.doubts.sum()} of {len(wrong)}",
            percent(wrong[choice.doubts]),
            percent(choice.doubts[wrong]),
            f"{100 * choice.cohorts[0].accuracy:.1f}",
            f"{100 * in_front(choice.ensemble, probed.labels):.1f}",
            "yes" if choice.underfit else "no",
        )
    Console().print(table)


def write(dataset: Dataset, share: float, file: Path) -> None:
    """Write the data set as a csv file in which so many labels are wrong."""
    numbers = {clip.clip_id: dataset.classes.index(clip.label) for clip in dataset.clips}
    labels = with_noise(numbers, len(dataset.classes), share, (0,))
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(("filename", "label", "fold", "split", "group", "verified"))
        for clip in dataset.clips:
            label, verified = dataset.classes[labels[clip.clip_id]], int(clip.verified)
            rows.writerow((clip.path, label, clip.fold, clip.split, clip.group, verified))


def percent(values: np.ndarray) -> str:
    """Return the mean in %; a dash of none."""
    return f"{100 * values.mean():.1f}" if len(values) else "-"


if __name__ == "__main__":
    main()
