#!/bin/bash
# Trains a bundle on SLURM, with one process for each GPU of the job; without GPUs, with one on each node. Submitted from
# the folder in which bundles/ lies and with the Python environment active, and with what the cluster asks for:
#
#   sbatch --gpus-per-node=4 --cpus-per-task=32 --time=24:00:00 scripts/slurm_train.sh --bundle NAME
#   sbatch --nodes=2 --gpus-per-node=8 scripts/slurm_train.sh --bundle NAME --seed 1
#   sbatch --gpus-per-node=1 --array=1-5 scripts/slurm_train.sh --bundle NAME        # the seeds 1 to 5
#
# Options after the script are those of medcalib run; --mode is train if left out. Two minutes before the wall time ends
# the run is stopped and its job waits in the queue again; it goes on after its last complete epoch.
#
#   PROCESSES_PER_NODE   number of processes on each node (default: its GPUs, or 1)
#   MAX_REQUEUES         how often the job goes back into the queue by itself (default: 50)
#SBATCH --job-name=medcalib
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x_%j.log
set -euo pipefail

if [[ -z ${SLURM_JOB_ID:-} ]]; then
    echo "error: This is a job of SLURM: give it to sbatch, as in 'sbatch scripts/slurm_train.sh --bundle NAME'." >&2
    exit 2
fi

run=(-m medcalib.cli run "$@")
given() { [[ " ${*:2} " == *" $1"[\ =]* ]]; }
given --mode "$@" || run+=(--mode train)
if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]] && ! given --seed "$@"; then
    run+=(--seed "$SLURM_ARRAY_TASK_ID")
fi

# what torch says about host names that it cannot look up helps nobody
export TORCH_CPP_LOG_LEVEL=${TORCH_CPP_LOG_LEVEL:-ERROR}
nodes=$SLURM_JOB_NUM_NODES
processes=${PROCESSES_PER_NODE:-${SLURM_GPUS_ON_NODE:-1}}
# another number after each restart, so that nobody meets processes of before, and another for each job of a node
meeting=$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}
port=$((20000 + SLURM_JOB_ID % 20000))
if ((nodes * processes > 1)); then
    hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
    first=${hosts%%$'\n'*}
    run=(
        -m torch.distributed.run --nnodes "$nodes" --nproc_per_node "$processes" --max_restarts 0
        --rdzv_backend c10d --rdzv_id "$meeting" --rdzv_endpoint "$first:$port"
        "${run[@]}"
    )
fi

# Only a shell that waits for a command in the background takes a signal at once.
stopped=false
# shellcheck disable=SC2329
stop() {
    stopped=true
    echo "The wall time ends soon: stopping the run, which goes on after its last complete epoch." >&2
    scancel --signal=TERM "$SLURM_JOB_ID.0" || true
}
trap stop USR1
echo "Job $SLURM_JOB_ID on $SLURM_JOB_NODELIST, start $((${SLURM_RESTART_COUNT:-0} + 1)): python ${run[*]}" >&2
srun --ntasks="$nodes" --ntasks-per-node=1 ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} \
    --kill-on-bad-exit=1 python "${run[@]}" &
step=$!
code=0
wait "$step" || code=$?
# The signal ended the waiting, but not what was waited for.
if $stopped; then
    code=0
    wait "$step" || code=$?
fi
if $stopped && ((code)); then
    if ((${SLURM_RESTART_COUNT:-0} >= ${MAX_REQUEUES:-50})); then
        echo "error: The job was restarted $SLURM_RESTART_COUNT times (MAX_REQUEUES); submit it again to go on." >&2
        exit 1
    fi
    echo "Job $SLURM_JOB_ID goes back into the queue." >&2
    scontrol requeue "$SLURM_JOB_ID"
    # SLURM ends this script; an exit code of its own would be the job's
    sleep 60
fi
exit "$code"
