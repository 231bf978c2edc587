"""Classes of unlike size, drawn from ESC-50: a folder for `experiments/grids/imbalance.yaml`.

    python experiments/studies/imbalanced.py --data ../shared/data/esc50 --to unlike

Fold 1 stays whole, to test on. Of each other fold the classes keep 8, 4, 2 and 1 of their 8 clips,
in turn by name: 32 to 4 training clips a class, 768 in all.
"""

import argparse
import csv
from collections import Counter
from pathlib import Path

KEPT = (8, 4, 2, 1)


def main() -> None:
    """Write `meta.csv`, and a link to the recordings beside it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="ESC-50: meta.csv and audio/.")
    parser.add_argument("--to", type=Path, required=True, help="A folder that is not there yet.")
    asked = parser.parse_args()
    with (asked.data / "meta.csv").open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["filename"])
    place = {label: i for i, label in enumerate(sorted({row["label"] for row in rows}))}
    seen: Counter[tuple[str, str]] = Counter()
    asked.to.mkdir(parents=True)
    (asked.to / "audio").symlink_to((asked.data / "audio").resolve())
    with (asked.to / "meta.csv").open("w", newline="") as file:
        drawn = csv.writer(file)
        drawn.writerow(("filename", "label", "fold"))
        for row in rows:
            label, fold = row["label"], row["fold"]
            seen[label, fold] += 1
            if fold == "1" or seen[label, fold] <= KEPT[place[label] % len(KEPT)]:
                drawn.writerow((f"audio/{row['filename']}", label, fold))


if __name__ == "__main__":
    main()
