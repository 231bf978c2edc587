"""What a model's probabilities are worth, from clips that it did not learn from.

Each branch carries what it said of such clips, and of noise (`calibration.safetensors`, beside its
weights). From that follows here, when a model is loaded: the temperature of its probabilities, the
thresholds of its classes, and below which probability a sound is none of them. So an ensemble has
its own, whichever branches it is of.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrkd_ray.common import manifest
from mrkd_ray.common.arrays import Float32, Float64, Int64
from mrkd_ray.common.files import replacing
from mrkd_ray.common.hashing import hash_of
from mrkd_ray.common.reading import Damaged
from mrkd_ray.scores.calibration import calibration
from mrkd_ray.scores.ensemble import mean_probabilities
from mrkd_ray.scores.tempering import crossfitted, fit_temperature, temper
from mrkd_ray.scores.thresholds import PRESENT, class_thresholds, least_known

FILE = "calibration.safetensors"
FEWEST = 10
"""Clips from which anything follows."""
VALUES = 1 << 20
"""Probabilities that a branch carries at most: of more clips, evenly many are left out."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a branch said of clips that it did not learn from.

    Attributes:
        probabilities: float32 [n, M], as training's evaluation has them.
        truth: class indices int64 [n]; multi-label 0 and 1 [n, M].
        noise: float32 [k, M], of `noise.noises`; k is 0 where they were not asked.
        part: `held_out` or `test`.
        clips: hash of which clips they are.
    """

    probabilities: Float32
    truth: Int64
    noise: Float32
    part: str
    clips: str

    @classmethod
    def of(
        cls,
        clip_ids: Sequence[str],
        probabilities: Float32,
        truth: Int64,
        noise: Float32,
        part: str,
    ) -> Evidence:
        """Return the evidence of clips, of at most `VALUES` probabilities."""
        n, classes = probabilities.shape
        kept = max(FEWEST, VALUES // classes)
        places = np.arange(n) if n <= kept else np.linspace(0, n - 1, kept).round().astype(int)
        digest = hash_of([clip_ids[i] for i in places.tolist()])
        return cls(probabilities[places], truth[places], noise, part, digest)

    def write(self, folder: Path) -> None:
        """Write `FILE`."""
        from safetensors.numpy import save_file

        tensors: dict[str, NDArray[Any]] = {
            "probabilities": np.ascontiguousarray(self.probabilities),
            "truth": np.ascontiguousarray(self.truth),
            "noise": np.ascontiguousarray(self.noise),
        }
        with replacing(folder / FILE) as temporary:
            # One entry: of several the order is left to chance, and the bytes with it.
            header = json.dumps({"part": self.part, "clips": self.clips})
            save_file(tensors, temporary, {"evidence": header})


def read_evidence(folder: Path, classes: int, multi_label: bool) -> Evidence | None:
    """Return what `Evidence.write` wrote; None where an earlier version wrote the folder.

    Raises:
        Damaged: it is another than was written, or no evidence of such a model.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = folder / FILE
    if not path.exists() and FILE not in (manifest.read(folder) or ()):
        return None
    try:
        content = manifest.content(folder, FILE, 64 * VALUES)
        found = load(content)
        header = _header(content)
        evidence = Evidence(
            found["probabilities"], found["truth"], found["noise"], header["part"], header["clips"]
        )
    except Damaged:
        raise
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise Damaged(path, str(error) or type(error).__name__) from None
    n = len(evidence.truth)
    shapes: list[tuple[NDArray[Any], Any, tuple[int, ...]]] = [
        (evidence.probabilities, np.float32, (n, classes)),
        (evidence.truth, np.int64, (n, classes) if multi_label else (n,)),
        (evidence.noise, np.float32, (len(evidence.noise), classes)),
    ]
    if any(array.dtype != kind or array.shape != shape for array, kind, shape in shapes):
        raise Damaged(path, "not of a model with these classes")
    values = np.concatenate([evidence.probabilities, evidence.noise])
    if not ((values >= 0) & (values <= 1.001)).all():
        raise Damaged(path, "a probability is not between 0 and 1")
    if n and not ((evidence.truth >= 0) & (evidence.truth < (2 if multi_label else classes))).all():
        raise Damaged(path, "a label is of no class")
    return evidence


def _header(content: bytes) -> dict[str, Any]:
    """Return the metadata of a file in memory: `safetensors.numpy.load` leaves it out."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])["__metadata__"]
    found: dict[str, Any] = json.loads(header["evidence"])
    return found


@dataclass(frozen=True, eq=False)
class Calibration:
    """How the probabilities of a model become what is told of them.

    Attributes:
        multi_label: whether each class has a probability of its own.
        members: temperature of each of its branches.
        temperature: of the mean of the branches' probabilities.
        thresholds: of several labels, from which probability a class is there, [M]; else None.
        least: of one label, the probability of the most probable class below which a sound is
            none of them, by that class, [M]; None where that is not known.
        part: of which clips this follows: `held_out`, `test`, or none.
        clips: how many.
        ece: expected calibration error before and after, in [0, 1]; after, each half of the clips
            by the temperature of the other. None of several labels.
        noise_named: part of the noise that is taken for a class; None where it was not asked.
    """

    multi_label: bool = False
    members: tuple[float, ...] = ()
    temperature: float = 1.0
    thresholds: Float64 | None = None
    least: Float64 | None = None
    part: str | None = None
    clips: int = 0
    ece: tuple[float, float] | None = None
    noise_named: float | None = None

    @classmethod
    def of(cls, evidence: Sequence[Evidence | None], multi_label: bool) -> Calibration:
        """Return the calibration of branches that are asked together.

        Without evidence, or with evidence of unlike clips, probabilities stay as they are.
        """
        found = [each for each in evidence if each is not None]
        alike = len({(each.clips, each.part, len(each.noise)) for each in found}) == 1
        if len(found) < len(evidence) or not alike or len(found[0].truth) < FEWEST:
            return cls(multi_label, (1.0,) * len(evidence))
        truth = found[0].truth
        raw = mean_probabilities([each.probabilities for each in found])
        temperature = fit_temperature(raw, truth)
        scaled = temper(raw, temperature, multi_label=multi_label)
        noise = mean_probabilities([each.noise for each in found])
        noise = temper(noise, temperature, multi_label=multi_label)
        known = cls(
            multi_label,
            tuple(fit_temperature(each.probabilities, truth) for each in found),
            temperature,
            part=found[0].part,
            clips=len(truth),
        )
        if multi_label:
            known = replace(known, thresholds=class_thresholds(scaled, truth, noise))
        else:
            errors = [calibration(p, truth).ece for p in (raw, crossfitted(raw, truth))]
            least = least_known(scaled, truth, noise)
            known = replace(known, least=least, ece=(errors[0], errors[1]))
        if len(noise):
            named = known.named(noise)
            known = replace(known, noise_named=float(named.any(axis=1).mean()))
        return known

    def together(self, branches: Float32 | Float64) -> Float32:
        """Return the probabilities [..., M] of the model from those of its branches [Γ, ..., M]."""
        mean = mean_probabilities(branches)
        return temper(mean, self.temperature, multi_label=self.multi_label).astype(np.float32)

    def apart(self, branches: Float32) -> Float32:
        """Return the probabilities [Γ, M] of branches, each by its own temperature."""
        if len(self.members) != len(branches):
            return branches
        rows = [
            temper(row, temperature, multi_label=self.multi_label)
            for row, temperature in zip(branches, self.members, strict=True)
        ]
        return np.stack(rows).astype(np.float32)

    def named(self, probabilities: Float32 | Float64) -> NDArray[np.bool_]:
        """Say which classes are named, [n, M], of calibrated probabilities [n, M]."""
        if self.multi_label:
            levels = PRESENT if self.thresholds is None else self.thresholds
            return np.asarray(probabilities >= levels)
        one = np.eye(probabilities.shape[1], dtype=bool)[probabilities.argmax(axis=1)]
        return np.asarray(one & (probabilities >= (0.0 if self.least is None else self.least)))

    def as_json(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return it for people and other programs; thresholds and `none_below` by class."""
        found: dict[str, Any] = {"temperature": round(self.temperature, 4), "clips": self.clips}
        if self.part:
            found["part"] = self.part
        for name, values in (("thresholds", self.thresholds), ("none_below", self.least)):
            if values is not None:
                levels = (round(float(value), 4) for value in values)
                found[name] = dict(zip(classes, levels, strict=True))
        if self.ece is not None:
            found["ece_before"], found["ece_after"] = (round(value, 4) for value in self.ece)
        if self.noise_named is not None:
            found["noise_named"] = round(self.noise_named, 4)
        return found


UNCALIBRATED = Calibration()
