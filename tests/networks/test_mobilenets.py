from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mrkd_ray.common.errors import UserError
from mrkd_ray.networks.catalogue import build, default_weights, initial_weights
from mrkd_ray.representations import mobilenet, pretrained


def test_official_weights_are_loaded_whole_but_for_the_classifier(shared: Path) -> None:
    weights = initial_weights("mn04", str(shared / "weights"))
    _, report = build("mn04", 7, weights, windows=(128, 150))
    assert report.complete
    assert not report.unexpected
    assert report.replaced == ("classifier.5.weight", "classifier.5.bias")
    assert len(report.loaded) == 310


def test_where_the_file_is_there_a_network_starts_from_it(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(pretrained.FOLDER, str(tmp_path))
    assert default_weights("mn04") == "none"
    monkeypatch.setenv(pretrained.FOLDER, str(shared / "weights"))
    assert default_weights("mn04") == str(shared / "weights" / "mn04_as_mAP_432.pt")
    assert default_weights("mn10") == "none"


def test_only_the_static_channel_of_windows_is_used() -> None:
    network, _ = build("mn01", 3)
    network.eval()
    windows = torch.randn(2, 3, 64, 150)
    other = windows.clone()
    other[:, 1:] = 0
    with torch.no_grad():
        assert torch.equal(network(windows), network(other))
        plain = mobilenet.AudioMobileNet.forward(network, windows[:, :1])  # type: ignore[arg-type]
        assert torch.equal(network(windows), plain)


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_heads_take_embeddings_of_any_size(name: str) -> None:
    network, _ = build(name, 5, windows=(384, 5))
    network.eval()
    windows = torch.randn(4, 3, 384, 5)
    with torch.no_grad():
        logits = network(windows)
        assert logits.shape == (4, 5)
        # The mean over time: the order of frames and the deltas change nothing.
        windows[:, 1:] = 0
        torch.testing.assert_close(network(windows.flip(3)), logits)


def test_weights_of_another_network_are_refused_by_name(shared: Path) -> None:
    file = shared / "weights" / "squeezenet1_0-imagenet.pth"
    with pytest.raises(UserError, match="nothing in it fits network 'mn10'"):
        build("mn10", 3, file)
