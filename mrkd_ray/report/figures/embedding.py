"""Figures 4 and 5 of the paper: t-SNE of the test clips' logits, independent beside distilled."""

from __future__ import annotations

import numpy as np

from mrkd_ray.report import analysis
from mrkd_ray.report.analysis import Floats
from mrkd_ray.report.figures import style
from mrkd_ray.report.figures.style import Figure, Panel
from mrkd_ray.report.measured import Cohort, Measured, Pair

SEED = 0
PERPLEXITY = 30.0  # scikit-learn's default; fewer clips have less
SHOWN = len(style.PALETTE)  # classes in colour
AS_PIXELS = 500  # clips: of more, the points are embedded as an image


def figure(measured: Measured, cohort: Cohort, id: str) -> Figure | None:
    """One run's clips of each branch, with the silhouette score over all runs."""
    panels, found = [], []
    for name in cohort.branches:
        pairs = measured.pairs(cohort, name)
        if not pairs:
            continue
        panels += draw(pairs[0], measured.classes)
        found.append(f"{name}: {_score(pairs)}.")
    if not panels:
        return None
    run = pairs[0].distilled
    colours = (
        f"The {SHOWN} classes with the most test clips have a colour, the others are grey. "
        if len(measured.classes) > SHOWN
        else ""
    )
    caption = (
        f"{cohort.title}. A point is a test clip of fold {run.fold}, seed {run.seed}, its colour "
        f"the true class. {colours}Both panels of a branch have the same seed, the same start and "
        "the same axes. Distances in t-SNE are not to be compared; the silhouette score is: of the "
        "true classes in logit space, 1 is compact and apart, 0 overlapping, and it does not change "
        f"when all logits are scaled alike. Over {len(pairs)} run(s), with a 95 % interval over "
        f"clips: {' '.join(found)}"
    )
    return style.figure(id, f"t-SNE of logits: {cohort.title}", caption, panels)


def _score(pairs: list[Pair]) -> str:
    """Say whether distillation made the classes more compact."""
    alone = analysis.mean([pair.independent for pair in pairs], analysis.silhouette)
    together = analysis.mean([pair.distilled for pair in pairs], analysis.silhouette)
    change = analysis.difference(pairs, analysis.silhouette)
    verdict = "no difference beyond what other clips could give"
    if change.low > 0:
        verdict = "more compact"
    elif change.high < 0:
        verdict = "less compact"
    return (
        f"{alone.mean:.2f} alone, {together.mean:.2f} distilled, difference {change.mean:+.2f} "
        f"[{change.low:+.2f}, {change.high:+.2f}], {verdict}"
    )


def draw(pair: Pair, classes: tuple[str, ...]) -> list[Panel]:
    """Draw the same clips under both conditions."""
    models = {"independent": pair.independent, "distilled": pair.distilled}
    points = dict(zip(models, embed(*(m.probabilities for m in models.values())), strict=True))
    limit = 1.08 * max(float(np.abs(xy).max()) for xy in points.values())
    labels = pair.independent.labels
    common = np.argsort(-np.bincount(labels, minlength=len(classes)), kind="stable")[:SHOWN]
    colours = [style.GREY] * len(classes)
    for colour, index in zip(style.PALETTE, sorted(common), strict=False):
        colours[index] = colour
    panels = []
    for condition, xy in points.items():
        name = models[condition].name
        drawing, axes = style.new(3.3)
        axes.set_title(f"{name}\n{condition}")
        axes.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[], yticks=[], aspect="equal")
        axes.spines[:].set_visible(True)
        axes.spines[:].set_alpha(0.4)
        grey = [colours[label] == style.GREY for label in labels]
        order = np.argsort(np.logical_not(grey), kind="stable")  # colours over grey
        axes.scatter(
            *xy[order].T,
            s=9,
            c=[colours[label] for label in labels[order]],
            alpha=0.8,
            lw=0,
            rasterized=len(xy) > AS_PIXELS,
        )
        for index in common:
            own = xy[labels == index]
            if len(own):
                medoid = own[((own[:, None] - own) ** 2).sum(-1).sum(1).argmin()]
                axes.annotate(
                    classes[index], medoid, ha="center", va="center", fontsize=8, clip_on=True
                )
        panels.append(Panel(drawing, f"t-SNE of the logits of {name}, {condition}"))
    return panels


def embed(*probabilities: Floats) -> list[Floats]:
    """Return t-SNE coordinates [n, 2] of logits: the same seed and the same start for each.

    They start from the first two principal components of their mean, so that a class lies on the
    same side in each. On one thread: sums on several have no fixed order.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    spaces = [analysis.logits(p) for p in probabilities]
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
