"""A model of two branches, that was never trained, and a recording."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mrkd_ray.features.normalisation import Statistics
from mrkd_ray.inference.model_folder import write_model
from mrkd_ray.networks import catalogue
from mrkd_ray.representations.catalogue import REPRESENTATIONS
from mrkd_ray.serve.scorer import Scorer

CLASSES = ("clicks", "noise", "tone")
BRANCHES = {"cqt_vgg": "cqt", "logmel64_vgg": "logmel64"}
RATE = 16_000


@pytest.fixture(scope="session")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two branches that name different classes."""
    folder = tmp_path_factory.mktemp("ensemble")
    for seed, (name, representation) in enumerate(BRANCHES.items()):
        torch.manual_seed(seed)
        entry = REPRESENTATIONS[representation]
        network, _ = catalogue.build("vgg_small", len(CLASSES))
        with torch.no_grad():  # opinions of their own
            last = [each for each in network.modules() if isinstance(each, torch.nn.Linear)][-1]
            last.bias[:] = torch.tensor([[0.0, 1.5, 0.0], [2.0, 0.0, 0.0]][seed])
        bins = entry.levels.shape[0]
        write_model(
            folder / "branches" / name,
            branch=name,
            representation=representation,
            representation_version=entry.version,
            network_name="vgg_small",
            network=network,
            statistics=Statistics(
                np.full((3, bins), -40, np.float32), np.full((3, bins), 20, np.float32)
            ),
            classes=CLASSES,
            multi_label=False,
            trained_on=["00"],
            made_with={},
        )
    return folder


@pytest.fixture(scope="session")
def scorer(ensemble: Path) -> Scorer:
    return Scorer(str(ensemble), "cpu")


@pytest.fixture(scope="session")
def samples() -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    """2 s of 16 bits: a tone, then noise."""
    rng = np.random.default_rng(0)
    tone = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    sound = np.concatenate([tone, rng.uniform(-1, 1, RATE)])
    return (12_000 * sound).astype(np.int16)


@pytest.fixture(scope="session")
def wav(samples: np.ndarray[tuple[int, ...], np.dtype[np.int16]]) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV")
    return file.getvalue()
