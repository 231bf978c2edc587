"""A model in one file: `NAME.mrkd`, a zip of safetensors and JSON with a model card.

Its parts are stored as they are, without compression:

    SHA256SUMS                       the sha256 of every part
    README.md                        the model card
    mrkd.json                        what the model is: classes, representations, where it is from
    branches/NAME/...                the folder of each branch (`model_folder`)

A file may come from a stranger: names, sizes and sums are looked at before anything is used, and
nothing in it is executed. The same parts in a folder are what the Hugging Face hub takes.
"""

from __future__ import annotations

import errno
import html
import re
import shutil
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mrkd_ray.common import manifest
from mrkd_ray.common.environment import versions
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.files import link_or_copy, replacing, write_json, write_text
from mrkd_ray.common.reading import Damaged
from mrkd_ray.inference import calibration
from mrkd_ray.inference.calibration import Calibration
from mrkd_ray.inference.model_folder import BACKBONE, CONFIG, TENSORS, TRAINED_ON, read_config
from mrkd_ray.representations import pretrained
from mrkd_ray.representations.catalogue import REPRESENTATIONS
from mrkd_ray.representations.timing import PAPER, WINDOW_TICKS

SUFFIX, FORMAT = ".mrkd", 1
FACTS, CARD = "mrkd.json", "README.md"
LARGEST = 8 << 30  # bytes of all parts

_PARTS = (TENSORS, CONFIG, TRAINED_ON, BACKBONE, calibration.FILE, manifest.NAME)
_OF_BRANCH = "|".join(map(re.escape, _PARTS))
_NAME = re.compile(rf"{FACTS}|{CARD}|{manifest.NAME}|branches/[\w@][\w@.+-]*/(?:{_OF_BRANCH})")


def write_folder(
    folder: Path, branches: Sequence[Path], known: Mapping[str, str], calibrated: Calibration
) -> None:
    """Write the parts of a model into a folder, as `huggingface_hub` uploads them.

    Args:
        folder: it is made; what is in it must be nothing.
        branches: folders of its branches.
        known: what else the card says, by title: scores, cost.
        calibrated: the calibration that follows from the branches' own files.

    Raises:
        UserError: the folder has something in it, or a branch is damaged.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: there is something in it: give a new folder")
    configs = []
    for branch in branches:
        try:
            manifest.check(branch)
            configs.append(read_config(branch))
        except Damaged as error:
            raise UserError(f"{branch}: not a whole model: {error}") from None
        own = folder / "branches" / branch.name
        own.mkdir(parents=True)
        for name in _PARTS:
            if (branch / name).is_file():
                link_or_copy(branch / name, own / name)
    facts = _facts(configs) | {"calibration": calibrated.as_json(configs[0]["classes"])}
    write_json(folder / FACTS, facts)
    write_text(folder / CARD, card(facts, configs, known))
    manifest.write(folder)


def pack(file: Path, folder: Path) -> None:
    """Write what `write_folder` has written as one file. Raises UserError: another ending."""
    if file.suffix != SUFFIX:
        raise UserError(f"{file}: a packed model's name ends in {SUFFIX}")
    with replacing(file) as temporary, zipfile.ZipFile(temporary, "w") as parts:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                entry = zipfile.ZipInfo(path.relative_to(folder).as_posix())  # 1980: same bytes
                with path.open("rb") as source, parts.open(entry, "w", force_zip64=True) as out:
                    shutil.copyfileobj(source, out)


def unpack(file: Path, folder: Path) -> None:
    """Write the parts of a packed model into an empty folder, and compare their sums.

    Raises:
        UserError: it is no packed model, or another than was packed.
    """
    try:
        with zipfile.ZipFile(file) as parts:
            entries = parts.infolist()
            _check(file, entries)
            for entry in entries:
                path = folder / entry.filename
                path.parent.mkdir(parents=True, exist_ok=True)
                with parts.open(entry) as source, path.open("wb") as out:
                    shutil.copyfileobj(source, out)
        manifest.check(folder)
        named = manifest.read(folder) or {}
    except (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, struct.error) as error:
        raise UserError(f"{file}: not a packed model, or damaged: {error}") from None
    except OSError as error:
        if error.errno != errno.EINVAL:  # a part that begins before the file does
            raise
        raise UserError(f"{file}: not a packed model, or damaged: {error}") from None
    except Damaged as error:
        raise UserError(f"{file}: not a packed model, or damaged: {error}") from None
    if more := {entry.filename for entry in entries} - {*named, manifest.NAME}:
        raise UserError(f"{file}: damaged: {sorted(more)[0]} is not in its {manifest.NAME}")


def _check(file: Path, entries: Sequence[zipfile.ZipInfo]) -> None:
    names = [entry.filename for entry in entries]
    if odd := next((name for name in names if not _NAME.fullmatch(name)), None):
        raise UserError(f"{file}: not a packed model: it holds {odd[:100]!r}")
    if len(set(names)) < len(names) or manifest.NAME not in names:
        raise UserError(f"{file}: not a packed model: a part is there twice, or the sums are not")
    stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    most = min(LARGEST, file.stat().st_size)  # or parts lie in each other
    if not stored or sum(entry.file_size for entry in entries) > most:
        raise UserError(f"{file}: not a packed model: its parts are compressed or too large")


def _facts(configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first = configs[0]
    return {
        "format": FORMAT,
        "mrkd_ray": versions(["mrkd-ray"])["mrkd-ray"],
        "classes": first["classes"],
        "multi_label": first.get("multi_label", False),
        "dataset": first.get("dataset"),
        "branches": [
            {
                "name": config["branch"],
                "network": config["network"],
                "window_seconds": round(
                    config.get("window_ticks", WINDOW_TICKS) * PAPER.frame_seconds, 6
                ),
                "representation": _representation(config),
            }
            for config in configs
        ],
    }


def _representation(config: Mapping[str, Any]) -> dict[str, Any]:
    """Say how a branch's representation is computed."""
    found: dict[str, Any] = {"name": config["representation"]}
    found["version"] = config["representation_version"]
    entry = REPRESENTATIONS[config["representation"]]
    if entry.version == config["representation_version"]:
        timing = entry.timing
        found |= {"bins": entry.bins, "sample_rate": timing.sample_rate, "hop": timing.hop}
        found["parameters"] = {name: str(value) for name, value in entry.params.items()}
    return found


def card(
    facts: Mapping[str, Any], configs: Sequence[Mapping[str, Any]], known: Mapping[str, str]
) -> str:
    """Return the model card: Markdown with the metadata that the Hugging Face hub reads."""
    import yaml

    branches = [f"{config['representation']}:{config['network']}" for config in configs]
    metadata = {
        "library_name": "mrkd-ray",
        "pipeline_tag": "audio-classification",
        "tags": ["audio-classification", "mrkd-ray", "safetensors"],
    }
    classes = ", ".join(map(_plain, facts["classes"]))
    lines = [
        f"---\n{yaml.safe_dump(metadata, sort_keys=False)}---\n",
        f"# Audio classifier: {_plain(facts['dataset'] or 'own recordings')}\n",
        f"It tells {len(facts['classes'])} classes apart: {classes}.\n",
        "A recording may have several." if facts["multi_label"] else "A recording has one.",
        "",
        "| | |\n| --- | --- |",
        f"| Branches | {', '.join(branches)} |",
        *(f"| {title} | {value} |" for title, value in known.items()),
        *(f"| {title} | {value} |" for title, value in _calibration_rows(facts["calibration"])),
        f"| Made with | mrkd-ray {facts['mrkd_ray']} |",
        "",
    ]
    used = dict.fromkeys(REPRESENTATIONS[config["representation"]].weights for config in configs)
    for name in filter(None, used):
        entry = pretrained.FILES[name]
        lines.append(f"It holds {name}. Licence: {entry.licence}. Cite: {entry.citation}.\n")
    lines += [
        "## Use\n",
        "```python\nfrom mrkd_ray import Classifier\n",
        'print(Classifier.load("THIS FOLDER OR FILE").predict("recording.wav").top(3))\n```\n',
        "It knows no other sounds: of one that is none of its classes it may name one yet.",
    ]
    return "\n".join(lines) + "\n"


def _calibration_rows(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield rows of the card, title and text, of `Calibration.as_json`."""
    if not found["clips"]:
        return
    part = "held-out" if found["part"] == "held_out" else "test"
    text = f"temperature {found['temperature']:.3g}, by {found['clips']} {part} clips"
    if "ece_before" in found:
        before, after = 100 * found["ece_before"], 100 * found["ece_after"]
        text += f"; expected calibration error {before:.1f} points before, {after:.1f} after"
    yield "Calibration", text
    if "none_below" in found:
        levels = (f"{_plain(name)} {100 * x:.0f} %" for name, x in found["none_below"].items())
        yield "None of these", f"below a probability of {', '.join(levels)}"
    if "thresholds" in found:
        levels = (f"{_plain(name)} {100 * x:.0f} %" for name, x in found["thresholds"].items())
        yield "Thresholds", ", ".join(levels)
    if "noise_named" in found:
        share = f"named as a class in {100 * found['noise_named']:.0f} % of the cases"
        yield "Noise (white, pink, brown, hum, crackle)", share


def _plain(text: str) -> str:
    """Return text of data as Markdown and HTML show it: as text."""
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", html.escape(text, quote=False))
