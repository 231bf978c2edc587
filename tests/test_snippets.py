"""Commands and snippets in README, the tutorial and the how-tos run as they are printed.

A page's blocks run in order, in one folder with recordings: ```sh in Bash, ```python in Python. A
block with `title="FILE"` is written to that file first, and a Python one only written. What cannot
run here stands below `<!-- not run: why -->`; of it, every `mrkd` command must have known options.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import typer

from mrkd_ray.cli.main import app
from tests.conftest import ROOT, TOO_SLOW, end_processes_of

PAGES = [
    ROOT / "README.md",
    ROOT / "docs" / "tutorial.md",
    *sorted((ROOT / "docs" / "how-to").glob("*.md")),
]
BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<why>.+?) -->\n+)?"
    r"```(?P<language>\w+)(?: title=\"(?P<title>[\w./-]+)\")?\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
LANGUAGES = {"sh", "python", "yaml", "csv", "text", "diff"}
RATE = 22_050
Reader = tuple[Path, dict[str, str]]


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    language: str
    text: str
    title: str | None
    not_run: str | None

    @property
    def runs(self) -> bool:
        return self.not_run is None and self.language in ("sh", "python") and not self.title

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command, without comments; a `\\` at a line's end joins it."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks(page: Path) -> list[Block]:
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(m["language"], m["text"], m["title"], m["why"]) for m in found]


def names(page: Path) -> str:
    return page.relative_to(ROOT).as_posix().removesuffix(".md")


RUNNING = [page for page in PAGES if any(block.runs for block in blocks(page))]
RUNNER = """case $1 in train|grid|plan|recommend|prepare|distil|experiments/run_grid.py)
  set -- "$@" $RUNNER;;
esac
"""
ON_RAY = [ROOT / "README.md", ROOT / "docs" / "tutorial.md"]
"""Pages whose commands start Ray. On the others `RUNNER` adds `--runner local` to what is printed:
each process of a cohort imports torch, which takes longer here than all that they train."""


def sound(rng: np.random.Generator, kind: int) -> Any:
    """A second of one of three kinds, as easy to tell apart as can be."""
    t = np.arange(RATE) / RATE
    pitch = (300, 1200)[kind % 2] * rng.uniform(0.9, 1.1)
    clear = np.sin(2 * np.pi * pitch * t) if kind < 2 else rng.normal(size=RATE) / 2
    return np.clip(0.5 * clear + 0.02 * rng.normal(size=RATE), -1, 1)


def write(folder: Path, name: str, rng: np.random.Generator, kind: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / name, sound(rng, kind), RATE)


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has: clips in folders, files named by label, recordings, also marked ones."""
    root = tmp_path_factory.mktemp("reader")
    rng = np.random.default_rng(3)
    for kind, label in enumerate(("dog", "bell", "rain")):
        for i in range(10):
            write(root / "my_clips" / label, f"{i}.wav", rng, kind)
        for i in range(4):
            write(root / "other_clips" / label, f"{i}.wav", rng, kind)
            write(root / "named_clips", f"{label}_{i}.wav", rng, kind)
        write(root / "recordings", f"{kind}.wav", rng, kind)
    write(root, "recording.wav", rng, 0)
    for folder, count in (("field", 4), ("new", 2)):
        for i in range(count):
            write_field(root / folder / f"night{i}.wav", rng, marked=folder == "field")
    return root


def write_field(file: Path, rng: np.random.Generator, *, marked: bool) -> None:
    """Ten sounds of two kinds in noise, a second each, one every three seconds; and their table."""
    file.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.02 * rng.normal(size=30 * RATE)
    rows = ["Selection\tView\tBegin Time (s)\tEnd Time (s)\tSpecies"]
    for i in range(10):
        samples[(3 * i + 1) * RATE : (3 * i + 2) * RATE] += sound(rng, i % 2)
        rows.append(
            f"{i + 1}\tSpectrogram 1\t{3 * i + 1}.0\t{3 * i + 2}.0\t{('dog', 'bell')[i % 2]}"
        )
    soundfile.write(file, np.clip(samples, -1, 1), RATE)
    if marked:
        file.with_suffix(".Table.1.selections.txt").write_text("\n".join(rows) + "\n")


@pytest.fixture(scope="session")
def zygote() -> Iterator[str]:
    """The socket of a process that has imported torch, and is copied for each command."""
    with tempfile.TemporaryDirectory(prefix="mrkd") as folder:
        address = f"{folder}/zygote"
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.zygote", address],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield address
        process.communicate()  # its standard input ends, and so does it


@pytest.fixture
def reader(tmp_path: Path, recordings: Path, zygote: str) -> tuple[Path, dict[str, str]]:
    """A folder as a reader has it beside the project's experiments, with `mrkd` to be called."""
    folder = tmp_path / "project"
    shutil.copytree(recordings, folder)
    (folder / "experiments").symlink_to(ROOT / "experiments")
    (folder / "cluster.yaml").symlink_to(ROOT / "cluster.yaml")
    activate = folder / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.touch()
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, run in (("mrkd", "-m mrkd_ray"), ("python", ""), ("python3", "")):
        program = programs / name
        start = f"{shlex.quote(sys.executable)} -S {ROOT}/tests/zygote.py {zygote}"
        program.write_text(f'#!/bin/sh\n{RUNNER}exec {start} {run} "$@"\n')
        program.chmod(0o755)
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return folder, {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": path,
        "COLUMNS": "100",
    }


CLUSTER = """
import sys, ray
found = ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False,
                 logging_level="error", _temp_dir=sys.argv[1])
print(found.address_info["gcs_address"], flush=True)
sys.stdin.read()
ray.shutdown()
"""


@pytest.fixture(scope="module")
def cluster_beside() -> Iterator[str]:
    """A cluster as `ray_cluster`, in a process of its own: this one stays without Ray."""
    from mrkd_ray.distributed.cluster import SLOW_START

    folder = tempfile.mkdtemp(prefix="mrkd")
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("RAY_AUTH_MODE", "token")  # ray.init sets it in its own process
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    address = process.stdout.readline().strip()
    if address:
        yield address
    monkeypatch.undo()
    _, said = process.communicate()  # its standard input ends, and so does it
    shutil.rmtree(folder, ignore_errors=True)
    if not address:
        end_processes_of(folder)
        assert SLOW_START in said, said
        pytest.skip(TOO_SLOW)


def follow(page: Path, folder: Path, environment: dict[str, str]) -> str:
    """Do what a page says, in order; return what was printed."""
    printed = []
    for block in blocks(page):
        if block.title:
            (folder / block.title).write_text(block.text)
        if not block.runs:
            continue
        how = ["bash", "-euo", "pipefail", "-c"] if block.language == "sh" else ["python", "-c"]
        done = subprocess.run(
            [*how, block.text],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, f"{names(page)}:\n{block.text}\n{done.stdout[-4000:]}"
        printed.append(done.stdout)
    return "\n".join(printed)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("page", ON_RAY, ids=names)
def test_a_page_does_what_it_says(page: Path, reader: Reader, cluster_beside: str) -> None:
    folder, environment = reader
    follow(page, folder, environment | {"RAY_ADDRESS": cluster_beside})


def undocumented(results: Path, page: str) -> set[str]:
    """Files of a results folder, and columns of its tables, that a page does not name."""
    found = set()
    for file in results.rglob("*"):
        inside = file.relative_to(results)
        if file.is_dir() or any(part.startswith(".") for part in inside.parts):
            continue
        found.add(file.name)
        if file.suffix == ".csv" and file.name != "predictions.csv":
            header = file.read_text(encoding="utf-8").partition("\n")[0].split(",")
            found |= {
                re.sub(r"^(balanced_accuracy|accuracy|map3|macro_f1)", "SCORE", column)
                for column in header
            }
    return {name for name in found if not re.search(rf"[`/]{re.escape(name)}`", page)}


@pytest.mark.slow
@pytest.mark.cluster
def test_the_page_of_the_results_folder_names_all_of_it(
    reader: Reader, cluster_beside: str
) -> None:
    folder, environment = reader
    train = "mrkd train --data my_clips --branch logmel64:vgg_small --branch cqt:vgg_small"
    more = f"--independent --folds 1 --cycles 3 --profile --address {cluster_beside}"
    run = [*f"{train} {more}".split()]
    subprocess.run(run, cwd=folder, env=environment, check=True, capture_output=True)
    subprocess.run(["mrkd", "report", "results/train"], cwd=folder, env=environment, check=True)
    page = (ROOT / "docs/reference/results-folder.md").read_text(encoding="utf-8")
    assert undocumented(folder / "results" / "train", page) == set()
    shorter = page.replace("`predicted.npy`", "").replace("`paired_runs`", "")
    assert undocumented(folder / "results" / "train", shorter) == {"predicted.npy", "paired_runs"}


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in RUNNING if page not in ON_RAY], ids=names)
def test_a_page_without_ray_does_what_it_says(page: Path, reader: Reader) -> None:
    folder, environment = reader
    follow(page, folder, environment | {"RUNNER": "--runner local"})


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_blocks_say_what_they_are_in(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert (
        text.count("```")
        == 2 * len(blocks(page)) + len(re.findall(r"^```$\n.*?^```$", text, re.S | re.M)) * 0
    )
    assert {block.language for block in blocks(page)} <= LANGUAGES


def commands() -> Iterator[Any]:
    """Every command of `mrkd` on the pages that is not run."""
    for page in PAGES:
        for block in blocks(page):
            for words in block.commands if block.language == "sh" and block.not_run else []:
                if words[0] == "mrkd" or words[:2] == ["python", "experiments/run_grid.py"]:
                    yield pytest.param(words, id=f"{names(page)}: {' '.join(words)[:60]}")


@pytest.mark.parametrize("words", list(commands()))
def test_commands_that_are_not_run_have_known_options(words: list[str]) -> None:
    if words[0] == "python":
        words = [
            "mrkd",
            "grid",
            *([] if words[2:3] and words[2][0] != "-" else ["demo"]),
            *words[2:],
        ]
    group: Any = typer.main.get_command(app)
    context = typer.Context(group, info_name="mrkd")
    _, command, rest = group.resolve_command(context, words[1:])
    command.make_context(words[1], rest, parent=context)  # raises where an option is not known


def test_an_unknown_option_is_seen() -> None:
    with pytest.raises(Exception, match="--no-such"):
        test_commands_that_are_not_run_have_known_options(
            ["mrkd", "predict", "a", "b", "--no-such"]
        )


def test_a_block_that_fails_is_seen(
    tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = ROOT / "docs" / "how-to" / "broken.md"
    text = '# A\n\n```python title="a.py"\nprint(1 / 0)\n```\n\n```sh\npython a.py | cat\n```\n'
    monkeypatch.setattr(Path, "read_text", lambda self, **_: text)
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        follow(page, *reader)
