"""One branch: a network that trains on one representation, alone or under a teacher."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mrkd_ray.common.arrays import Float32
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.timeline import Recorder
from mrkd_ray.config.method import default_lr
from mrkd_ray.features.normalisation import as_they_are, statistics
from mrkd_ray.features.window_extents import window_bytes
from mrkd_ray.features.window_sources import Index
from mrkd_ray.features.windows import Windows, windows_of
from mrkd_ray.inference.calibration import FEWEST, Evidence
from mrkd_ray.inference.clip_logits import BATCH, clip_logits, window_logits
from mrkd_ray.inference.model_folder import BACKBONE, count_learned, read_digests, write_model
from mrkd_ray.inference.noise import noises
from mrkd_ray.inference.starting_point import start, starting_points
from mrkd_ray.method import losses
from mrkd_ray.method.algorithm import learning_rate
from mrkd_ray.method.label_kinds import label_kind
from mrkd_ray.networks.catalogue import build, initial_weights
from mrkd_ray.representations import frozen, mobilenet, panns, pretrained
from mrkd_ray.representations.catalogue import REPRESENTATIONS, compute_clip
from mrkd_ray.representations.timing import PAPER, ticks_of
from mrkd_ray.scores import metrics
from mrkd_ray.training import checkpoints, device_memory
from mrkd_ray.training.branch_task import BranchFailed, BranchTask
from mrkd_ray.training.compute import Compute
from mrkd_ray.training.data_parallel import ALONE, Ranks
from mrkd_ray.training.embeddings import Embeddings, Predictor
from mrkd_ray.training.frozen_teachers import FrozenTeachers
from mrkd_ray.training.minibatches import Minibatches
from mrkd_ray.training.targets import Teacher, TeacherMemory, distributions
from mrkd_ray.training.weight_average import WeightAverage


def free_memory() -> None:
    """Give back what a branch held that is gone, on the GPU too."""
    gc.collect()  # a network and its optimiser's hooks are cycles
    torch.cuda.empty_cache()  # does nothing where CUDA is not in use


def elsewhere(representation: str) -> dict[str, Any]:
    """Say how large the frozen network is that a model's folder does not hold; if any."""
    weights = REPRESENTATIONS[representation].weights
    if not weights or pretrained.FILES[weights].backbone:
        return {}
    is_panns = weights in panns.NETWORKS
    shapes = (panns if is_panns else mobilenet).backbone_shapes(weights)
    values = sum(math.prod(shape) for shape in shapes.values())
    return {"backbone": {"parameters": count_learned(shapes), "bytes": 4 * values}}


class Branch:
    """A network, its optimiser and its windows.

    Args:
        task: what it is started with.
        ranks: the processes that share it; by default this one alone.

    Raises:
        UserError: unknown network or representation, weights that do not fit, missing features.
    """

    def __init__(self, task: BranchTask, ranks: Ranks = ALONE) -> None:
        self.task, self.ranks = task, ranks
        self.cycle = 0
        self.compute = Compute(task.training, torch.device(task.device), task.threads)
        self.label_kind = label_kind(task.multi_label)
        weights = initial_weights(task.spec.network, task.training.weights)
        with self._deterministic("initial weights"):
            network, self.weights_report = build(
                task.spec.network, len(task.classes), weights, bins=task.store.bins
            )
        points = starting_points(task.training.init, [task.spec], multi_label=task.multi_label)
        self._start = points.get(task.spec)
        self._taken = start(network, self._start, task.classes) if self._start else None
        ranks.share_batch_statistics(network, task.name)
        self.network = self.compute.place(network)
        decay = task.training.ema
        self.average = WeightAverage(self.network, decay) if decay else None
        self.embeddings = self.predictor = None
        learnt = [*self.network.parameters()]
        if task.embeddings:
            self.embeddings = Embeddings(task, self.compute.device)
            with self._deterministic("embeddings"):
                self.predictor = Predictor(network, self.embeddings.width)
            self.predictor.to(self.compute.device)
            learnt += self.predictor.parameters()
        self._learner = ranks.learner(self.network)
        self._predict = self.predictor and ranks.learner(self.predictor)
        self.initial_lr = task.training.lr or default_lr(weights)
        self.optimiser = torch.optim.SGD(
            learnt,
            lr=self.initial_lr,
            momentum=task.training.momentum,
            weight_decay=task.training.weight_decay,
            fused=True,
        )
        self.windows = self._windows()
        parts = (task.taught, task.held_out.clip_ids, task.test.clip_ids)
        ends = np.cumsum([len(part) for part in parts])
        self._clips: dict[str, Index] = {
            name: np.arange(end - len(part), end, dtype=np.int64)
            for name, part, end in zip(("taught", "held_out", "test"), parts, ends, strict=True)
        }
        taught = self._clips["taught"]
        self.minibatches = Minibatches(task, self.windows, taught, self.embeddings, ranks)
        self.teachers = FrozenTeachers(task, self.compute, ranks) if task.teachers else None
        self.memory = TeacherMemory(task.training)
        self._figures: dict[str, Any] = {}
        self.recorder = Recorder()

    # Algorithm 1 -----------------------------------------------------------------------------

    def train(self, epochs: int) -> None:
        """Single branch training, Eq. 1, for `epochs` epochs of this cycle."""
        with self._phase("train"):
            for epoch in range(epochs):
                self._figures["loss_ce"], _ = self._epoch(epoch, window=epoch)

    def soft_labels(self, temperature: float) -> Float32:
        """Eq. 2 for all training clips and unlabelled ones, by its frozen teachers if it has some.

        Returns:
            [N, M] float32, rows in the order of the task's `taught` clips. The virtual sample of
            a row mixes its clip with another.
        """
        with self._phase("soft_labels"):
            clips, epoch = self._clips["taught"], self.task.training.b
            self._answering.eval()
            if self.teachers is not None:
                logits = self.teachers.logits(self.cycle, epoch)
            elif self.task.training.soft_labels == "clip":
                logits = self._clip_logits("taught")
            elif self.task.training.soft_labels == "window":
                starts = self.minibatches.starts(self.cycle, epoch, clips)
                own = self.ranks.share(len(clips))
                found = window_logits(self._logits, self.windows, clips[own], starts[own])
                logits = self.ranks.joined(found, len(clips))
            else:
                logits = self._virtual_logits(epoch)
            softened = losses.soften(logits, temperature, self.label_kind)
            soft_labels: Float32 = softened.cpu().numpy()
            self._check_finite(soft_labels)  # or every branch would be taught by it
            return soft_labels

    def distil(self, teacher: Float32, temperature: float, epochs: int) -> None:
        """Distillation training, Eqs. 4 and 5.

        Args:
            teacher: [N, M] float32 probabilities, rows as in `soft_labels`.
            temperature: T of Eq. 2, the one the teacher was made with.
            epochs: d; where soft labels are those of a window, all d epochs use that window.
        """
        training, first = self.task.training, self.task.training.b
        with self._phase("distil"):
            rows = torch.from_numpy(teacher).to(self.compute.device)
            entropy = losses.entropy(self.label_kind.distributions(rows))
            self._figures["teacher_entropy"] = entropy.item()
            taught = self.memory.take(rows, temperature)
            for epoch in range(first, first + epochs):
                window = epoch if training.soft_labels == "clip" else first
                ce, kl = self._epoch(epoch, window, taught)
                self._figures |= {"loss_distil_ce": ce, "loss_distil_kl": kl}

    def end_cycle(self, folder: Path) -> dict[str, Any]:
        """Evaluate, write this branch's checkpoint into `folder` and go on to the next cycle.

        Returns:
            Figures of the cycle: losses, accuracy and map3 (or `metrics.of`) in [0, 1], the index
            of the most probable class of each test clip, seconds of each phase; and the learning
            rate, where windows are kept, and the most memory that was in use.
        """
        if self.task.training.early_stop is not None:
            with self._phase("held_out_accuracy"):
                self._figures["held_out_loss"] = self.held_out_loss()
        with self._phase("evaluate"):
            probabilities = self.probabilities("test")
            self._check_finite(probabilities)
            self._figures |= metrics.measure(probabilities, self.task.test.labels)
            self._figures["predicted"] = probabilities.argmax(axis=1).tolist()
        figures = {
            "cycle": self.cycle,
            "branch": self.task.name,
            "windows": f"{self.windows.kept}, {self.windows.bytes / 2**20:.1f} MiB",
            "peak_bytes": device_memory.peak(self.compute.device),
            "lr": self._lr(),
            **self._figures,
        }
        self._figures = {}
        self.cycle += 1
        with self._phase("checkpoint"):
            if self.ranks.first:
                checkpoints.save_branch(
                    folder,
                    self.task.name,
                    self._modules,
                    self.optimiser,
                    self.cycle,
                    self.compute.precision,
                    self.memory.belief,
                )
        return figures | self._figures

    # Around it -------------------------------------------------------------------------------

    def probabilities(self, part: str) -> Float32:
        """Return clip-level probabilities [n, M] float32 of "held_out" or "test"."""
        with self.compute.threads():
            self._answering.eval()
            logits = self._clip_logits(part)
            return self.label_kind.probabilities(logits).cpu().numpy()

    def held_out_accuracy(self) -> float:
        """Return the accuracy on the held-out clips, in [0, 1]; multi-label: mAP."""
        labels = self.task.held_out.labels
        return metrics.measure(self.probabilities("held_out"), labels)[metrics.of(labels)[0].name]

    def held_out_loss(self) -> float:
        """Return L_ce on the held-out clips, by their mean logits, in nats a clip."""
        with self.compute.threads():
            self._answering.eval()
            logits = self._clip_logits("held_out")
            targets = distributions(self.task.held_out, len(self.task.classes)).to(logits)
            return losses.cross_entropy(self.label_kind.logits(logits), targets).item()

    def restore(self, folder: Path) -> None:
        """Take the weights of this branch's checkpoint in `folder`, of whatever cycle."""
        checkpoints.load_weights(folder, self.task.name, self._modules, self.compute.device)

    def resume(self, folder: Path) -> int:
        """Load this branch's checkpoint from `folder`; return the next cycle.

        Raises:
            UserError: see `checkpoints.load_branch`.
        """
        self.cycle, self.memory.belief = checkpoints.load_branch(
            folder,
            self.task.name,
            self._modules,
            self.optimiser,
            self.compute.precision,
            self.compute.device,
        )
        return self.cycle

    def export(self, folder: Path) -> None:
        """Write what is needed to classify with this branch alone."""
        task, evidence = self.task, self._evidence()
        if not self.ranks.first:
            return
        write_model(
            folder,
            branch=task.name,
            representation=task.spec.representation,
            representation_version=task.store.version,
            network_name=task.spec.network,
            network=self._answering,
            statistics=self.windows.statistics,
            classes=task.classes,
            multi_label=task.multi_label,
            window_ticks=task.window_ticks,
            trained_on=self._heard(),
            made_with={
                "weights": self.weights_report.summary(),
                "fold": task.fold,
                "seed": task.seed,
                "training": task.training.model_dump(mode="json"),
                "precision": self.compute.precision,
                **elsewhere(task.spec.representation),
                "windows": {"kept": self.windows.kept, "bytes": self.windows.bytes},
                **({"init": str(self._start.folder)} if self._start else {}),
                **task.provenance,
            },
            backbone=self._backbone(),
            evidence=evidence,
        )

    def _evidence(self) -> Evidence | None:
        """Return what is said of the held-out clips, or of test clips where these are too few."""
        parts = {"held_out": self.task.held_out, "test": self.task.test}
        for name, part in parts.items():
            if len(part.clip_ids) >= FEWEST:
                scores = self.probabilities(name)
                noise = self._noise_probabilities()
                return Evidence.of(part.clip_ids, scores, part.labels, noise, name)
        return None

    def _noise_probabilities(self) -> Float32:
        """Return what is said of noise, [k, M]; [0, M] where a frozen network's file is elsewhere.

        A branch on another node gets its features from the driver's, and no such file.
        """
        task = self.task
        entry = REPRESENTATIONS[task.spec.representation]
        try:
            entry.check()
        except UserError:
            return np.zeros((0, len(task.classes)), np.float32)
        made = noises(task.window_ticks * PAPER.frame_seconds).values()
        names = {task.spec.representation}
        frames = [compute_clip(names, each)[task.spec.representation] for each in made]
        ticks = [ticks_of(len(each), each.sample_rate) for each in made]
        windows = windows_of(
            frames,
            ticks,
            self.windows.statistics,
            self.compute.device,
            entry.timing,
            task.window_ticks,
        )
        with self.compute.threads():
            self._answering.eval()
            logits = clip_logits(self._logits, windows, np.arange(len(frames)))
            return self.label_kind.probabilities(logits).cpu().numpy()

    def _heard(self) -> list[str]:
        """Return the digests of clips that it, its teachers or its starting point learnt from."""
        own = [self.task.store.digests[clip_id] for clip_id in self.task.taught]
        theirs = frozenset().union(*(teacher.trained_on for teacher, _ in self.task.teachers))
        if self._start:
            theirs |= frozenset(read_digests(self._start.folder))
        return [*own, *sorted(theirs - set(own))]

    def _backbone(self) -> Path | None:
        """Return the file of the frozen network behind the features, beside these; if any."""
        representation = REPRESENTATIONS[self.task.spec.representation]
        weights = representation.weights
        if representation.frozen:
            return frozen.find(representation.frozen).file
        if not weights or not pretrained.FILES[weights].backbone:
            return None
        file = self.task.store.folder / BACKBONE
        if not file.exists():
            mobilenet.write_backbone(weights, file)
        return file

    def _windows(self) -> Windows:
        """Return the windows of all clips of the task, kept on the device where memory allows."""
        task = self.task
        representation = REPRESENTATIONS[task.spec.representation]
        timing = representation.timing
        train = task.store.bank(task.train.clip_ids)
        bank = task.store.bank(task.clip_ids)
        needed = window_bytes(bank.lengths, task.store.bins, timing.window(task.window_ticks))
        if self._taken is not None:
            normal = self._taken
        elif representation.normalised:
            normal = as_they_are(task.store.bins)
        else:
            normal = statistics(train, one_scale=representation.linear)
        resident = device_memory.resident(task, needed)
        return Windows(
            bank,
            normal,
            self.compute.device,
            timing,
            ticks=task.window_ticks,
            resident=resident,
        )

    def _epoch(
        self, epoch: int, window: int, teacher: Teacher | None = None
    ) -> tuple[float, float]:
        """One epoch; returns the mean L_ce and L_kl over batches.

        Raises:
            BranchFailed: the device has too little memory; says which batches it has room for.
        """
        try:
            return self._steps(epoch, window, teacher)
        except torch.OutOfMemoryError:
            pass  # its traceback holds the tensors: they are free from here on
        raise BranchFailed(self.task.name, self._out_of_memory())

    def _out_of_memory(self) -> str:
        task, size = self.task, self.task.training.batch_size
        if self.ranks.size > 1:  # the others wait for this process's gradients: nothing is tried
            return (
                f"branch {task.name}: {self.compute.device} has too little memory for its share of "
                f"{size} windows: take fewer (--batch-size). {self._off_the_device}"
            )
        sizes = (size >> i for i in range(1, size.bit_length() - 1))  # down to 2
        fitting = next((smaller for smaller in sizes if self._fits(smaller)), None)
        mend = f"--batch-size {fitting} fits" if fitting else "not even two windows fit"
        return (
            f"branch {task.name}: {self.compute.device} has too little memory for batches of {size}"
            f" windows: {mend}. {self._off_the_device}"
        )

    @property
    def _off_the_device(self) -> str:
        return (
            f"Or keep the windows off it (--window-memory streamed, now {self.windows.kept}), or "
            "put fewer branches on a card (--gpus-per-branch)."
        )

    def _fits(self, size: int) -> bool:
        """Return whether a step with so many windows fits into the device's memory: try one."""
        self.optimiser.zero_grad(set_to_none=True)
        free_memory()
        frames = self.windows.timing.window(self.task.window_ticks)
        shape = (size, 3, self.task.store.bins, frames)
        try:
            inputs = torch.zeros(shape, device=self.compute.device)
            self.compute.logits(self.network, inputs).sum().backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()  # the first makes room for momentum; nobody uses these weights
        except torch.OutOfMemoryError:
            return False
        return True

    def _steps(self, epoch: int, window: int, teacher: Teacher | None) -> tuple[float, float]:
        training = self.task.training
        for group in self.optimiser.param_groups:
            group["lr"] = self._lr()
        sums = torch.zeros(3, device=self.compute.device)
        steps = 0
        self.network.train()
        own = [f"rank {self.ranks.rank}"] * (not self.ranks.first)
        with self._deterministic("dropout", epoch, *own):
            for batch in self.minibatches.epoch(self.cycle, epoch, window, teacher):
                found = self.compute.logits(self._learner, batch.inputs)
                logits = self.label_kind.logits(found)
                if batch.teacher is None or teacher is None:
                    loss = losses.hard_label_loss(logits, batch.targets, training.gce)
                    sums[0] += batch.share * loss.detach()
                else:
                    loss, ce, kl = losses.distillation_loss(
                        logits,
                        batch.targets,
                        self.label_kind.distributions(batch.teacher),
                        temperature=teacher.temperature,
                        kind=training.divergence,
                        t_squared=training.t_squared,
                        kl_weight=training.kl_weight,
                        ce_weight=training.ce_weight,
                        weights=batch.weights,
                        q=training.gce,
                    )
                    sums[:2] += batch.share * torch.stack((ce.detach(), kl.detach()))
                if self._predict is not None and batch.embeddings is not None:
                    distance = losses.embedding_distance(self._predict(), batch.embeddings)
                    loss = loss + training.embedding_weight * distance
                    sums[2] += batch.share * distance.detach()
                self.optimiser.zero_grad(set_to_none=True)
                # What is averaged over processes counts by how many windows each has.
                loss = loss * (batch.share * self.ranks.size)
                loss.backward()  # type: ignore[no-untyped-call]
                self.optimiser.step()
                if self.average is not None:
                    self.average.update_parameters(self.network)
                steps += 1
        ce_mean, kl_mean, distance_mean = (self.ranks.total(sums) / steps).tolist()
        if self.predictor is not None:
            self._figures["loss_embedding"] = distance_mean
        return ce_mean, kl_mean

    def _virtual_logits(self, epoch: int) -> Tensor:
        """Logits [N, M] of the mixed windows of a distillation epoch to come, in evaluation mode.

        The row of each is its first clip's.
        """
        with torch.inference_mode():
            batches = self.minibatches.epoch(self.cycle, epoch, epoch, virtual=True)
            found = [(batch.rows, self._logits(batch.inputs)) for batch in batches]
            rows, logits = (torch.cat(parts) for parts in zip(*found, strict=True))
        every = logits.new_zeros(len(self.task.taught), logits.shape[1])
        return self.ranks.total(every.index_copy_(0, rows, logits))

    def _clip_logits(self, part: str) -> Tensor:
        """Logits [n, M] of "taught", "held_out" or "test" clips; each process asks for some."""
        clips = self._clips[part]
        own = clips[self.ranks.share(len(clips))]
        if not (len(own) or self.ranks.first):  # fewer clips than processes
            found = torch.zeros(0, len(self.task.classes), device=self.compute.device)
        else:
            found = clip_logits(self._logits, self.windows, own)
        return self.ranks.joined(found, len(clips))

    @property
    def _answering(self) -> nn.Module:
        """What is evaluated, teaches and is exported: the average, where there is one."""
        return self.network if self.average is None else self.average.module

    @property
    def _modules(self) -> dict[str, nn.Module]:
        """What a checkpoint holds, by name."""
        found = {"network": self.network, "predictor": self.predictor, "average": self.average}
        return {name: module for name, module in found.items() if module is not None}

    def _logits(self, windows: Tensor) -> Tensor:
        return self.compute.logits(self._answering, windows)

    def _check_finite(self, outputs: Float32) -> None:
        """Raise BranchFailed where the branch has diverged."""
        if not np.isfinite(outputs).all():
            raise BranchFailed(
                self.task.name,
                f"branch {self.task.name} diverged in cycle {self.cycle}: its outputs are not "
                f"finite. Lower the learning rate (--lr, now {self.initial_lr:g}).",
            )

    def _lr(self) -> float:
        return learning_rate(self.initial_lr, self.cycle, self.task.training.cycles)

    @contextmanager
    def _deterministic(self, *purpose: str | int) -> Iterator[None]:
        """Seed torch's global generators (initial weights, dropout) inside, restore them after."""
        seed = int(self.task.rng(self.cycle, *purpose, self.task.name).integers(2**63))
        devices = [self.compute.device] if self.compute.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            yield

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        with self.recorder.span(name), self.compute.threads():
            try:
                yield
                if self.compute.device.type == "cuda":
                    torch.cuda.synchronize(self.compute.device)
            except torch.OutOfMemoryError as error:  # of other phases than `_epoch`
                raise BranchFailed(
                    self.task.name,
                    f"branch {self.task.name}: {self.compute.device} has too little memory "
                    f"({name.replace('_', ' ')}, {BATCH} windows at once). Take a smaller "
                    f"network. {self._off_the_device}",
                ) from error
        self._figures[f"seconds_{name}"] = self.recorder.spans[-1].seconds
