"""EfficientAT's front-end and networks beside what their own code gives (../shared/weights)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch

from mrkd_ray.audio import decoding
from mrkd_ray.audio.decoding import Recording
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.hashing import sha256_of
from mrkd_ray.representations import mobilenet, pretrained
from mrkd_ray.representations.catalogue import REPRESENTATIONS, compute_clip
from tests.representations.test_catalogue import noise


@pytest.fixture
def weights(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = shared / "weights"
    monkeypatch.setenv(pretrained.FOLDER, str(folder))
    return folder


@pytest.fixture
def reference(weights: Path) -> Any:
    return np.load(weights / "mn04_as_reference.npz")


CLIPS = ["1-100032-A", "1-17367-A", "2-114280-A"]


def recording(clip: str, shared: Path) -> Recording:
    (file,) = (shared / "data" / "esc50" / "audio").glob(f"{clip}*")
    return decoding.load(file)


@pytest.mark.parametrize("clip", CLIPS)
def test_front_end_embedding_and_logits_are_the_originals(
    clip: str, reference: Any, shared: Path
) -> None:
    frames = compute_clip(["logmel_mn", "mn04"], recording(clip, shared))
    mel, embedding = frames["logmel_mn"].T, frames["mn04"].T
    np.testing.assert_allclose(mel[:, ::10], reference[f"{clip}:mel"], atol=1e-4)
    np.testing.assert_allclose(embedding.mean(axis=1), reference[f"{clip}:embedding"], atol=1e-4)
    network = mobilenet.trained("mn04", torch.device("cpu"))
    with torch.no_grad():
        logits = network(torch.from_numpy(mel)[None, None])[0]
    np.testing.assert_allclose(logits, reference[f"{clip}:logits"], atol=1e-3)


@pytest.mark.parametrize("samples", [1, 2, 319, 320, 321, 1023, 1024, 10_240, 20_481])
def test_any_length_has_the_frames_of_its_timing(samples: int, weights: Path) -> None:
    waveform = Recording(noise(samples), 32_000)
    for name, array in compute_clip(["logmel_mn", "mn04"], waveform).items():
        assert array.shape == (
            REPRESENTATIONS[name].timing.frames(samples),
            REPRESENTATIONS[name].bins,
        )
        assert np.isfinite(array).all()


def test_a_decibel_of_gain_moves_every_band_as_the_catalogue_says() -> None:
    loud = 10 * noise(32_000)  # far above the floor
    quiet = (compute_clip(["logmel_mn"], Recording(loud * x, 32_000)) for x in (0.5, 1.0))
    before, after = (found["logmel_mn"] for found in quiet)
    moved = 20 * np.log10(2) * REPRESENTATIONS["logmel_mn"].levels
    np.testing.assert_allclose(np.median(after - before, axis=0), moved, atol=2e-3)


@pytest.mark.parametrize("mn", ["mn01", "mn10"])
def test_widths_have_the_published_sizes(mn: str) -> None:
    from mrkd_ray.networks.mobilenets import WIDTHS

    network = mobilenet.AudioMobileNet(WIDTHS[mn], 527)
    millions = sum(p.numel() for p in network.parameters()) / 1e6
    assert millions == pytest.approx({"mn01": 0.12, "mn10": 4.88}[mn], abs=0.01)


def test_without_the_file_the_command_that_fetches_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(pretrained.FOLDER, str(tmp_path))
    assert not pretrained.there("mn04")
    with pytest.raises(UserError, match="mrkd download mn04"):
        REPRESENTATIONS["mn04"].check()
    (tmp_path / "mn04_as_mAP_432.pt").write_bytes(b"another file")
    with pytest.raises(UserError, match=r"not the official file.*sha256"):
        REPRESENTATIONS["mn04"].check()


def test_the_version_holds_the_bytes_of_the_weights() -> None:
    sha256 = pretrained.FILES["mn04"].sha256
    assert REPRESENTATIONS["mn04"].params["weights"] == sha256


def test_a_sha256_that_is_known_in_part_is_compared_in_that_part() -> None:
    entry = pretrained.FILES["mn10"]
    begin, end = entry.sha256.split("...")
    whole = begin + "0" * (64 - len(begin + end)) + end
    assert entry.size
    assert entry.is_official(entry.size, whole, "")
    assert not entry.is_official(entry.size + 1, whole, "")
    assert not entry.is_official(entry.size, "f" + whole[1:], "")
    assert not entry.is_official(entry.size, whole[:-1] + "0", "")


def test_the_larger_networks_embedding_is_computed_from_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = mobilenet.AudioMobileNet(1.0, 527)
    file = tmp_path / pretrained.FILES["mn10"].file
    torch.save(network.state_dict(), file)
    entry = replace(pretrained.FILES["mn10"], size=file.stat().st_size, sha256=sha256_of(file))
    monkeypatch.setitem(pretrained.FILES, "mn10", entry)
    monkeypatch.setenv(pretrained.FOLDER, str(tmp_path))
    waveform = noise(40_000)
    found = compute_clip(["mn10"], Recording(waveform, 32_000))["mn10"]
    with torch.no_grad():
        mel = mobilenet.logmel(torch.from_numpy(waveform)[None])[:, None]
        expected = network.eval().embedding(mel)[0].T
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    mobilenet.trained.cache_clear()


@pytest.fixture
def released(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Path, Path]]:
    """A release that is served here, and the folder of weights: (file, folder)."""
    served = tmp_path / "served"
    served.mkdir()
    file = served / pretrained.FILES["mn04"].file
    shutil.copy(shared / "weights" / file.name, file)
    handler = partial(SimpleHTTPRequestHandler, directory=served)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    url = f"http://127.0.0.1:{server.server_port}/{file.name}"
    entry = replace(pretrained.FILES["mn04"], url=url)
    monkeypatch.setitem(pretrained.FILES, "mn04", entry)
    monkeypatch.setenv(pretrained.FOLDER, str(tmp_path / "weights"))
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield file, tmp_path / "weights"
    server.shutdown()
    thread.join()
    server.server_close()


def test_fetched_weights_are_found_and_fetched_once(released: tuple[Path, Path]) -> None:
    file, folder = released
    path = pretrained.fetch("mn04")
    assert path.parent == folder
    assert pretrained.find("mn04") == path
    file.unlink()
    assert pretrained.fetch("mn04") == path  # nothing is asked for


def test_weights_that_are_here_are_taken_from_their_file(
    released: tuple[Path, Path], tmp_path: Path
) -> None:
    file, folder = released
    here = tmp_path / "here.pt"
    here.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(UserError, match=r"here\.pt: not the official file"):
        pretrained.fetch("mn04", file=here)
    assert not list(folder.glob("*"))
    file.rename(here)  # and no longer to be had
    path = pretrained.fetch("mn04", file=here)
    assert (path.parent, path.read_bytes()) == (folder, here.read_bytes())
    assert pretrained.find("mn04") == path


def test_other_bytes_are_refused_and_not_kept(released: tuple[Path, Path]) -> None:
    file, folder = released
    file.write_bytes(b"x" * file.stat().st_size)
    with pytest.raises(UserError, match="cannot be had"):
        pretrained.fetch("mn04")
    assert not pretrained.there("mn04")
    assert not list(folder.glob("*"))


def test_of_a_file_that_is_not_pinned_the_first_download_is_recorded(
    released: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _ = released
    entry = pretrained.FILES["mn20"]
    assert not entry.is_pinned
    url = pretrained.FILES["mn04"].url
    monkeypatch.setitem(pretrained.FILES, "mn20", replace(entry, file=file.name, url=url))
    first = file.read_bytes()
    known = sha256_of(file)
    with pytest.raises(UserError, match="cannot be had"):
        pretrained.fetch("mn20", sha256="0" * 64)
    with pytest.raises(UserError, match="64 hexadecimal digits"):
        pretrained.fetch("mn20", sha256="899a8c62")
    assert not pretrained.there("mn20")
    path = pretrained.fetch("mn20", sha256=known.upper())
    record = json.loads(pretrained.record_of(path).read_text())
    assert record == {"sha256": known, "size": len(first), "url": url}
    file.write_bytes(b"x" * len(first))  # another release of the same name
    assert pretrained.fetch("mn20") == pretrained.find("mn20") == path  # what came first is here
    assert path.read_bytes() == first
    path.unlink()
    with pytest.raises(UserError, match="cannot be had"):
        pretrained.fetch("mn20")
    shutil.copy(file, path)  # put there by other means
    with pytest.raises(UserError, match=f"not {known}"):
        pretrained.find("mn20")


def test_the_context_is_the_classifiers_hidden_layer_of_a_clip_of_at_most_ten_seconds(
    weights: Path, shared: Path
) -> None:
    frames = compute_clip(["mn04", "mn04_context"], recording(CLIPS[0], shared))
    network = mobilenet.trained("mn04", torch.device("cpu"))
    mean = torch.from_numpy(frames["mn04"].mean(axis=0))
    with torch.no_grad():
        hidden = network.classifier[2:4](mean)
    both = torch.cat([mean, hidden]).numpy()
    expected = np.sign(both) * np.sqrt(np.abs(both))
    for frame in frames["mn04_context"]:  # of 5 s: each frame's context is all of it
        np.testing.assert_allclose(frame, expected, atol=1e-4)


def test_the_context_moves_with_the_frames_of_a_longer_clip() -> None:
    network = mobilenet.AudioMobileNet(0.4, 527).eval()
    embedding = torch.rand(1, 384, 9)
    with torch.no_grad():
        found = network.summary(embedding, 3)
        alone = network.summary(embedding[..., 3:6].mean(dim=2, keepdim=True), 1)
        end = network.summary(embedding[..., :2].mean(dim=2, keepdim=True), 1)
    torch.testing.assert_close(found[..., 4:5], alone)
    torch.testing.assert_close(found[..., :1], end)
