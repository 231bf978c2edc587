"""A trained branch or ensemble as one program, from samples to probabilities, without this package.

The program (`programs`) takes float32 waveforms [B, samples], mono, all of one length and at the
sample rate of its representations (22,050 Hz but for learned ones), and returns float32
probabilities [B, M]; B and the length are free, but in TensorFlow Lite. Its file says what it is
(`description`), in the metadata of ONNX, the extra files of `.pt2` and an archive behind
`.tflite`. It is meant for CPUs: on a GPU, switch off TF32 in cuDNN
(`torch.backends.cudnn.allow_tf32 = False`), in whose rounding quiet bins of the CQT would drown.
"""

from __future__ import annotations

import importlib.util
import io
import json
import math
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mrkd_ray.audio.decoding import Recording
from mrkd_ray.common.arrays import Float32
from mrkd_ray.common.environment import versions
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.files import replacing
from mrkd_ray.inference.classifier import Classifier
from mrkd_ray.inference.programs import Program
from mrkd_ray.representations.catalogue import REPRESENTATIONS
from mrkd_ray.representations.fourier import real_numbers

PARITY = 1e-4
"""The largest difference to the classifier's probabilities with which a program is written."""

PACKAGES: dict[str, tuple[str, ...]] = {
    ".pt2": (),
    ".onnx": ("onnx", "onnxscript", "onnxruntime"),
    ".tflite": ("litert_torch", "ai_edge_litert"),
}
"""What a format needs beside PyTorch: an extra of the format's name has it."""

Run = Callable[[Float32], Float32]
"""A program: waveforms [B, samples] to probabilities [B, M]."""


@dataclass(frozen=True)
class Parity:
    """How a program compares with the classifier that it was made from.

    Attributes:
        clips: that both were asked.
        of: what these are.
        difference: the largest of a probability.
        accuracy: of the classifier and of the program, in [0, 1]; None without labels.
    """

    clips: int
    of: str
    difference: float
    accuracy: tuple[float, float] | None = None

    @property
    def text(self) -> str:
        """One line for people."""
        found = f"{self.clips} {self.of}: largest difference {self.difference:.1e}"
        if self.accuracy is None:
            return found
        before, after = (100 * value for value in self.accuracy)
        return f"{found}; accuracy {before:.1f} % before, {after:.1f} % after"

    def as_json(self) -> dict[str, Any]:
        """Return what is stored with the program."""
        known: dict[str, Any] = {"clips": self.clips, "of": self.of, "difference": self.difference}
        if self.accuracy is not None:
            known["accuracy"], known["accuracy_of_program"] = self.accuracy
        return known


@dataclass(frozen=True)
class Clips:
    """Recordings that a program is compared on.

    Attributes:
        of: what they are, for people.
        recordings: of any length and sample rate.
        labels: indices of their classes; None where they have none, or several.
    """

    of: str
    recordings: Sequence[Recording]
    labels: Sequence[int] | None = None


def export(
    classifier: Classifier,
    file: Path,
    clips: Clips,
    *,
    seconds: float | None = None,
    int8: bool = False,
) -> Parity:
    """Write a classifier as a program: `.pt2` (torch.export), `.onnx` or `.tflite`.

    Args:
        classifier: one branch or an ensemble, on the CPU.
        file: its suffix tells the format.
        clips: that the program is compared with the classifier on, before it is written.
        seconds: length of the recordings that the program takes; None: any, from two frames up.
            A `.tflite` has one.
        int8: weights of the networks in 8 bits, inputs of their layers quantised as they come
            (ONNX Runtime's dynamic quantisation). The front-end stays as it is.

    Raises:
        UserError: another suffix, a length that is not finite or less than one sample, branches
            at several sample rates, `.onnx` without the `onnx` extra, `.tflite` without the
            `tflite` extra or a length, int8 without labelled clips or but in `.onnx`, a
            representation that cannot be exported, or not for any length; or
            probabilities that are not the classifier's to `PARITY` (float32).
    """
    rates = {branch.sample_rate for branch in classifier.branches}
    if len(rates) > 1:
        listed = " and ".join(f"{rate} Hz" for rate in sorted(rates))
        raise UserError(
            f"{file}: its branches take recordings at {listed}, and a program takes one rate: "
            "export each branch by itself"
        )
    rate = rates.pop()
    if seconds is not None and (not math.isfinite(seconds) or round(seconds * rate) < 1):
        raise UserError(f"--seconds {seconds}: a recording has at least one sample and an end")
    if file.suffix not in PACKAGES:
        raise UserError(f"{file}: a program's file ends in .pt2 (torch.export), .onnx or .tflite")
    if file.suffix == ".tflite" and seconds is None:
        raise UserError(f"{file}: TensorFlow Lite takes one length: give --seconds")
    if int8 and file.suffix != ".onnx":
        raise UserError(f"{file}: --int8 is ONNX Runtime's: give a file NAME.onnx")
    if int8 and clips.labels is None:
        raise UserError("--int8: it is compared on labelled clips: give --data")
    if None in map(importlib.util.find_spec, PACKAGES[file.suffix]):
        extra = file.suffix[1:]
        raise UserError(f"{file}: it needs more packages: pip install -e '.[{extra}]'")
    facts = description(classifier, seconds)
    if file.suffix == ".tflite":
        assert seconds is not None  # as was checked
        from mrkd_ray.inference import tflite_export

        converted = tflite_export.convert(classifier, round(seconds * rate), file)
        with replacing(file) as temporary:
            converted.export(str(temporary))
            runs = tflite_export.session(temporary)
            found = _compared(classifier, runs, clips, seconds, file, int8=False)
            tflite_export.describe(temporary, _with(facts, found))
        return found
    # ONNX Runtime's Fourier transform is slow and coarse where a frame is no power of two.
    with real_numbers() if file.suffix == ".onnx" else nullcontext():
        exported = _exported(classifier, rate, seconds)
    if file.suffix == ".pt2":
        module = exported.module()

        def run(waveforms: Float32) -> Float32:
            with torch.no_grad():
                found: Float32 = module(torch.from_numpy(waveforms)).numpy()
            return found

        found = _compared(classifier, run, clips, seconds, file, int8=False)
        stored = {name: json.dumps(value) for name, value in _with(facts, found).items()}
        program_file = io.BytesIO()  # torch aborts the process where a disk is full
        torch.export.save(exported, program_file, extra_files=stored)
        with replacing(file) as temporary:
            temporary.write_bytes(program_file.getbuffer())
        return found
    with tempfile.TemporaryDirectory(prefix="mrkd") as folder:
        made = Path(folder) / "program.onnx"
        _save_onnx(exported, made)
        if int8:
            made = _quantised(made)
        found = _compared(classifier, _session(made), clips, seconds, file, int8=int8)
        _write_onnx(made, file, _with(facts, found))
    return found


def _with(facts: dict[str, Any], found: Parity) -> dict[str, Any]:
    return facts | {"parity": found.as_json()}


def _exported(
    classifier: Classifier, rate: int, seconds: float | None
) -> torch.export.ExportedProgram:
    program = Program(classifier).eval()
    hops = [REPRESENTATIONS[b.model.representation].timing.hop for b in classifier.branches]
    least = 2 * max(hops)
    # Of any length: one that divides by nothing, so that nothing is taken to be always so.
    samples = round(seconds * rate) if seconds is not None else 4 * rate + least + 1
    shape: dict[int, Any] = {0: torch.export.Dim("batch")}
    if seconds is None:
        shape[1] = torch.export.Dim("samples", min=least)
    example = torch.zeros(2, samples)
    with torch.no_grad():
        program(example)  # has the constants built before they are traced
        try:
            return torch.export.export(program, (example,), dynamic_shapes={"waveforms": shape})
        except Exception as error:
            if seconds is not None:
                raise
            names = ", ".join(sorted({b.model.representation for b in classifier.branches}))
            raise UserError(
                f"a program with {names} is of one length only: give --seconds "
                f"({str(error).splitlines()[0][:200]})"
            ) from error


def _compared(
    classifier: Classifier,
    run: Run,
    clips: Clips,
    seconds: float | None,
    file: Path,
    *,
    int8: bool,
) -> Parity:
    """Ask both. Raises UserError where float32 is not the same to `PARITY`."""
    rate = classifier.branches[0].sample_rate
    said, expected = [], []
    for recording in clips.recordings:
        samples = recording.at(rate)
        if seconds is not None:
            samples = np.resize(samples, round(seconds * rate))  # a short one is repeated
        heard = classifier.hear(Recording(samples, rate), clips.of)
        expected.append(heard.probabilities)
        said.append(run(samples[None])[0])
    one, other = np.stack(expected), np.stack(said)
    accuracy = None
    if clips.labels is not None:
        before, after = (float((p.argmax(axis=1) == clips.labels).mean()) for p in (one, other))
        accuracy = before, after
    found = Parity(len(one), clips.of, float(np.abs(one - other).max()), accuracy)
    if not int8 and not found.difference <= PARITY:
        raise UserError(
            f"{file}: not written: on {clips.of} its probabilities differ by up to "
            f"{found.difference:.1e} from the model's, and {PARITY:g} is the most"
        )
    return found


def description(classifier: Classifier, seconds: float | None) -> dict[str, Any]:
    """Return what a program's file says of itself; there, each value is JSON.

    `classes` (in the order of the probabilities), `multi_label`, `sample_rate` in Hz, `samples`
    that it takes (null: any number), `calibration` (which its probabilities have; `none_below`: of
    each class, where it is the most probable, below which a sound is none of them), and of each
    branch, in order, `representations`, `representation_versions`, `networks` and `sha256` of its
    weights; `parity` is how it compares with the model.
    `mrkd_ray` is the version that wrote the file.
    """
    branches = classifier.branches
    rate = branches[0].sample_rate
    return {
        "classes": list(classifier.classes),
        "multi_label": classifier.multi_label,
        "sample_rate": rate,
        "samples": None if seconds is None else round(seconds * rate),
        "calibration": classifier.calibration.as_json(classifier.classes),
        "representations": [b.model.representation for b in branches],
        "representation_versions": [b.model.config["representation_version"] for b in branches],
        "networks": [b.model.config["network"] for b in branches],
        "sha256": [b.model.sha256 for b in branches],
        "mrkd_ray": versions(["mrkd-ray"])["mrkd-ray"],
    }


def _save_onnx(exported: torch.export.ExportedProgram, file: Path) -> None:
    onnx = torch.onnx.export(
        exported,
        input_names=["waveforms"],
        output_names=["probabilities"],
        dynamo=True,
        verbose=False,
    )
    assert onnx is not None  # as it is without a file's name
    onnx.save(file)


def _session(file: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options)

    def run(waveforms: Float32) -> Float32:
        found: Float32 = session.run(["probabilities"], {"waveforms": waveforms})[0]
        return found

    return run


def _quantised(file: Path) -> Path:
    """Quantise the layers of the networks: those that have weights of theirs."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(file).graph
    weights = {each.name for each in graph.initializer if each.name.startswith("branches.")}
    layers = [
        node.name
        for node in graph.node
        if node.op_type in ("Conv", "Gemm", "MatMul") and weights & set(node.input)
    ]
    made = file.with_name("int8.onnx")
    # ONNX Runtime's CPU kernels of ConvInteger take unsigned weights.
    quantize_dynamic(file, made, weight_type=QuantType.QUInt8, nodes_to_quantize=layers)
    return made


def _write_onnx(made: Path, file: Path, facts: dict[str, Any]) -> None:
    import onnx

    model = onnx.load(made)
    onnx.helper.set_model_props(model, {name: json.dumps(v) for name, v in facts.items()})
    with replacing(file) as temporary:
        temporary.write_bytes(model.SerializeToString())
