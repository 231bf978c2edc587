"""`deploy/slurm.sh`, with stand-ins for Slurm's programs and for `ray`, which ends nothing."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy" / "slurm.sh"
# Two tasks, as on two nodes: `srun` runs what it is given on each, and ends as the worst of them.
SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
worst=0
for task in 0 1; do SLURM_PROCID=$task "$@" || worst=$?; done
exit $worst
"""
RAY = """#!/usr/bin/env bash
if [[ $1 == get-auth-token ]]; then mkdir -p ~/.ray; echo secret > ~/.ray/auth_token; exit; fi
{
  printf '%s\\n' "$SLURM_PROCID" "$RAY_AUTH_MODE" "$RAY_TMPDIR" "$RAY_worker_niceness" "$@"
  echo
} >> "$LOG"
exit "${FAILS:-0}"
"""


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def sbatch(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the script as Slurm runs it on the first node: a copy, in a folder of Slurm's own."""
    copied = folder / "spool" / "slurm_script"
    copied.parent.mkdir()
    shutil.copy(SCRIPT, copied)
    programs = folder / "bin"
    program(programs / "srun", SRUN)
    program(programs / "ray", RAY)
    program(programs / "scontrol", "#!/bin/sh\nprintf 'node7\\nnode9\\n'\n")
    (folder / "checkout" / ".venv" / "bin").mkdir(parents=True)
    (folder / "checkout" / ".venv" / "bin" / "activate").touch()
    environment = {
        "HOME": str(folder),
        "PATH": f"{programs}{os.pathsep}/usr/bin{os.pathsep}/bin",
        "LOG": str(folder / "log"),
        "SLURM_SUBMIT_DIR": str(folder / "checkout"),
        "SLURM_JOB_ID": "1234567",
        "SLURM_JOB_NODELIST": "node[7,9]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "8",
        **variables,
    }
    try:
        return subprocess.run(
            ["bash", str(copied), *arguments],
            cwd=folder / "spool",
            env=environment,
            capture_output=True,
            text=True,
        )
    finally:
        shutil.rmtree("/tmp/ray-1234567", ignore_errors=True)


def test_shell_accepts_it() -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_shellcheck_finds_nothing() -> None:
    checked = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_every_node_joins_the_first_and_the_grid_gets_what_was_typed(tmp_path: Path) -> None:
    done = sbatch(tmp_path, "--data", "my clips", SLURM_GPUS_ON_NODE="4")
    assert done.returncode == 0, done.stderr
    calls = [call.splitlines() for call in (tmp_path / "log").read_text().strip().split("\n\n")]
    assert [call[0] for call in calls] == ["0", "1"]
    for call in calls:
        assert call[1:4] == ["token", "/tmp/ray-1234567", "0"]
        words = call[4:]
        split = words.index("--")
        assert words[:split] == [
            *("symmetric-run", "--address", "node7:24567", "--min-nodes", "2"),
            *("--num-cpus", "8", "--num-gpus", "4"),
        ]
        assert words[split + 1 :] == [
            *("python", "experiments/run_grid.py", "--address", "auto", "--resume"),
            *("--data", "my clips"),
        ]
    assert (tmp_path / ".ray" / "auth_token").exists()


def test_a_grid_that_fails_fails_the_job(tmp_path: Path) -> None:
    assert sbatch(tmp_path, FAILS="2").returncode == 2
