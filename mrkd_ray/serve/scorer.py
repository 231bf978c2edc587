"""The model in the process that does the work."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mrkd_ray.audio.decoding import LONG, Recording
from mrkd_ray.common.arrays import Float32
from mrkd_ray.common.errors import UserError
from mrkd_ray.inference import threads
from mrkd_ray.inference.classifier import Classifier
from mrkd_ray.inference.inputs import Source
from mrkd_ray.inference.latency import multiplications
from mrkd_ray.inference.prediction import Prediction
from mrkd_ray.representations.catalogue import REPRESENTATIONS
from mrkd_ray.serve.scoring import About, AboutBranch, Job, Refused, Scores

COST_SECONDS = 5.0
COLUMNS = 600  # of a picture: more are not seen


class Scorer:
    """A loaded model that does jobs.

    Args:
        path: of the model, as of `Classifier.load`.
        device: as of `Classifier.load`.
        jobs: threads on a CPU; None: as many as CPUs.

    Raises:
        UserError: as `Classifier.load`.
    """

    def __init__(self, path: str, device: str | None = None, jobs: int | None = None) -> None:
        threads.limit(jobs)
        self._whole = Classifier.load(path, device)
        costs = {
            branch.model.branch: multiplications([branch.folder], COST_SECONDS)
            for branch in self._whole.branches
        }
        cheapest_first = sorted(
            self._whole.branches, key=lambda branch: (costs[branch.model.branch], branch.folder)
        )
        self._branches = {branch.model.branch: branch for branch in cheapest_first}
        self._about = About(
            classes=self._whole.classes,
            multi_label=self._whole.multi_label,
            window=self._whole.window,
            branches=tuple(
                AboutBranch(
                    name,
                    branch.model.representation,
                    REPRESENTATIONS[branch.model.representation].description,
                    str(branch.model.config["network"]),
                    costs[name],
                )
                for name, branch in self._branches.items()
            ),
            calibrations={
                names: self._asking(names).calibration
                for names in (tuple(self._branches), *((name,) for name in self._branches))
            },
        )

    def about(self) -> About:
        """Say what the model is."""
        return self._about

    def _asking(self, names: Sequence[str]) -> Classifier:
        return Classifier([self._branches[name] for name in names])

    def score(self, jobs: Sequence[Job]) -> list[Scores | Refused]:
        """Do jobs; those that ask the same branches together. Scores are those of `predict`."""
        found: dict[int, Scores | Refused] = {}
        for names in dict.fromkeys(job.branches for job in jobs):
            classifier = self._asking(names)
            alike = [place for place, job in enumerate(jobs) if job.branches == names]
            short = [i for i in alike if len(jobs[i].samples) <= LONG * jobs[i].sample_rate]
            found |= dict(zip(short, _of_short(classifier, [jobs[i] for i in short]), strict=True))
            found |= {i: _of_long(classifier, jobs[i]) for i in alike if i not in short}
        return [found[place] for place in range(len(jobs))]


def _of_short(classifier: Classifier, jobs: Sequence[Job]) -> list[Scores | Refused]:
    recordings = [Recording(job.samples, job.sample_rate) for job in jobs]
    sources = [Source(str(place), each) for place, each in enumerate(recordings)]
    refused: list[UserError] = []
    whole = {each.file: each for each in classifier.classify(sources, refused.append)}
    found: list[Scores | Refused] = []
    for source, recording, job in zip(sources, recordings, jobs, strict=True):
        said = whole.get(source.name)
        if said is None:
            found.append(Refused("the model's probabilities are not finite for this recording"))
            continue
        views = _views(classifier, recording) if job.views else {}
        found.append(_scores(classifier, job, job.samples, said, views))
    return found


def _of_long(classifier: Classifier, job: Job) -> Scores | Refused:
    """Do a job in parts, as `Classifier` reads long files: memory does not grow with its length."""
    import soundfile

    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        soundfile.write(file, job.samples, job.sample_rate, "FLOAT", format="WAV")
        file.flush()
        try:
            whole = classifier.predict(Path(file.name))
        except UserError:
            return Refused("the model's probabilities are not finite for this recording")
        return _scores(classifier, job, Path(file.name), whole, {})


def _scores(
    classifier: Classifier,
    job: Job,
    sound: Float32 | Path,
    whole: Prediction,
    views: dict[str, bytes],
) -> Scores:
    found: list[Prediction] = []
    if job.window is not None:
        rate = None if isinstance(sound, Path) else job.sample_rate
        found += classifier.stream(sound, sample_rate=rate, window=job.window, hop=job.hop)
    windows = np.array([each.branches for each in found], np.float32)
    return Scores(
        whole.branches,
        whole.silent,
        tuple((each.start, each.end) for each in found),
        windows.reshape(len(found), *whole.branches.shape),
        tuple(each.silent for each in found),
        views,
    )


def _views(classifier: Classifier, recording: Recording) -> dict[str, bytes]:
    """Return a PNG of what each branch sees: its representation, time to the right, low bins below.

    Before normalisation and deltas, in the colours of the report's figure of a clip.
    """
    from matplotlib.image import imsave

    from mrkd_ray.report.figures.clip import colour_span

    frames = classifier.heard(recording).frames
    found = {}
    for branch in classifier.branches:
        name = branch.model.representation
        low, high = colour_span(frames[name], REPRESENTATIONS[name].levels)
        parts = np.array_split(frames[name], min(COLUMNS, len(frames[name])))
        picture = np.stack([part.max(axis=0) for part in parts], axis=1)
        file = io.BytesIO()
        imsave(file, picture, vmin=low, vmax=max(high, low + 1e-6), origin="lower", format="png")
        found[branch.model.branch] = file.getvalue()
    return found
