"""Every reader of files that others may have written, as a function of a file's bytes.

Each may return or raise UserError, and do nothing else, whatever the bytes are.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from mrkd_ray.audio import decoding
from mrkd_ray.cells import files as cell_files
from mrkd_ray.cells import intact
from mrkd_ray.common import manifest
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.timeline import read_trace
from mrkd_ray.config.grid_files import read_grid
from mrkd_ray.datasets.base import Clip, Dataset
from mrkd_ray.datasets.checking import scan
from mrkd_ray.datasets.opening import open_dataset
from mrkd_ray.features.store import FeatureStore
from mrkd_ray.grid import folder as grid_folder
from mrkd_ray.inference.model_folder import read_config, read_tensors
from mrkd_ray.results import best
from mrkd_ray.results.tables import read_table
from mrkd_ray.training import checkpoints

Reader = Callable[[Path, bytes], object]
"""Of an empty folder and the bytes of the file to read."""


def written(folder: Path, name: str, content: bytes) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def csv_list(folder: Path, content: bytes) -> object:
    """A list of clips; one of its files is there."""
    soundfile.write(folder / "a.wav", np.full(100, 0.1), 8000)
    return open_dataset(written(folder, "meta.csv", content), folder)


def raven(folder: Path, content: bytes) -> object:
    """A selection table of a recording that is there."""
    soundfile.write(folder / "a.wav", np.full(8000, 0.1), 8000)
    return open_dataset(written(folder, "a.txt", content), folder)


def grid(folder: Path, content: bytes) -> object:
    return read_grid(written(folder, "g.yaml", content), {})


def config(folder: Path, content: bytes) -> object:
    written(folder, "config.json", content)
    return read_config(folder)


def tensors(folder: Path, content: bytes) -> object:
    import torch

    written(folder, "model.safetensors", content)
    return read_tensors(folder, "model.safetensors", torch.device("cpu"), {"mean": (3, 2)})


def sums(folder: Path, content: bytes) -> object:
    written(folder, manifest.NAME, content)
    return manifest.check(folder)


def feature_index(folder: Path, content: bytes) -> object:
    clip = Clip(clip_id="a", path=folder / "a", labels=("x",))
    dataset = Dataset(name="d", root=folder, clips=(clip,))
    store = FeatureStore(folder / "cache", dataset, "logmel64", {"a": "00"})
    written(store.folder, "index.jsonl", content)
    written(store.folder, "frames.f32", bytes(64 * 4 * 5))
    store.bank(["a"])
    store.repair()
    return store.bank(["a"])


def history(folder: Path, content: bytes) -> object:
    written(folder, "history.csv", content)
    np.save(folder / "predicted.npy", np.zeros((2, 1, 3), np.int16))
    cell_files.history_table(folder)
    return cell_files.read_history(folder, 2)


def predicted(folder: Path, content: bytes) -> object:
    written(folder, "history.csv", b"cycle,branch\n0,a\n1,a\n")
    written(folder, "predicted.npy", content)
    return cell_files.read_figures(folder)


def predictions(folder: Path, content: bytes) -> object:
    written(folder, "predictions.csv", content)
    return cell_files.read_models(folder, "distilled", 1, 0)


def result(folder: Path, content: bytes) -> object:
    written(folder, "result.json", content)
    return intact.result_of(folder)


def rows(folder: Path, content: bytes) -> object:
    written(folder, "rows.json", content)
    return checkpoints.read_rows(folder)


def environment(folder: Path, content: bytes) -> object:
    written(folder, "environment.json", content)
    grid_folder.commit_of(folder)
    return grid_folder.same_versions(folder)


def best_json(folder: Path, content: bytes) -> object:
    written(folder, "best/best.json", content)
    return best.read(folder)


def table(folder: Path, content: bytes) -> object:
    return read_table(written(folder, "results.csv", content))


def timeline(folder: Path, content: bytes) -> object:
    return read_trace(written(folder, "profile.json", content))


def scans(folder: Path, content: bytes) -> object:
    clip = Clip(clip_id="a", path=folder / "a", labels=("x",))
    dataset = Dataset(name="d", root=folder, clips=(clip,))
    written(folder, f"scans/{dataset.cache_name}.json", content)
    return scan.scan(dataset, folder, map)


def recording(folder: Path, content: bytes) -> object:
    try:
        return decoding.load(written(folder, "a.wav", content))
    except decoding.AudioError as error:
        raise UserError(str(error)) from None


def header(dtype: str, shape: tuple[int, ...]) -> bytes:
    import io

    file = io.BytesIO()
    np.save(file, np.zeros(shape, dtype))
    return file.getvalue()


def wav() -> bytes:
    import io

    file = io.BytesIO()
    soundfile.write(file, np.full(50, 0.1), 8000, format="WAV")
    return file.getvalue()


_HEADER = b'{"mean":{"dtype":"F32","shape":[3,2],"data_offsets":[0,24]}}    '
_CONFIG = {"branch": "b", "representation": "logmel64", "representation_version": "x"}
_CONFIG |= {"network": "vgg_small", "classes": ["a", "b"]}
_SPAN = {"ph": "X", "name": "train", "ts": 1, "dur": 2, "pid": 1, "tid": 0}
_ROW = {"ph": "M", "name": "thread_name", "pid": 1, "tid": 0, "args": {"name": "a"}}

READERS: dict[str, tuple[Reader, bytes]] = {
    "csv": (csv_list, b'filename,label,fold\na.wav,x,1\nb.wav,"y, z",2\nc.wav,x,1\n'),
    "raven": (
        raven,
        b"Selection\tBegin Time (s)\tEnd Time (s)\tBegin File\tFile Offset (s)\tLabel\n"
        b"1\t0.1\t0.2\ta.wav\t0.1\tx\n2\t0.5\t0.9\t\t\ty\n",
    ),
    "yaml": (grid, b"data: x\ncohorts: [a:b+c:d]\nseeds: 0..3\nvariants: {on: {lr: 0.1}}\n"),
    "config": (config, json.dumps(_CONFIG).encode()),
    "tensors": (tensors, len(_HEADER).to_bytes(8, "little") + _HEADER + bytes(24)),
    "manifest": (sums, b"0" * 64 + b"  a/b.csv\n" + b"1" * 64 + b"  c\n"),
    "index": (
        feature_index,
        b'{"digest": "00", "clip_id": "a", "offset": 0, "frames": 3, "ticks": 3}\n'
        b'{"digest": "01", "clip_id": "b", "offset": 3, "frames": 2, "sha256": "00"}\n',
    ),
    "history": (history, b"cycle,branch,seconds\n0,a,1.5\n1,a,2.5\n"),
    "predicted": (predicted, header("<i2", (2, 1, 3))),
    "predictions": (predictions, b"model,clip_id,label,p_x,p_y\nm,a,x,0.5,0.5\nm,b,y,0.1,0.9\n"),
    "result": (
        result,
        b'{"dataset": "d", "epochs": 2, "clips": 3, "seconds": 1.0, "models": []}',
    ),
    "rows": (rows, b'[{"cycle": 1, "branch": "a", "predicted": [0, 1]}]'),
    "environment": (environment, b'{"commit": "x", "packages": {"torch": "2", "mrkd-ray": "0"}}'),
    "best": (best_json, b'{"model": "m", "latency": null, "branches": {}, "scores": {"a": 0.5}}'),
    "table": (table, b"grid,dataset,variant,accuracy\ng,d,,0.5\n"),
    "timeline": (timeline, json.dumps({"traceEvents": [_ROW, _SPAN]}).encode()),
    "scans": (scans, b'{"version": ["3", "1"], "sha256": "00", "clips": {"a": {"stamp": []}}}'),
    "recording": (recording, wav()),
}
"""Readers by name, each with a good file."""


def read(name: str, content: bytes) -> None:
    """Have a reader read these bytes. Raises all but UserError, which is what it should raise."""
    folder = Path(tempfile.mkdtemp(prefix="mrkd-fuzz-"))
    try:
        READERS[name][0](folder, content)
    except UserError:
        pass
    finally:
        shutil.rmtree(folder)
