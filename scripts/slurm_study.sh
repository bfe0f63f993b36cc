#!/bin/bash
# Runs a study on SLURM: Ray gives its runs to the nodes of the job, one to each GPU, or CPU where there is no GPU.
# Submitted from the folder in which bundles/ lies and with the Python environment active:
#
#   sbatch --nodes=4 --gpus-per-node=8 --time=24:00:00 scripts/slurm_study.sh my_study.yaml
#
# Options after the script are those of medcalib study. Two minutes before the wall time ends the study is stopped and its
# job waits in the queue again; it goes on with what is not done, trainings after their last complete epoch.
#
#   MAX_REQUEUES         how often the job goes back into the queue by itself (default: 50)
#SBATCH --job-name=medcalib_study
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x_%j.log
set -euo pipefail

if [[ -z ${SLURM_JOB_ID:-} ]]; then
    echo "error: This is a job of SLURM: give it to sbatch, as in 'sbatch scripts/slurm_study.sh my_study.yaml'." >&2
    exit 2
fi

hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
first=${hosts%%$'\n'*}
address=$first:$((20000 + SLURM_JOB_ID % 20000))
# seconds for which nodes wait for one another
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=${RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT:-300}
# Whoever reaches Ray can run code as you, so the job has a password of its own, which all of its nodes get.
export RAY_AUTH_MODE=${RAY_AUTH_MODE:-token}
if [[ $RAY_AUTH_MODE == token && -z ${RAY_AUTH_TOKEN:-} ]]; then
    RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
    export RAY_AUTH_TOKEN
fi

# Only a shell that waits for a command in the background takes a signal at once.
stopped=false
# shellcheck disable=SC2329
stop() {
    stopped=true
    echo "The wall time ends soon: stopping the study, which goes on with what is not done." >&2
    scancel --signal=TERM "$SLURM_JOB_ID.0" || true
}
trap stop USR1
echo "Job $SLURM_JOB_ID on $SLURM_JOB_NODELIST, start $((${SLURM_RESTART_COUNT:-0} + 1)): medcalib study $*" >&2
# What each node does. Ray of the first one runs the study; that of the others does not end when the first one has ended.
# shellcheck disable=SC2329
on_node() {
    local code=0
    # Ray would count what a machine has, and not what the job was given of it.
    ray symmetric-run --num-cpus="$SLURM_CPUS_ON_NODE" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" "$@" &
    if ((SLURM_PROCID)); then
        trap 'kill $!; exit 0' TERM
    else
        trap : TERM
    fi
    wait $! || code=$?
    # A request to end interrupts the waiting.
    while kill -0 $! 2> /dev/null; do
        code=0
        wait $! || code=$?
    done
    ((SLURM_PROCID)) || scancel --signal=TERM "$SLURM_JOB_ID.$SLURM_STEP_ID"
    return "$code"
}
srun --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_ON_NODE" --kill-on-bad-exit=1 \
    bash -c "$(declare -f on_node); on_node \"\$@\"" ray --address="$address" --min-nodes="$SLURM_JOB_NUM_NODES" \
    -- python -m medcalib.cli study "$@" --engine ray --address auto &
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
