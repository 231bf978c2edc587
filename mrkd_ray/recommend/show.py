"""A choice for people, as CSV tables, and as a grid file that says why."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from mrkd_ray.common import environment
from mrkd_ray.common.text import count_text, few, milliseconds_text, to_cell
from mrkd_ray.config.method import Learning
from mrkd_ray.config.run import Branches
from mrkd_ray.config.schema import GridConfig, RecommendConfig
from mrkd_ray.recommend.choice import ERRORS, Choice, Probed, RankedCohort
from mrkd_ray.recommend.costs import Cost, draw, front
from mrkd_ray.scores import diversity
from mrkd_ray.scores.doubtful_labels import FEWEST
from mrkd_ray.scores.intervals import standard_error

if TYPE_CHECKING:
    from rich.table import Table

SHOWN = 12
"""Candidates in the matrix, the most accurate: more do not fit on a terminal."""
LABELS = "labels.csv"
DRAWING = "accuracy_over_cost.svg"
DOUBTFUL = 0.05
"""Estimated part of wrong labels from which on distilling is advised, if it is told from none."""


def sentences(choice: Choice, fold: int, verified_only: bool) -> Iterator[str]:
    """Say what was chosen and why, and how sure that is.

    Args:
        fold: whose test clips took no part.
        verified_only: only clips with a verified label are trained on.
    """
    probed, chosen = choice.probed, choice.cohorts[0]
    best = max(chosen.members, key=lambda i: float(probed.accuracy[i]))
    error = standard_error((choice.ensemble.argmax(axis=1) == probed.labels).astype(float))
    others = len(choice.cohorts) - 1
    first = (
        f"Of {others + 1} cohorts its ensemble has the lowest log-loss, {chosen.log_loss:.3f} nats."
        if others
        else "No other candidates are as good."
    )
    yield (
        f"Chosen: {_names(choice, chosen)}. {first} Its ensemble is right on "
        f"{100 * chosen.accuracy:.1f} ± {100 * error:.1f} % of the clips, its best member on "
        f"{_accuracy(probed, best)} %; exactly one of two members is right on "
        f"{100 * chosen.disagreement:.0f} %."
    )
    parts = "1 part" if probed.parts == 1 else f"{probed.parts} parts"
    yield (
        f"{len(probed.labels)} clips decide: {parts} of the training clips of fold {fold}, "
        "each predicted by probes that were trained on the rest. ±: one standard error."
    )
    if weak := probed.left_out:
        yield (
            f"{few([str(candidate) for candidate in weak.candidates])}: tried on the first part "
            "alone. There the best candidate is ahead by more than the margin, and by "
            f"{ERRORS} standard errors besides."
        )
    if poor := probed.hopeless:
        yield (
            f"{few([str(candidate) for candidate in poor.candidates])}: tried for a fifth of the "
            "epochs on the first part alone. There the best candidate is right on more than twice "
            "as many clips."
        )
    if others:
        told = f"{choice.tied} of the other {others} cohorts are not told apart from it by so many "
        told += f"clips (log-loss within {ERRORS} standard errors)."
        if choice.tied == 0:
            told = f"So many clips tell it from all others (log-loss by {ERRORS} standard errors)."
        if choice.tied > others / 2:
            told += " Take it as one of several good guesses, or give more clips."
        yield f"{told} Its figures flatter it, as the best of many."
    yield from _cost(probed)
    yield (f"The test clips of fold {fold} took no part in the choice, so they can judge it.")
    yield from _labels(choice, verified_only)


def _cost(probed: Probed) -> Iterator[str]:
    """Say what accuracy costs: candidates that are better than all that are faster."""
    if not probed.costs:
        return
    names, costs, accuracy = _all_of(probed)
    best = front(costs, accuracy)
    first = costs[best[0]]
    text = (
        f"Cost of a clip of {first.seconds:.3g} s on one core: {names[best[0]]} is the "
        f"cheapest ({100 * accuracy[best[0]]:.1f} %; {first.text})."
    )
    for before, i in itertools.pairwise(best):
        gain = 100 * (accuracy[i] - accuracy[before])
        text += f" {names[i]} brings {gain:+.1f} points ({costs[i].text})."
    left = len(costs) - len(best)
    more = "The other one costs more and is" if left == 1 else f"The other {left} cost more and are"
    yield text + (f" {more} no better." if left else "")


def _all_of(probed: Probed) -> tuple[list[str], list[Cost], list[float]]:
    """Return name, cost and accuracy of each candidate, of those left out on the first part."""
    every = [probed, probed.left_out] if probed.left_out else [probed]
    return (
        [str(candidate) for each in every for candidate in each.candidates],
        [cost for each in every for cost in each.costs],
        [float(accuracy) for each in every for accuracy in each.accuracy],
    )


def drawing(choice: Choice) -> dict[str, str]:
    """Return the SVG of accuracy over cost, by its file's name; nothing where costs lack."""
    if not choice.probed.costs:
        return {}
    return {DRAWING: draw(*_all_of(choice.probed))}


def show(choice: Choice, fold: int, verified_only: bool, console: Console) -> None:
    """Print the candidates, how their errors go together, and what was chosen: see `sentences`."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    probed, chosen = choice.probed, choice.cohorts[0].members
    order = sorted(range(len(probed.candidates)), key=lambda i: -probed.accuracy[i])
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in ("", "candidate", "accuracy %", "log-loss", ""):
        right = heading in ("", "accuracy %", "log-loss")
        table.add_column(heading, justify="right" if right else "left", no_wrap=True)
    for number, i in enumerate(order, start=1):
        mark = "chosen" if i in chosen else "" if i in choice.admitted else "too weak"
        loss = float(probed.losses([i]).mean())
        row = (str(number), str(probed.candidates[i]), _accuracy(probed, i), f"{loss:.3f}", mark)
        table.add_row(*row, style="bold" if i in chosen else None)
    for others, why in (
        (probed.left_out, "too weak on the first part"),
        (probed.hopeless, "hopeless in few epochs"),
    ):
        if others is None:
            continue
        for i in np.argsort(-others.accuracy, kind="stable"):
            loss = float(others.losses([i]).mean())
            name = str(others.candidates[i])
            table.add_row("", name, _accuracy(others, i), f"{loss:.3f}", why)
    console.print(table)
    console.print()
    console.print(_matrix(probed, order[:SHOWN]))
    console.print(
        "Above the diagonal: clips on which one of two alone is right, %. Below: correlation of "
        "their errors, 0 where independent.",
        style="dim",
    )
    if probed.costs:
        console.print()
        console.print(_costs(probed, order))
    for sentence in sentences(choice, fold, verified_only):
        console.print(sentence, markup=False, highlight=False)


def tables(choice: Choice) -> dict[str, str]:
    """Return the CSV files by name: a row a candidate, a row a pair, a row a cohort, best first.

    And of labels a row a clip, those that look wrong first.
    """
    import pandas as pd

    probed = choice.probed
    candidates = [
        _row(probed, i) | {"admitted": i in choice.admitted} | _columns(probed, i)
        for i in range(len(probed.candidates))
    ]
    candidates += [
        _row(others, i) | {"admitted": False} | _columns(others, i)
        for others in (probed.left_out, probed.hopeless)
        if others
        for i in range(len(others.candidates))
    ]
    measures = (diversity.disagreement, diversity.correlation, diversity.yule_q)
    matrices = {measure.__name__: probed.pairwise(measure) for measure in measures}
    pairs = [
        {"first": str(probed.candidates[i]), "second": str(probed.candidates[j])}
        | {name: matrix[i, j] for name, matrix in matrices.items()}
        for i, j in zip(*np.triu_indices(len(probed.candidates), k=1), strict=True)
    ]
    cohorts = [
        {
            "cohort": _names(choice, cohort, "+"),
            "log_loss": cohort.log_loss,
            "accuracy": cohort.accuracy,
            **{name: getattr(cohort, name) for name in matrices},
        }
        for cohort in choice.cohorts
    ]
    ensemble = choice.ensemble
    own, first = ensemble[np.arange(len(ensemble)), probed.labels], ensemble.argmax(axis=1)
    labels = [
        {
            "clip_id": to_cell(probed.clip_ids[i]),
            "label": to_cell(probed.classes[probed.labels[i]]),
            "probability": own[i],
            "likeliest": to_cell(probed.classes[first[i]]),
            "probability_likeliest": ensemble[i, first[i]],
            "doubted": choice.doubts[i],
        }
        for i in np.lexsort((own, ~choice.doubts))
    ]
    named = {"probes.csv": candidates, "pairs.csv": pairs, "cohorts.csv": cohorts, LABELS: labels}
    return {name: pd.DataFrame(rows).to_csv(index=False) for name, rows in named.items()}


def _row(probed: Probed, i: int) -> dict[str, Any]:
    return {
        "candidate": str(probed.candidates[i]),
        "accuracy": probed.accuracy[i],
        "standard_error": standard_error(probed.hits[i]),
        "log_loss": probed.losses([i]).mean(),
        "clips": len(probed.labels),
    }


def _columns(probed: Probed, i: int) -> dict[str, float]:
    if not probed.costs:
        return {}
    cost = probed.costs[i]
    return {
        "milliseconds": cost.milliseconds,
        "multiplications": cost.multiplications,
        "parameters": cost.parameters,
        "trained_parameters": cost.trained,
    }


def grid_file(choice: Choice, config: RecommendConfig) -> str:
    """Return the grid of the chosen cohort as YAML, with the evidence as comments.

    It has the options of the probes, but for their few cycles: those are the grid's own to choose;
    and `trust` where labels look wrong, unless all that is trained on is verified.
    """
    import yaml

    made = environment.describe()
    lines = [
        f"Written by `{made['command']}`, {made['date'][:10]}.",
        *sentences(choice, config.fold, config.verified_only),
    ]
    comments = [f"# {line}" for text in lines for line in textwrap.wrap(text, 98)]
    names = {*Learning.model_fields, *Branches.model_fields} - {"data"}
    given = config.model_dump(mode="json", include=names)
    defaults = GridConfig.model_construct().model_dump(mode="json", include=names, warnings=False)
    fields: dict[str, Any] = {"data": config.data, "folds": [config.fold]}
    fields |= {name: value for name, value in given.items() if value != defaults[name]}
    if _wrong(choice) and not config.verified_only:
        fields["trust"] = True
    fields |= {"cohorts": [_names(choice, choice.cohorts[0])]}
    text: str = yaml.safe_dump(fields, sort_keys=False, width=98)
    return "\n".join([*comments, text])


def _wrong(choice: Choice) -> bool:
    """Whether some labels are taken as wrong."""
    least = max(DOUBTFUL, ERRORS * choice.wrong_share_error)
    return not _cannot_tell(choice) and choice.wrong_share >= least


def _cannot_tell(choice: Choice) -> str:
    """Say why nothing is known of the labels; nothing where it is."""
    if not choice.probed.all_verified:
        return "those that nobody verified took no part"
    if np.isnan(choice.wrong_share):
        return f"there are fewer than {FEWEST} classes"
    if choice.underfit:
        right = f"{100 * choice.cohorts[0].accuracy:.0f} %"
        return (
            f"the probes are underfit. Their ensemble is right on {right} of the clips, too few to "
            "tell wrong labels from hard clips. Give the probes more --cycles"
        )
    return ""


def _labels(choice: Choice, verified_only: bool) -> Iterator[str]:
    """Say what the probes think of the labels, and whether to distil."""
    if why := _cannot_tell(choice):
        yield (
            f"Whether the labels are right cannot be told: {why}. Where they are right, the "
            "ensemble of branches trained alone is hard to beat; where some are wrong (trust: "
            "true) or few (unlabelled: FOLDER) branches gain by teaching each other."
        )
        return
    share, error = 100 * choice.wrong_share, 100 * choice.wrong_share_error
    yield (
        f"Labels: about {share:.0f} ± {error:.0f} % look wrong. In the less probable half of the "
        f"classes, to the ensemble: {choice.doubts.sum()} of {len(choice.doubts)} labels; "
        f"{LABELS}, beside the probes, has these first."
    )
    if _wrong(choice) and verified_only:
        yield (
            "Mend those that are, or take their mark verified away: verified labels are believed. "
            "Without verified_only, trust: true lets branches doubt the others."
        )
    elif _wrong(choice):
        yield (
            "Mend those that are. With wrong labels branches learn better from each other than "
            "alone: distil, with trust: true. Give it epochs: networks that know little yet teach "
            "badly."
        )
    else:
        yield (
            "That is next to none (but mix-ups of classes that sound alike do not show). Then the "
            "ensemble of branches trained alone is hard to beat, and distilling brings a single "
            "branch little. Recordings without labels (unlabelled: FOLDER) may bring more."
        )


def _matrix(probed: Probed, order: list[int]) -> Table:
    """Disagreement over correlation, of the candidates at these places."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    places = np.ix_(order, order)
    above = probed.pairwise(diversity.disagreement)[places]
    below = probed.pairwise(diversity.correlation)[places]
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in ("", *range(1, len(order) + 1)):
        table.add_column(str(heading), justify="right", no_wrap=True)
    for i in range(len(order)):
        left = [f"{value:.2f}".replace("nan", "-") for value in below[i, :i]]
        right = [f"{100 * value:.0f}" for value in above[i, i + 1 :]]
        table.add_row(str(i + 1), *left, "", *right)
    return table


def _costs(probed: Probed, order: list[int]) -> Table:
    """What a clip costs, of the candidates at these places."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in ("", "ms", "multiplications", "parameters", "trained"):
        table.add_column(heading, justify="right", no_wrap=True)
    for number, i in enumerate(order, start=1):
        cost = probed.costs[i]
        counts = map(count_text, (cost.multiplications, cost.parameters, cost.trained))
        table.add_row(str(number), milliseconds_text(cost.milliseconds), *counts)
    return table


def _accuracy(probed: Probed, i: int) -> str:
    error = standard_error(probed.hits[i])
    return f"{100 * probed.accuracy[i]:.1f} ± {100 * error:.1f}"


def _names(choice: Choice, cohort: RankedCohort, between: str = " + ") -> str:
    return between.join(str(choice.probed.candidates[i]) for i in cohort.members)
