"""Labels and the neighbours of a clip in frozen embeddings: who agrees, and what spreads.

Where embeddings come pretrained, clips of one class lie together before anything is learnt here. N
clips, D values, M classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 1024  # clips that are compared with all others at once
SHARPNESS = 3  # power of the cosine: nearer neighbours count more
SPREAD = 0.8  # part of a label that comes from neighbours, in each round
ROUNDS = 30


def agreement(embeddings: Tensor, says: Tensor, count: int) -> Tensor:
    """Return what the nearest neighbours of each clip say, without itself.

    Args:
        embeddings: [N, D].
        says: [N, M], one-hot rows; rows of 0 are of clips without a label, which have no say.
        count: of neighbours.

    Returns:
        [N, M], distributions.
    """
    voters = says.any(dim=1).nonzero().squeeze(1)
    near, weights = _nearest(embeddings, voters, count)
    votes = (weights[..., None] * says[voters][near]).sum(dim=1)
    floor = torch.finfo(votes.dtype).eps  # a class that no neighbour names
    votes = votes + floor
    return votes / votes.sum(dim=1, keepdim=True)


def spread(embeddings: Tensor, says: Tensor, count: int) -> Tensor:
    """Spread labels over the graph of nearest neighbours (Zhou et al. 2004).

    All classes get the same mass (Zhu et al. 2003), as if all were equally frequent.

    Args:
        embeddings: [N, D].
        says: [N, M], one-hot rows; rows of 0 are of clips without a label.
        count: of neighbours.

    Returns:
        [N, M], distributions.
    """
    n = len(embeddings)
    near, weights = _nearest(embeddings, torch.arange(n, device=says.device), count)
    first = torch.arange(n, device=says.device).repeat_interleave(near.shape[1])
    edges, values = torch.stack([first, near.flatten()]), weights.flatten() / 2
    edges, values = torch.cat([edges, edges.flip(0)], dim=1), torch.cat([values, values])
    degrees = torch.zeros(n, device=says.device).index_add_(0, edges[0], values)
    scale = degrees.clamp_min(torch.finfo(values.dtype).eps).rsqrt()
    values = values * scale[edges[0]] * scale[edges[1]]
    graph = torch.sparse_coo_tensor(edges, values, (n, n), check_invariants=True).coalesce()
    known = says.to(values.dtype)
    found = known
    for _ in range(ROUNDS):
        found = SPREAD * torch.sparse.mm(graph, found) + (1 - SPREAD) * known
    found = found / found.sum(dim=0).clamp_min(torch.finfo(values.dtype).eps)
    found = found + torch.finfo(values.dtype).eps  # a clip that nothing reaches
    return found / found.sum(dim=1, keepdim=True)


def _nearest(embeddings: Tensor, others: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return each clip's nearest among `others` [V]: places in it, and weights, both [N, k]."""
    directions = F.normalize(embeddings, dim=1)
    own = torch.full((len(embeddings),), -1, device=others.device)
    own[others] = torch.arange(len(others), device=others.device)
    near, cosines = [], []
    for first in range(0, len(directions), BLOCK):
        block, places = directions[first : first + BLOCK], own[first : first + BLOCK]
        alike = block @ directions[others].T
        rows = (places >= 0).nonzero().squeeze(1)
        alike[rows, places[rows]] = -torch.inf
        top = alike.topk(min(count, len(others)), dim=1)
        near.append(top.indices)
        cosines.append(top.values)
    return torch.cat(near), torch.cat(cosines).clamp_min(0) ** SHARPNESS
