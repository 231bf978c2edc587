"""What candidates cost where they are used: multiplications, parameters, time."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mrkd_ray.common import environment
from mrkd_ray.common.text import count_text, milliseconds_text
from mrkd_ray.inference.model_folder import read_size


@dataclass(frozen=True)
class Cost:
    """What a model takes for one clip.

    Attributes:
        multiplications: of convolutions and matrix products (`inference.latency`).
        parameters: in all, those of frozen pretrained networks included.
        trained: of them, those that were trained here.
        milliseconds: as of `inference.latency`.
        seconds: the clip's length.
        processor: that it was measured on.
    """

    multiplications: int
    parameters: int
    trained: int
    milliseconds: float
    seconds: float
    processor: str

    @property
    def text(self) -> str:
        """For people: `9.2 ms, 27 M multiplications, 530 k parameters (19 k trained)`."""
        trained = f" ({count_text(self.trained)} trained)" if self.trained < self.parameters else ""
        return (
            f"{milliseconds_text(self.milliseconds)} ms, {count_text(self.multiplications)} "
            f"multiplications, {count_text(self.parameters)} parameters{trained}"
        )


def measure(folders: Sequence[Path], seconds: float) -> Cost:
    """Measure a model, or an ensemble of several, on this machine. Loads PyTorch.

    Raises:
        UserError: as `read_model`.
    """
    from mrkd_ray.inference.latency import milliseconds, multiplications

    sizes = [read_size(folder) for folder in folders]
    return Cost(
        multiplications=multiplications(folders, seconds),
        parameters=sum(size.parameters for size in sizes),
        trained=sum(size.trained for size in sizes),
        milliseconds=milliseconds(folders, seconds),
        seconds=seconds,
        processor=environment.processor(),
    )


def front(costs: Sequence[Cost], accuracies: Sequence[float]) -> list[int]:
    """Return which models are more accurate than all that take less time, the fastest first."""
    found: list[int] = []
    for i in sorted(range(len(costs)), key=lambda i: (costs[i].milliseconds, -accuracies[i])):
        if not found or accuracies[i] > accuracies[found[-1]]:
            found.append(i)
    return found


def draw(names: Sequence[str], costs: Sequence[Cost], accuracies: Sequence[float]) -> str:
    """Return an SVG of accuracies in [0, 1] over milliseconds, with the front as a line."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    from mrkd_ray.report.figures import style

    with style.look():
        drawing, axes = style.new(3.4, xlabel="ms a clip, one core", ylabel="accuracy, %")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        best = front(costs, accuracies)
        times = [cost.milliseconds for cost in costs]
        percent = [100 * accuracy for accuracy in accuracies]
        axes.plot(
            [times[i] for i in best], [percent[i] for i in best], color=style.GREY, lw=1, zorder=1
        )
        axes.scatter(times, percent, s=14, color=style.DISTILLED, zorder=2)
        for i in best:
            axes.annotate(
                names[i],
                (times[i], percent[i]),
                xytext=(3, -9),
                textcoords="offset points",
                fontsize=7,
            )
        axes.set_xlim(min(times) / 1.5, max(times) * 2)
        drawing.set_facecolor("white")
        text = io.StringIO()
        drawing.savefig(text, format="svg", facecolor="white", metadata={"Date": None})
    return text.getvalue()
