#!/usr/bin/env bash
# A grid under Slurm: a Ray cluster of the job's nodes for as long as the job runs.
#
# Once, on the login node, in this checkout (the nodes see your home):
#   python3 -m venv .venv && .venv/bin/pip install -e .
# Set the lines marked SET. Then (docs/how-to/cluster.md); what follows goes to run_grid.py:
#   sbatch deploy/slurm.sh --data ~/my_clips
#   tail -f slurm-JOB.out
# The same again goes on where a job ended, at its time limit too. Results: results/ in this folder.

#SBATCH --job-name=mrkd
#SBATCH --nodes=2                # SET: a cohort of two branches has a GPU each with 1 GPU a node
#SBATCH --exclusive              # Ray's end ends all processes of Ray that you have on the node
#SBATCH --ntasks-per-node=1      # one Ray node a machine, which has all that is asked for below
#SBATCH --gpus-per-node=1        # SET: 0 trains on CPUs
#SBATCH --cpus-per-task=8        # SET
#SBATCH --time=12:00:00          # SET: you pay no longer than that
#SBATCH --signal=TERM@60         # the grid ends in order before the limit
#SBATCH --requeue                # a preempted job comes back, and goes on

set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}"
# shellcheck source=/dev/null
source .venv/bin/activate

# The token that the nodes share: without it every user of the machines could run code as you.
export RAY_AUTH_MODE=token
[ -e ~/.ray/auth_token ] || ray get-auth-token --generate > /dev/null
# Sockets need a short path on the node's own disk, one for each job; no niceness; no telemetry.
export RAY_TMPDIR=/tmp/ray-$SLURM_JOB_ID
export RAY_worker_niceness=0 RAY_free_objects_period_milliseconds=0
export RAY_USAGE_STATS_ENABLED=${RAY_USAGE_STATS_ENABLED:-0}
mkdir -p "$RAY_TMPDIR"

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 10000)) # two jobs on one node take different ones

# Ray starts on every node, runs the command on the first when all are there, and stops with it.
# srun starts no second process there, so Ray is told what the job has, not what the node has.
srun --kill-on-bad-exit=1 ray symmetric-run --address "$head:$port" \
  --min-nodes "$SLURM_JOB_NUM_NODES" --num-cpus "${SLURM_CPUS_PER_TASK:-1}" \
  --num-gpus "${SLURM_GPUS_ON_NODE:-0}" -- \
  python experiments/run_grid.py --address auto --resume "$@"
