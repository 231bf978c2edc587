"""The command as its users meet it: one clear error and exit code 2, no traceback."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml
from pydantic import BaseModel

from mrkd_ray.cells import files as cell_files
from mrkd_ray.cells.intact import result_of
from mrkd_ray.cells.prepared import Prepared
from mrkd_ray.cells.run import run_cell
from mrkd_ray.cells.tasks import branch_tasks
from mrkd_ray.cli.main import _grouped, _program, main
from mrkd_ray.cli.options import FILE_ONLY, GROUPS
from mrkd_ray.config.method import PAPER
from mrkd_ray.config.parsing import parse
from mrkd_ray.config.run import CheckedData
from mrkd_ray.config.schema import DistilConfig, GridConfig, TrainConfig
from mrkd_ray.config.search import SearchConfig
from mrkd_ray.inference.classifier import Classifier
from mrkd_ray.scores.tempering import temper
from mrkd_ray.training.local_cohort import LocalCohort
from tests.conftest import FAST, ROOT, make_cell

MRKD = Path(sys.executable).with_name("mrkd")
RUN_GRID = ROOT / "experiments" / "run_grid.py"
BRANCH = ("--branch", "logmel64:vgg_small")


def mrkd(
    *arguments: object, cwd: Path | None = None, columns: int = 200
) -> subprocess.CompletedProcess[str]:
    """What the command does, in this process: importing torch anew takes seconds each time."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setenv("COLUMNS", str(columns))
        if cwd:
            patch.chdir(cwd)
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = int(ended.code or 0)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """One clear error on standard error, exit code 2."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_a_wrong_option(tmp_path: Path) -> None:
    refused(mrkd("train", "--temperatur", "2", cwd=tmp_path), "--temperatur")


def test_wrong_values_are_all_named_at_once(tmp_path: Path) -> None:
    done = mrkd(
        "train", *BRANCH, "--cycles", "0", "--lr", "fast", "--divergence", "up", cwd=tmp_path
    )
    refused(done, "cycles", "lr", "fast", "divergence", "reverse")


@pytest.mark.parametrize("word", [(), ("--debug",)])
def test_a_full_disk_is_one_line_and_with_debug_its_traceback(
    tmp_path: Path, word: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/r/report.html")

    monkeypatch.setattr("mrkd_ray.report.page.write", write)
    done = mrkd("report", *word, tmp_path)
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert lines[-1].startswith("error: /r/report.html: no space left on device. Free")
    assert ("Traceback" in done.stderr) == bool(word)
    assert word or len(lines) == 1


def test_a_bug_shows_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mrkd_ray.report.page.write", lambda folder: {}[folder])
    done = mrkd("report", tmp_path)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "please report it" in done.stderr.splitlines()[-1]


def test_no_branch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MRKD_WEIGHTS", str(tmp_path))
    done = mrkd("train", "--data", "synthetic", "--print-config", cwd=tmp_path)
    assert "- logmel64:resnet_small\n- cqt:vgg_small\n" in done.stdout
    assert "No --branch" in done.stderr
    assert "mrkd download mn04" in done.stderr


def test_a_wrong_path(tmp_path: Path) -> None:
    done = mrkd("train", *BRANCH, "--data", "nowhere", "--runner", "local", cwd=tmp_path)
    refused(done, "nowhere", "no such file or folder", "mrkd download")


def test_a_plan_is_refused_as_its_run_is(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text("cohorts: ['logmel64:vgg_small+cqt:vgg_small']\n")
    refused(mrkd("plan", file, "--temperatures", "0", cwd=tmp_path), "small.yaml", "temperatures")
    options = ("--data", "nowhere", "--runner", "local", "--scale", "cpu")
    refused(mrkd("plan", file, *options, cwd=tmp_path), "nowhere", "no such file or folder")
    assert list(tmp_path.iterdir()) == [file]


def test_a_wrong_representation_name(clips: Path, tmp_path: Path) -> None:
    done = mrkd("train", "--branch", "logmell64:vgg_small", "--data", clips, cwd=tmp_path)
    refused(done, "logmell64", "Did you mean 'logmel64'?", "cqt")
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_network_name(clips: Path, tmp_path: Path) -> None:
    done = mrkd(
        *("train", "--branch", "cqt:vgg_smal", "--data", clips, "--runner", "local"), cwd=tmp_path
    )
    refused(done, "vgg_smal", "vgg_small")


def test_weights_that_are_not_there(clips: Path, tmp_path: Path) -> None:
    done = mrkd(
        *("train", *BRANCH, "--data", clips, "--runner", "local", "--weights", "lost.pth"),
        cwd=tmp_path,
    )
    refused(done, "lost.pth")


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = mrkd("train", *BRANCH, "--data", "empty", "--runner", "local", cwd=tmp_path)
    refused(done, "empty")


def test_a_text_file_named_wav_and_skip_bad(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for i in range(6):
            noise = rng.normal(size=8000) / 9
            soundfile.write(tmp_path / "data" / label / f"{i}.wav", noise, 8000)
    (tmp_path / "data" / "a" / "notes.wav").write_text("no sound at all")
    command = (
        "train",
        *BRANCH,
        "--data",
        "data",
        "--runner",
        "local",
        "--cycles",
        "1",
        "--folds",
        "1",
    )
    refused(mrkd(*command, cwd=tmp_path), "a/notes.wav", "--skip-bad")
    assert not (tmp_path / "results").exists()
    done = mrkd(*command, "--skip-bad", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (skipped,) = json.loads((tmp_path / "results" / "train" / "skipped.json").read_text())
    assert skipped["clip_id"] == "a/notes.wav"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("answer", "given", "terminal", "taken"),
    [
        ("y", None, True, "^([^_]+)_"),
        ("n", None, True, "none"),
        ("y", "^.", True, "^."),  # not asked
        ("y", None, False, None),
    ],
)
def test_on_a_terminal_it_asks_whether_names_tell_groups(
    answer: str,
    given: str | None,
    terminal: bool,
    taken: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("yes/anna_1", "yes/anna_2", "yes/bob_1", "no/anna_1", "no/bob_1", "no/bob_2"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.wav").touch()
    stream = Terminal if terminal else io.StringIO
    monkeypatch.setattr(sys, "stdin", stream(f"{answer}\n"))
    monkeypatch.setattr(sys, "stderr", shown := stream())
    config = _grouped(parse(CheckedData, {"data": str(tmp_path), "group_by": given}, "test"))
    assert config.group_by == taken
    asked = terminal and given is None
    told = " ".join(shown.getvalue().split())
    assert ("'anna', 'bob'" in told) is asked
    assert ("2 groups" in told) is asked
    assert ("--group-by '^([^_]+)_'" in told) is asked


def test_mrkd_is_called_by_its_path_where_the_shell_does_not_find_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(MRKD.parents[1])
    monkeypatch.setenv("PATH", str(MRKD.parent))
    assert _program() == "mrkd"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _program() == str(MRKD.relative_to(MRKD.parents[1]))


def test_it_does_not_ask_where_the_data_say_who_is_tested(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(clips, tmp_path / "clips")
    meta = tmp_path / "clips" / "meta.csv"
    rows = [f"anna_{row}" if i % 2 else f"bob_{row}" for i, row in enumerate(lines(meta)[1:])]
    for row in rows:
        (tmp_path / "clips" / row.partition(",")[0]).touch()
    meta.write_text("\n".join([lines(meta)[0], *rows]))
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    monkeypatch.setattr(sys, "stderr", Terminal())
    asked = parse(CheckedData, {"data": str(tmp_path / "clips")}, "test")
    assert _grouped(asked) is asked
    meta.write_text(
        "\n".join(line.replace(",1,", ",,").replace(",2,", ",,") for line in lines(meta))
    )
    assert _grouped(asked).group_by == "^([^_]+)_"


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines()


def test_weighted_average_without_held_out_clips(clips: Path, tmp_path: Path) -> None:
    done = mrkd("train", *BRANCH, "--data", clips, "--average", "weighted", cwd=tmp_path)
    refused(done, "--held-out")


def test_a_grid_file_that_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text("cohort: [a:b]\n")
    refused(mrkd("grid", "g.yaml", cwd=tmp_path), "g.yaml", "'cohorts'", "cohorts: missing")
    refused(mrkd("grid", "lost.yaml", cwd=tmp_path), "lost.yaml")


@pytest.mark.parametrize(
    ("command", "model"),
    [
        ("train", TrainConfig),
        ("grid", GridConfig),
        ("distil", DistilConfig),
        ("search", SearchConfig),
    ],
)
def test_every_field_has_its_option(command: str, model: type[BaseModel]) -> None:
    text = mrkd(command, "--help-all").stdout
    singular = {"branches": "branch", "cohorts": "cohort"}
    for name in model.model_fields.keys() - FILE_ONLY:
        assert f"--{singular.get(name, name).replace('_', '-')} " in text


CONFIGURED = ("train", "grid", "distil", "plan", "prepare", "recommend", "evaluate")


def shown(command: str, flag: str) -> list[str]:
    """The lines of a help text without its frames, as an 80-column terminal has them."""
    text = mrkd(command, flag, columns=80).stdout
    assert max(map(len, text.splitlines())) <= 80
    return [line.strip(" │") for line in text.splitlines()]


@pytest.mark.parametrize("command", CONFIGURED)
def test_the_short_help_has_a_dozen_options_an_example_and_the_way_to_the_rest(
    command: str,
) -> None:
    lines = shown(command, "--help")
    options = {line.split()[0] for line in lines if line.startswith("--")}
    assert {"--data", "--help", "--help-all"} <= options
    assert len(options) <= 15
    assert not options & {"--momentum", "--runner", "--gpus-per-branch"}
    assert any(line.startswith(f"mrkd {command} ") for line in lines)
    assert [line for line in lines if line][-1] == f"All options: mrkd {command} --help-all"
    assert options < {line.split()[0] for line in shown(command, "--help-all") if line[:2] == "--"}


def test_all_options_stand_in_groups() -> None:
    panels: dict[str, list[str]] = {}
    for line in mrkd("train", "--help-all").stdout.splitlines():
        if line.startswith("╭─ "):
            own = panels.setdefault(line.split("─ ")[1].split(" ─")[0], [])
        elif line.startswith("│ --"):
            own.append(line.split()[1])
    assert panels.keys() == {"Options", *GROUPS.values()}
    assert "--data" in panels["Options"]
    assert "--runner" in panels["Where it runs"]
    assert "--unlabelled" in panels["Data"]
    assert "--momentum" in panels["How a branch learns"]
    assert "--kl-weight" in panels["How branches teach each other"]


def test_options_that_the_short_help_leaves_out_are_taken(tmp_path: Path) -> None:
    options = ("--momentum", "0.5", "--no-channels-last", "--no-paper", "--print-config")
    done = mrkd("train", *BRANCH, "--data", "x", *options, cwd=tmp_path)
    values = yaml.safe_load(done.stdout)
    assert (values["momentum"], values["channels_last"]) == (0.5, False)
    assert mrkd("train", "--no-paper", "--help").returncode == 0


@pytest.mark.parametrize("command", sorted({*CONFIGURED} - {"distil"}))  # its teachers know
def test_data_is_never_guessed(command: str, tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text("cohorts: ['logmel64:vgg_small']\n")
    rest = {"grid": ["g.yaml"], "plan": ["g.yaml"], "evaluate": ["a_model"], "train": [*BRANCH]}
    done = mrkd(command, *rest.get(command, []), cwd=tmp_path)
    refused(done, "data: missing. Your labelled recordings: ", "--data my_clips", "synthetic")
    assert [path.name for path in tmp_path.iterdir()] == ["g.yaml"]


def test_version_and_the_module_as_a_command(tmp_path: Path) -> None:
    run = [sys.executable, "-m", "mrkd_ray", "--version"]
    done = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.split() == ["mrkd-ray", metadata.version("mrkd-ray")]


def test_options_that_were_renamed_are_still_taken_with_a_note(tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text("data: x\npairings: ['cqt:vgg_small']\n")
    old = ("--pairing", "logmel64:vgg_small", "--windows=streamed")
    new = ("--cohort", "logmel64:vgg_small", "--window-memory", "streamed")
    before, now = (mrkd("grid", "g.yaml", *o, "--print-config", cwd=tmp_path) for o in (old, new))
    assert before.stdout == now.stdout
    assert yaml.safe_load(now.stdout)["cohorts"] == [["logmel64:vgg_small"]]  # in the file's place
    assert "note: --pairing is called --cohort now" in before.stderr
    assert "note: --windows is called --window-memory now" in before.stderr
    assert now.stderr == "note: g.yaml: pairings is called cohorts now\n"


@pytest.mark.parametrize("command", ["prepare", "evaluate", "recommend"])
def test_a_command_has_the_options_of_its_configuration_alone(command: str) -> None:
    text = mrkd(command, "--help-all").stdout
    assert "--data " in text
    assert "--kl-weight" not in text  # of the method, which these do not run
    assert ("--split-seed" in text) == (command != "evaluate")
    assert ("--mixup" in text) == (command == "recommend")


def test_print_config_can_be_given_back(tmp_path: Path) -> None:
    options = ("--branch", "logmel64:vgg_small", "--branch", "cqt:resnet18", "--folds", "1,3")
    first = mrkd(
        *("train", "--data", "my_clips", *options, "--temperature", "3"),
        *("--no-independent", "--paper", "--print-config"),
    )
    assert first.returncode == 0, first.stderr
    values = yaml.safe_load(first.stdout)
    assert values["branches"] == ["logmel64:vgg_small", "cqt:resnet18"]
    assert values["folds"] == [1, 3]
    assert values["temperature"] == 3
    assert values["paper"] is True
    assert values["kl_weight"] == PAPER["kl_weight"]
    (tmp_path / "c.yaml").write_text(first.stdout)
    again = mrkd("train", "--config", tmp_path / "c.yaml", "--print-config")
    assert again.stdout == first.stdout


def test_options_override_the_grid_file_and_names_are_found() -> None:
    done = subprocess.run(
        [sys.executable, RUN_GRID, "--cycles", "3", "--print-config"],
        capture_output=True,
        text=True,
    )
    values = yaml.safe_load(done.stdout)
    assert values["name"] == "demo"
    assert values["cycles"] == 3
    assert values["cohorts"] == [["gammatone64:vgg_small", "cqt:vgg_small"]]
    assert values["label_noise"] > 0


@pytest.mark.parametrize("data", [("--data", "my_clips"), ("--data=my_clips",)])
def test_own_labels_are_not_made_wrong_as_the_demos_are(data: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, RUN_GRID, "--cycles", "3", *data, "--print-config"],
        capture_output=True,
        text=True,
    )
    values = yaml.safe_load(done.stdout)
    assert (values["data"], values["cycles"]) == ("my_clips", 3)
    assert (values["label_noise"], values["trust"], values["conclusion"]) == (0, False, None)


def test_a_grid_of_the_paper_at_the_scale_of_cpus() -> None:
    done = subprocess.run(
        [sys.executable, RUN_GRID, "table4", "--scale", "cpu", "--seeds", "0..4", "--print-config"],
        capture_output=True,
        text=True,
    )
    values = yaml.safe_load(done.stdout)
    assert (values["name"], values["reported"]) == ("table4-cpu", "table4")
    assert values["cohorts"] == [["logmel64:vgg_small", "logmel64:resnet_small"]]
    assert values["seeds"] == [0, 1, 2, 3, 4]


def test_list_names_everything() -> None:
    text = mrkd("list").stdout
    for word in ("folder", "csv", "synthetic", "logmel128", "mfcc", "cqt", "resnet101", "vgg19"):
        assert f"  {word} " in text


@pytest.fixture(scope="module")
def trained(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished cell of two branches."""
    folder = tmp_path_factory.mktemp("trained")
    cell = make_cell("logmel64:vgg_small", "cqt:resnet_small")
    tasks = branch_tasks(cell, prepared)
    list(run_cell(cell, tasks, LocalCohort(tasks, folder), folder))
    return folder


def test_predict_gives_the_scores_of_training_calibrated(trained: Path, clips: Path) -> None:
    clip_ids, _, scores = cell_files.read_predictions(trained)
    files = [clips / clip_id for clip_id in clip_ids[:3]]
    for model, folder in (
        ("ensemble", trained),
        ("cqt-resnet_small", trained / "branches" / "cqt-resnet_small"),
    ):
        done = mrkd("predict", folder, *files, "--format", "json")
        assert done.returncode == 0, done.stderr
        known = Classifier.load(folder).calibration
        expected = temper(scores[model], known.temperature, multi_label=False)
        for i, row in enumerate(json.loads(done.stdout)):
            found = [row["scores"][name] for name in ("clicks", "noise", "tone")]
            np.testing.assert_allclose(found, expected[i], atol=1e-5)
            highest = ("clicks", "noise", "tone")[int(np.argmax(found))]
            named = known.least is None or max(found) >= known.least[int(np.argmax(found))]
            assert row["label"] == (highest if named else None)
            assert row["answer"] == (highest if named else "none of these")


def test_predict_goes_on_after_a_file_that_cannot_be_read(
    trained: Path, clips: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_text("text")
    done = mrkd("predict", trained, bad, clips / "00.wav")
    assert done.returncode == 1  # bad input is 2
    assert done.stderr.startswith("error: ")
    assert "bad.wav: cannot be classified" in done.stderr
    assert "00.wav: " in done.stdout
    refused(mrkd("predict", trained, tmp_path / "lost.wav"), "lost.wav")
    refused(mrkd("predict", tmp_path, clips / "00.wav"), "no model there")


def test_predict_takes_a_folder_and_prints_in_order(trained: Path, clips: Path) -> None:
    done = mrkd("predict", trained, clips, "--format", "json")
    rows = json.loads(done.stdout)
    assert [row["file"] for row in rows] == [str(file) for file in sorted(clips.glob("*.wav"))]
    lines = mrkd("predict", trained, clips, "--top", "1").stdout.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [row["file"] for row in rows]
    for line, row in zip(lines, rows, strict=True):
        assert line.partition(": ")[2].startswith(row["answer"])


def test_answers_go_to_a_file_and_progress_to_the_terminal(
    trained: Path, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import rich.console

    terminal = io.StringIO()
    console = rich.console.Console

    def watched(**options: object) -> rich.console.Console:
        return console(file=terminal, force_terminal=True, width=100)

    monkeypatch.setattr(rich.console, "Console", watched)
    done = mrkd("predict", trained, clips / "00.wav", clips / "01.wav")
    assert [line.partition(": ")[0] for line in done.stdout.splitlines()] == [
        str(clips / "00.wav"),
        str(clips / "01.wav"),
    ]
    assert "Classifying" in terminal.getvalue()
    assert "2/2" in terminal.getvalue()


def test_a_list_on_standard_input_is_classified(
    trained: Path, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = f"{clips / '03.wav'}\n\n{clips / '01.wav'}\r\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(listed))
    done = mrkd("predict", trained, "-", clips / "00.wav", "--jobs", "1")
    names = [line.partition(": ")[0] for line in done.stdout.splitlines()]
    assert names == [str(clips / f"{name}.wav") for name in ("03", "01", "00")]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    refused(mrkd("predict", trained, "-"), "no line on standard input")


def test_tables_go_to_a_file_with_what_was_heard(
    trained: Path, clips: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_text("text")
    names = ["clicks", "noise", "tone"]
    window = ("--window", "0.25")
    given = ("predict", trained, clips / "00.wav", bad, clips / "01.wav")
    for format, read in (("csv", pd.read_csv), ("parquet", pd.read_parquet)):
        file = tmp_path / f"scores.{format}"
        done = mrkd(*given, *window, "--format", format, "--output", file)
        assert done.returncode == 1
        assert f"{file}: 3 files, 0.00 h of audio, " in done.stderr
        table = read(file)
        assert list(table.columns) == ["file", "start", "end", *names]
        assert set(table["file"]) == {str(clips / "00.wav"), str(clips / "01.wav")}
        np.testing.assert_allclose(table[names].sum(axis=1), 1, atol=1e-5)
        assert (table["end"] > table["start"]).all()
    refused(mrkd(*given, "--format", "parquet"), "give --output FILE")
    refused(mrkd(*given, "--format", "csv", "--min-confidence", "0.9"), "has every class")
    refused(mrkd(*given, "--smooth", "3"), "--smooth", "give --window too")
    refused(mrkd(*given, *window, "--smooth", "2"), "an odd number")


def test_the_least_confidence_is_of_files_too_where_it_is_asked_for(
    trained: Path, clips: Path
) -> None:
    given = ("predict", trained, clips / "00.wav")
    assert len(mrkd(*given).stdout.split(", ")) == 3  # all of them
    assert "no class from 100 % up" in mrkd(*given, "--min-confidence", "1").stdout
    old = mrkd(*given, "--threshold", "1", "--json")
    assert "--threshold is called --min-confidence now" in old.stderr
    (row,) = json.loads(old.stdout)
    assert row["label"] is None
    assert len(row["scores"]) == 3


def test_clean_lists_and_removes_only_with_yes_and_a_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "ray"))
    made = tmp_path / "cache" / "synthetic-1"
    made.mkdir(parents=True)
    (made / "meta.csv").write_text("x" * 2000)
    listed = mrkd("clean", cwd=tmp_path)
    assert listed.returncode == 0
    assert "cache: 1 found, 2.0 kB" in listed.stdout
    assert "cache/synthetic-1" in listed.stdout
    assert "--yes" in listed.stdout
    assert "cache/synthetic-1" not in mrkd("clean", "--unused-days", "3", cwd=tmp_path).stdout
    refused(mrkd("clean", "--yes", cwd=tmp_path), "cache, checkpoints, ray")
    refused(mrkd("clean", "cash", cwd=tmp_path), "Did you mean 'cache'?")
    mrkd("clean", "checkpoints", "--yes", cwd=tmp_path)
    mrkd("clean", "cache", "--yes", "--unused-days", "3", cwd=tmp_path)
    assert made.exists()
    assert "removed 1 of 1" in mrkd("clean", "cache", "--yes", cwd=tmp_path).stdout
    assert not made.exists()


def test_export_writes_a_program_or_says_why_not(
    trained: Path, clips: Path, tmp_path: Path
) -> None:
    done = mrkd("export", trained, tmp_path / "m.pt2", "--seconds", "1", "--data", clips)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "m.pt2").stat().st_size > 0
    assert f"12 clips of {clips}: largest difference " in done.stdout
    refused(mrkd("export", trained, tmp_path / "m.pt2", "--int8"), "--int8", "NAME.onnx")
    refused(mrkd("export", trained, tmp_path / "m.onnx", "--int8"), "give --data")
    refused(mrkd("export", trained, tmp_path / "m.pth", "--seconds", "1"), "m.pth", ".onnx")
    refused(mrkd("export", tmp_path, tmp_path / "m.pt2", "--seconds", "1"), "no model there")


def test_files_to_write_are_looked_at_before_the_model_is(tmp_path: Path) -> None:
    for words in (
        ("export", tmp_path, tmp_path, "--seconds", "1"),
        ("predict", tmp_path, "x.wav", "--output", tmp_path),
    ):
        refused(mrkd(*words), f"{tmp_path}: is a folder: give a file to write")


def test_evaluate_counts_only_clips_that_were_not_trained_on(
    trained: Path, clips: Path, cache: Path, tmp_path: Path
) -> None:
    done = mrkd("evaluate", trained, "--data", clips, "--cache", cache, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    result = result_of(trained)
    assert result is not None
    assert report["clips"] == result["clips"] == 12
    figures = ("model", "accuracy", "map3", "balanced_accuracy", "macro_f1")
    assert [{key: row[key] for key in figures} for row in report["models"]] == [
        {key: pytest.approx(value) for key, value in row.items()}
        for row in sorted(
            result["models"], key=lambda row: (row["model"] == "ensemble", row["model"])
        )
    ]
    assert report["trained_on"] == 12
    copies = tmp_path / "copies"  # known by their bytes, whatever they are called
    copies.mkdir()
    rows = ["filename,label"]
    for line in (clips / "meta.csv").read_text().splitlines()[1:]:
        name, _, label = line.split(",")
        (copies / f"copy-{name}").write_bytes((clips / name).read_bytes())
        rows.append(f"copy-{name},{label}")
    (copies / "meta.csv").write_text("\n".join(rows))
    again = mrkd("evaluate", trained, "--data", copies, "--cache", cache, "--json")
    assert json.loads(again.stdout)["models"] == report["models"]
    (tmp_path / "meta.csv").write_text(f"filename,label\n{clips / '00.wav'},whale\n")
    refused(mrkd("evaluate", trained, "--data", tmp_path), "whale")


def test_train_writes_a_run_folder_and_python_gives_the_same(
    clips: Path, cache: Path, tmp_path: Path
) -> None:
    from mrkd_ray import train

    options = {"cycles": 1, "batch_size": FAST["batch_size"], "lr": FAST["lr"], "folds": [2]}
    done = mrkd(
        *("train", *BRANCH, "--branch", "cqt:vgg_small", "--data", clips, "--cache", cache),
        *("--runner", "local", "--output", tmp_path / "cli", "--independent"),
        *("--cycles", 1, "--batch-size", FAST["batch_size"], "--lr", FAST["lr"], "--folds", 2),
    )
    assert done.returncode == 0, done.stderr
    assert "distilled" in done.stdout
    folder = tmp_path / "cli" / "train"
    last = done.stdout.splitlines()[-1]
    assert last == f"Use it: {_program()} predict {folder / 'best'} FILE"
    used = mrkd(*last.split()[3:-1], clips / "00.wav")
    assert used.stdout.startswith(f"{clips / '00.wav'}: "), used.stderr
    table = tmp_path / "events.txt"
    for kind, *least in (("raven", "--min-confidence", "0"), ("csv",)):
        asked = ("--window", "0.2", "--format", kind, *least, "--output", table)
        written = mrkd(*last.split()[3:-1], clips / "00.wav", *asked)
        assert (written.returncode, written.stdout) == (0, ""), written.stderr
        head = ["Selection", "View"] if kind == "raven" else ["file", "start", "end", "clicks"]
        assert lines(table)[0].split("\t" if kind == "raven" else ",")[: len(head)] == head
    ends = [float(line.split(",")[2]) for line in lines(table)[1:]]
    assert ends[-1] == pytest.approx(soundfile.info(clips / "00.wav").duration, abs=1e-3)
    refused(mrkd("predict", folder / "best", clips / "00.wav", "--hop", "1"), "--window too")
    compared = mrkd("compare", folder, "--choose", "size")
    assert compared.returncode == 0, compared.stderr
    assert compared.stdout.splitlines()[-1] == last
    listed = json.loads(mrkd("compare", folder, "--json").stdout)
    assert len(listed["models"]) == 2 * 3
    assert all(model["milliseconds"] > 0 for model in listed["models"])
    refused(mrkd("compare", folder, "--choose", "speed"), "--choose speed", "latency")
    refused(mrkd("compare", tmp_path / "cli"), "results.csv")
    assert {path.name for path in folder.iterdir()} == {
        *("grid.yaml", "environment.json", "skipped.json", ".lock"),
        *("cells", "cells.json", "results.csv", "table.csv", "SHA256SUMS", "best"),
    }
    found = train(
        branches=["logmel64:vgg_small", "cqt:vgg_small"],
        data=str(clips),
        cache=cache,
        output=tmp_path / "python",
        runner="local",
        independent=True,
        **options,
    )
    assert found.best is not None
    assert found.best_folder == tmp_path / "python" / "train" / "best"
    for cell in (folder / "cells").iterdir():
        other = found.folder / "cells" / cell.name / "predictions.csv"
        assert (cell / "predictions.csv").read_bytes() == other.read_bytes()


def test_prepare_computes_ahead_and_says_where(clips: Path, tmp_path: Path) -> None:
    command = (
        *("prepare", "--data", clips, "--representations", "logmel64,mfcc"),
        *("--cache", tmp_path, "--runner", "local"),
    )
    done = mrkd(*command)
    assert done.returncode == 0, done.stderr
    assert "logmel64: 24 clips" in done.stdout
    assert "mfcc: 24 clips" in done.stdout
    stores = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("frames.f32")}
    assert len(stores) == 2
    assert mrkd(*command).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in stores} == stores


def test_weights_of_a_file_are_loaded_and_reported(
    shared: Path, clips: Path, cache: Path, tmp_path: Path
) -> None:
    weights = shared / "weights" / "mobilenet_v2-features-imagenet.pth"
    done = mrkd(
        *("train", "--branch", "logmel64:mobilenet_v2", "--weights", weights, "--data", clips),
        *("--cache", cache, "--runner", "local", "--cycles", 1, "--folds", 1),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "mobilenet_v2, weights:" in done.stderr
    assert "312 tensors loaded; classifier new" in done.stderr
    (config,) = tmp_path.glob("results/train/cells/*/branches/*/config.json")
    assert "312 tensors loaded" in json.loads(config.read_text())["weights"]


def test_a_grid_name_that_does_not_exist() -> None:
    done = subprocess.run(
        [sys.executable, RUN_GRID, "demmo", "--cycles", "1"], capture_output=True, text=True
    )
    refused(done, "demmo", "demo", "esc10")


def test_help_shows_defaults() -> None:
    text = " ".join(mrkd("train", "--help-all").stdout.split())
    assert "Momentum of SGD. Default: 0.9." in text


def test_an_output_that_is_a_file(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file")
    refused(mrkd("train", *BRANCH, "--data", clips, cwd=tmp_path), "results", "is a file")


def test_odd_values_are_refused_without_a_traceback(clips: Path, tmp_path: Path) -> None:
    common = ("train", *BRANCH, "--data", clips)
    refused(mrkd(*common, "--name", "../up", cwd=tmp_path), "name")
    refused(mrkd(*common, "--temperature", "inf", cwd=tmp_path), "temperature", "finite")
    refused(mrkd(*common, "--folds", "9", "--runner", "local", cwd=tmp_path), "9", "1, 2")
    assert [path.name for path in tmp_path.iterdir()] in ([], ["cache"])


def test_diverged_training_says_so_and_keeps_the_other_cells(
    clips: Path, cache: Path, tmp_path: Path
) -> None:
    done = mrkd(
        *("train", *BRANCH, "--data", clips, "--cache", cache, "--runner", "local", "--folds", "1"),
        *("--cycles", "2", "--lr", "1e20"),
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "diverged in cycle 0" in done.stderr
    assert "--lr" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_cell_that_lacks_a_part_is_refused(trained: Path, clips: Path, tmp_path: Path) -> None:
    cell = tmp_path / "cell"
    shutil.copytree(trained, cell)
    (cell / "branches" / "cqt-resnet_small" / "model.safetensors").unlink()
    refused(mrkd("predict", cell, clips / "00.wav"), "cqt-resnet_small", "not a whole model")
    (cell / "branches" / "cqt-resnet_small" / "config.json").write_text("{}")
    refused(mrkd("predict", cell, clips / "00.wav"), "cqt-resnet_small", "not a whole model")


def test_a_recommendation_is_refused_before_long_work(clips: Path, tmp_path: Path) -> None:
    asked = ("recommend", "--data", clips, "--runner", "local")
    refused(mrkd(*asked, "--size", "6", cwd=tmp_path), "size", "less than or equal to 5")
    one = ("--representations", "cqt", "--networks", "vgg_small")
    refused(mrkd(*asked, *one, cwd=tmp_path), "cqt:vgg_small", "cohort of 2", "--networks")
    refused(mrkd(*asked, "--representations", "cqtt", cwd=tmp_path), "Did you mean 'cqt'?")
    refused(mrkd(*asked, "--fold", "7", cwd=tmp_path), "7 asked for", "folds 1, 2")
    (tmp_path / "recommended.yaml").write_text("mine\n")
    refused(mrkd(*asked, cwd=tmp_path), "recommended.yaml", "--force")
    assert (tmp_path / "recommended.yaml").read_text() == "mine\n"
    assert not (tmp_path / "results").exists()


def test_what_does_not_end_after_sigterm_is_ended() -> None:
    code = """
import signal, threading
from mrkd_ray.cli import main
main.PATIENCE = 0.1
signal.signal(signal.SIGTERM, main._terminated)
try:
    signal.raise_signal(signal.SIGTERM)
except KeyboardInterrupt:
    threading.Event().wait()  # for ever, as what a dead network would have to say
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=120)
    assert done.returncode == 130


def test_a_terminal_that_cannot_show_a_name_shows_it_escaped(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mrkd_ray", "predict", str(tmp_path), "caf\u00e9.wav"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)},
    )
    refused(done, r"caf\xe9.wav: no such file")
