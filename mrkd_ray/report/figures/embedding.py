"""Figures 4 and 5 of the paper: t-SNE of the test clips' logits, independent beside distilled."""

from __future__ import annotations

import numpy as np

from mrkd_ray.common.arrays import Float64
from mrkd_ray.report.figures import style
from mrkd_ray.report.figures.style import Figure, Panel, intervals_in_words, runs_in_words
from mrkd_ray.report.grid_results import GridCohort, GridResults
from mrkd_ray.scores import comparison, logit_space
from mrkd_ray.scores.comparison import Pair

SEED = 0
PERPLEXITY = 30.0  # scikit-learn's default; fewer clips have less
SHOWN = len(style.PALETTE)  # classes in colour
VERDICTS = {"higher": "more compact", "lower": "less compact", "ns": "no difference beyond chance"}
AS_PIXELS = 200  # clips: of more, the points are embedded as an image, for a page below 5 MB


def figure(results: GridResults, cohort: GridCohort, id: str) -> Figure | None:
    """One run's clips of each branch, with the silhouette score over all runs."""
    panels, found, compared = [], [], []
    for name in cohort.branches:
        pairs = results.pairs(cohort, name)
        if not pairs:
            continue
        compared.append(pairs)
        panels += draw(pairs[0], results.classes)
        found.append(f"{name}: {_score(pairs)}.")
    if not panels:
        return None
    firsts = dict.fromkeys((p[0].distilled.fold, p[0].distilled.seed) for p in compared)
    runs = "; ".join(f"fold {fold}, seed {seed}" for fold, seed in firsts)
    colours = (
        f"The {SHOWN} classes with the most test clips have a colour, the others are grey. "
        if len(results.classes) > SHOWN
        else ""
    )
    caption = (
        f"{cohort.title}. A point is a test clip of {runs}, its colour "
        f"the true class. {colours}Both panels of a branch have the same seed, the same start and "
        "the same axes. Distances in t-SNE are not to be compared; the silhouette score is: of "
        "the true classes in logit space, 100 is compact and apart, 0 overlapping, and it does not "
        f"change when all logits are scaled alike. Over "
        f"{runs_in_words([len(pairs) for pairs in compared])}, with "
        f"{intervals_in_words(compared)}: {' '.join(found)}"
    )
    return style.figure(id, f"t-SNE of logits: {cohort.title}", caption, panels, paired=True)


def _score(pairs: list[Pair]) -> str:
    """Say whether distillation made the classes more compact."""
    alone = comparison.mean([pair.independent for pair in pairs], logit_space.silhouette)
    together = comparison.mean([pair.distilled for pair in pairs], logit_space.silhouette)
    change = comparison.difference(pairs, logit_space.silhouette)
    return (
        f"{alone.mean:.1f} alone, {together.mean:.1f} distilled, difference {change.mean_text} "
        f"{change.ends_text}, {VERDICTS[change.mark]}"
    )


def draw(pair: Pair, classes: tuple[str, ...]) -> list[Panel]:
    """Draw the same clips under both conditions."""
    models = {"independent": pair.independent, "distilled": pair.distilled}
    points = dict(zip(models, embed(*(m.probabilities for m in models.values())), strict=True))
    everything = np.concatenate(list(points.values()))
    labels = pair.independent.labels
    common = np.argsort(-np.bincount(labels, minlength=len(classes)), kind="stable")[:SHOWN]
    colours = np.full(len(classes), style.GREY)
    colours[np.sort(common)] = style.PALETTE[: len(common)]
    order = np.argsort(colours[labels] != style.GREY, kind="stable")  # colours over grey
    panels = []
    for condition, xy in points.items():
        name = models[condition].name
        drawing, axes = style.new(3.0)
        axes.set_title(f"{name}, {condition}")
        margin = 0.08 * np.ptp(everything, axis=0)
        low, high = everything.min(axis=0) - margin, everything.max(axis=0) + margin
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xticks=[], yticks=[])
        axes.spines[:].set_visible(True)
        axes.spines[:].set_alpha(0.4)
        axes.scatter(
            xy[order, 0],
            xy[order, 1],
            s=11,
            c=colours[labels[order]],
            alpha=0.8,
            lw=0,
            rasterized=len(xy) > AS_PIXELS,
        )
        places = {classes[i]: _medoid(xy[labels == i]) for i in common if (labels == i).any()}
        style.label_points(axes, places)
        panels.append(Panel(drawing, f"t-SNE of the logits of {name}, {condition}"))
    return panels


def _medoid(xy: Float64) -> Float64:
    """Return the point that is nearest to all others."""
    found: Float64 = xy[((xy[:, None] - xy) ** 2).sum(-1).sum(1).argmin()]
    return found


def embed(*probabilities: Float64) -> list[Float64]:
    """Return t-SNE coordinates [n, 2] of logits: the same seed and the same start for each.

    They start from the first two principal components of their mean, so that a class lies on the
    same side in each. On one thread: sums on several have no fixed order.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    spaces = [logit_space.logits(p) for p in probabilities]
    with threadpool_limits(1):
        start = PCA(2, svd_solver="full").fit_transform(np.mean(spaces, axis=0))
        start *= 1e-4 / start[:, 0].std()  # as scikit-learn's own init="pca"
        perplexity = min(PERPLEXITY, (len(start) - 1) / 3)
        found = []
        for space in spaces:
            tsne = TSNE(perplexity=perplexity, init=start, random_state=SEED)
            xy = tsne.fit_transform(space)
            found.append(xy - xy.mean(axis=0))
    return found
