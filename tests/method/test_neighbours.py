"""What neighbours say of labels, and where labels spread to."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mrkd_ray.method import neighbours


def clusters(each: int = 12, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Embeddings in as many directions as there are classes, and one-hot labels."""
    generator = torch.Generator().manual_seed(0)
    of = torch.arange(classes).repeat(each)
    centres = torch.eye(classes, 8) * 4
    embeddings = centres[of] + torch.randn(len(of), 8, generator=generator)
    return embeddings, torch.nn.functional.one_hot(of, classes)


def test_neighbours_agree_with_right_labels_and_not_with_wrong_ones() -> None:
    embeddings, says = clusters()
    wrong = says.clone()
    wrong[:4] = says[:4].roll(1, dims=1)
    belief = neighbours.agreement(embeddings, wrong, 5)
    label = (belief * wrong).sum(dim=1)
    assert (label[:4] < 0.3).all()
    assert label[4:].mean() > 0.8
    torch.testing.assert_close(belief.sum(dim=1), torch.ones(len(says)))


def test_a_clip_is_no_neighbour_of_its_own_and_who_has_no_label_has_no_say() -> None:
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [1.0, 0.05]])
    says = torch.tensor([[1, 0], [0, 1], [1, 0], [0, 0]])
    belief = neighbours.agreement(embeddings, says, 1)
    assert belief.argmax(dim=1).tolist() == [1, 0, 1, 1]  # clip 3 would be the nearest of both


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, says = clusters()
    whole = neighbours.agreement(embeddings, says, 5), neighbours.spread(embeddings, says, 5)
    monkeypatch.setattr(neighbours, "BLOCK", 7)
    parts = neighbours.agreement(embeddings, says, 5), neighbours.spread(embeddings, says, 5)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other)


def test_a_label_spreads_to_those_of_its_cluster() -> None:
    embeddings, says = clusters()
    few = says.clone()
    few[3:] = 0  # one of each class is left
    found = neighbours.spread(embeddings, few, 5)
    assert (found.argmax(dim=1) == says.argmax(dim=1)).float().mean() > 0.95
    torch.testing.assert_close(found.sum(dim=1), torch.ones(len(says)))


def test_a_class_with_more_labels_does_not_spread_further() -> None:
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.7, 0.71]])
    says = torch.tensor([[1, 0], [1, 0], [1, 0], [0, 1], [0, 0]])
    assert neighbours.spread(embeddings, says, 4)[-1].argmax() == 1


def test_more_neighbours_than_clips_are_all_of_them() -> None:
    embeddings, says = clusters(each=1)
    for of in (neighbours.agreement, neighbours.spread):
        assert torch.isfinite(of(embeddings, says, 50)).all()
