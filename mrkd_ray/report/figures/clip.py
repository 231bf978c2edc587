"""Figure 2 of the paper: a clip's waveform and its representations. The one that needs the data."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure as Drawing

from mrkd_ray.common.arrays import Float32
from mrkd_ray.common.errors import UserError
from mrkd_ray.datasets.opening import EMBEDDED, open_dataset
from mrkd_ray.report.figures import style
from mrkd_ray.report.figures.style import Figure, Panel
from mrkd_ray.report.grid_results import GridResults

SHADES = 32  # of a colour map: fewer make smaller images, more could not be told apart
COLUMNS = 600  # of a drawn waveform: each is its least and its greatest sample


class NoClip(Exception):
    """The data set is not where it was; the message says what was looked for."""


def figure(results: GridResults, id: str) -> Figure:
    """Waveform and representations of the data set's first clip.

    Raises:
        NoClip: it cannot be read.
    """
    from mrkd_ray.audio import decoding
    from mrkd_ray.representations.catalogue import REPRESENTATIONS, compute_clip

    data, cache = results.config["data"], Path(results.config["cache"])
    specs = (spec for cohort in results.config["cohorts"] for spec in cohort)
    names = dict.fromkeys(spec.partition(":")[0] for spec in specs)
    try:
        if data in EMBEDDED and not cache.is_dir():
            raise NoClip(f"its cache {cache} is not here")  # a report makes no data
        clip = open_dataset(data, cache).clips[0]
        recording = decoding.load(clip.path, clip.stretch)
        waveform = recording.at(decoding.SAMPLE_RATE)
        arrays = compute_clip(names, recording)
    except (UserError, decoding.AudioError, OSError) as error:
        raise NoClip(str(error).splitlines()[0]) from None
    seconds = len(waveform) / decoding.SAMPLE_RATE
    panels = [Panel(draw_waveform(waveform, seconds), f"waveform of {clip.clip_id}")]
    for name, array in arrays.items():
        entry = REPRESENTATIONS[name]
        # every frame stands for a hop
        span = colour_span(array, entry.levels)
        drawing = draw(name, array, len(array) * entry.timing.frame_seconds, span)
        panels.append(Panel(drawing, f"{name} of {clip.clip_id}: {entry.description}"))
    about = "; ".join(f"{name}: {REPRESENTATIONS[name].description}" for name in arrays)
    caption = (
        f"The first clip of the data set, {clip.clip_id} ({clip.label}, {seconds:.1f} s), as the "
        f"networks of this grid see it, before normalisation and deltas. {about}. Bright is high; "
        "the colours span each picture's own 1st to 99th percentile, without bins that only say "
        "how loud it is. All share one axis of time."
    )
    return style.figure(id, "A clip and its representations", caption, panels)


def draw_waveform(waveform: Float32, seconds: float) -> Drawing:
    """Draw samples as the band between the least and the greatest of each column."""
    drawing, axes = style.new(1.7, title="waveform", xlabel="seconds", ylabel="amplitude")
    parts = np.array_split(waveform, min(COLUMNS, len(waveform)))
    low, high = [part.min() for part in parts], [part.max() for part in parts]
    time = np.linspace(0, seconds, len(parts))
    axes.fill_between(time, low, high, color=style.DISTILLED, lw=0.4)
    axes.set_xlim(0, seconds)
    return drawing


def colour_span(array: Float32, levels: Float32) -> tuple[float, float]:
    """Return the 1st and the 99th percentile of a representation [frames, bins].

    Of the bins that loudness does not move (`Representation.levels`), where there are such: the
    first coefficient of an MFCC would leave all others one colour.
    """
    steady = levels == 0
    low, high = np.percentile(array[:, steady] if steady.any() else array, (1, 99))
    return float(low), float(high)


def draw(name: str, array: Float32, seconds: float, span: tuple[float, float]) -> Drawing:
    """Draw a representation [frames, bins], low bins below."""
    drawing, axes = style.new(2.0, title=name, xlabel="seconds", ylabel="bin")
    axes.imshow(
        array.T,
        origin="lower",
        aspect="auto",
        extent=(0, seconds, 0, array.shape[1]),
        cmap=matplotlib.colormaps["viridis"].resampled(SHADES),
        vmin=span[0],
        vmax=span[1],
        interpolation="nearest",
    )
    return drawing
