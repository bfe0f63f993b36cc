#!/usr/bin/env bash
# Tries scripts/slurm_train.sh and scripts/slurm_study.sh on a SLURM of two nodes, which this script makes on one machine
# and removes again. Takes about ten minutes on two CPU cores that do nothing else.
#
#   scripts/check_slurm.sh [trainings|study]
#
# The environment is the one that is active, else that of scripts/setup.sh.
# Needs Linux, root, and for the installation of SLURM, once, apt-get. Both nodes and the controller run in namespaces of
# their own, with a network of their own, and end with this script; the machine's own network, processes and files see
# nothing of them.
set -euo pipefail

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 1
}

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
nodes=(medcalib-node1 medcalib-node2)
addresses=(10.213.0.1 10.213.0.2)

install_slurm() {
    [[ $(uname -s) == Linux ]] || fail "This check needs Linux."
    [[ $(id -u) == 0 ]] || fail "This check needs root, for namespaces and for SLURM's daemons: call it with sudo."
    local program missing=()
    for program in slurmctld slurmd srun munged ip; do
        command -v "$program" > /dev/null || missing+=("$program")
    done
    ((${#missing[@]})) || return 0
    command -v apt-get > /dev/null || fail "There is no ${missing[*]}, and no apt-get: install SLURM and munge."
    echo "Installing SLURM and munge"
    # what is installed must not be started as a service of this machine
    { apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
        apt-get install --yes -qq --no-install-recommends slurmctld slurmd slurm-client munge iproute2; } \
        > "$work/apt.log" 2>&1 || fail "SLURM could not be installed: $(tail -n 1 "$work/apt.log")"
}

# Everything below runs as the first process of the namespaces: when it ends, whatever happens, all others end with it.
if [[ ${1:-} != --inside ]]; then
    [[ $# -le 1 && ${1:-study} =~ ^(trainings|study)$ ]] || fail "Unknown option '$1'; give trainings, study or nothing."
    if ! python -c 'import medcalib, ray, torch' 2> /dev/null; then
        # shellcheck source=scripts/setup.sh
        setup_tests=true source "$project/scripts/setup.sh"
    fi
    work=$(mktemp -d -t medcalib_slurm.XXXXXX)
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    chmod 755 "$work"
    install_slurm
    # in the background, so that a signal is answered at once
    PYTHONPATH=$project/src${PYTHONPATH:+:$PYTHONPATH} unshare --mount --uts --net --pid --fork --kill-child --mount-proc \
        "$BASH" "${BASH_SOURCE[0]}" --inside "$work" "${1:-all}" &
    inside=$!
    trap 'kill -KILL "$inside" 2> /dev/null || true; wait "$inside" || true; rm -rf "$work"' EXIT
    wait "$inside"
    exit
fi

work=$2
part=$3
cd "$work"
step=start
logs() {
    echo "FAILED in: $step" >&2
    tail -n 40 "$work"/*.log >&2
    cat medcalib_*.log >&2 2> /dev/null || true
}
trap 'code=$?; ((code == 0)) || logs' EXIT

# ---------------------------------------------------------------------------------------------------------- the cluster
mkdir munge spool1 spool2 state ray1 ray2
printf '127.0.0.1 localhost\n%s\n%s\n' "${addresses[0]} ${nodes[0]}" "${addresses[1]} ${nodes[1]}" > hosts
mount --bind hosts /etc/hosts
mkdir -p /tmp/ray
mount --bind ray1 /tmp/ray
hostname "${nodes[0]}"
ip link set lo up
ip link add wire1 type veth peer name wire2

chmod 700 munge
dd if=/dev/urandom of=munge/key bs=128 count=1 status=none
chmod 400 munge/key
munged --force --key-file="$work/munge/key" --socket="$work/munge/socket" --pid-file="$work/munge/pid" \
    --log-file="$work/munged.log" --seed-file="$work/munge/seed"

export SLURM_CONF=$work/slurm.conf
cat > "$SLURM_CONF" << TEXT
ClusterName=check
SlurmctldHost=${nodes[0]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$work/munge/socket,cred_expire=10
CredType=cred/munge
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool_%n
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd_%n.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd_%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
NodeName=${nodes[0]} NodeAddr=${addresses[0]} CPUs=2 State=UNKNOWN
NodeName=${nodes[1]} NodeAddr=${addresses[1]} CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
TEXT

second_node() {
    hostname "${nodes[1]}"
    mount --bind "$work/ray2" /tmp/ray
    ip link set lo up
    until ip link show wire2 > /dev/null 2>&1; do sleep 0.1; done
    ip address add "${addresses[1]}/24" dev wire2
    ip link set wire2 up
    slurmd -D -N "${nodes[1]}" 2> /dev/null &
    wait
}
export -f second_node
export work
unshare --mount --uts --net --pid --fork --kill-child --mount-proc \
    "$BASH" -c "nodes=(${nodes[*]}); addresses=(${addresses[*]}); second_node" &
second=$!
# the network of the process that unshare started is another one as soon as it is there
until child=$(pgrep -P "$second") && [[ $(readlink "/proc/$child/ns/net") != "$(readlink /proc/self/ns/net)" ]]; do
    sleep 0.1
done
ip link set wire2 netns "$child"
ip address add "${addresses[0]}/24" dev wire1
ip link set wire1 up
slurmctld -D 2> /dev/null &
slurmd -D -N "${nodes[0]}" 2> /dev/null &
for _ in {1..60}; do
    ! [[ $(sinfo --noheader --format '%t %D' 2> /dev/null) == "idle 2" ]] || break
    sleep 1
done
sinfo --Node --long
[[ $(sinfo --noheader --format '%t %D') == "idle 2" ]] || fail "The nodes of the cluster did not start."

# ------------------------------------------------------------------------------------------------------------ trainings
scripts=$project/scripts
export MEDCALIB_DATA_DIR=$work/data OMP_NUM_THREADS=1
say() {
    step=$1
    printf '\n== %s (%s s)\n' "$step" "$SECONDS"
}

wait_for() { # SECONDS COMMAND...
    local end=$((SECONDS + $1))
    until "${@:2}"; do
        ((SECONDS < end)) || fail "Waited for $1 seconds in vain for: ${*:2}"
        sleep 0.5
    done
}

reached() { grep -q "epoch $1/" medcalib_*.log 2> /dev/null; }

ended() { [[ -z $(squeue --noheader --jobs "$1" 2> /dev/null) ]]; }

started_again() { grep -q "start 2:" medcalib_*.log; }

holds() { grep --quiet -- "$2" "$1" || fail "There is no line with '$2' in $1."; }

# Prints the largest difference of two trainings' weights, and fails where it is above the bound.
compare() { # BOUND FOLDER FOLDER
    python - "$@" << 'PYTHON'
import sys
from pathlib import Path

import torch

bound, *folders = sys.argv[1:]
largest = 0.0
for name in ("model.pt", "checkpoint.pt"):
    parts = []
    for folder in folders:
        (path,) = Path(folder).glob(f"bundles/*/seed_1_debug/models/{name}")
        state = torch.load(path, weights_only=True, map_location="cpu")
        parts.append(state.get("network", state))
    first, second = parts
    assert first.keys() == second.keys()
    for key, value in first.items():
        if torch.is_tensor(value):
            largest = max(largest, float((value.double() - second[key].double()).abs().max()))
print(f"largest difference of a weight: {largest:.3g} (bound: {bound})")
sys.exit(largest > float(bound))
PYTHON
}

check_trainings() {
    bundle=$(python -m medcalib.cli generate --data phantom --loss baseline_dice_ce | tail -n 1)
    train=("$scripts/slurm_train.sh" --bundle "$bundle" --seed 1 --debug --max_epochs=5)
    for folder in single whole cancelled requeued seeds; do
        mkdir "$folder"
        cp -r bundles "$folder"
    done

    say "a training in one process, without SLURM"
    cd "$work/single"
    python -m medcalib.cli run --mode train "${train[@]:1}" 2>&1 | tail -n 3

    say "a training on two nodes"
    cd "$work/whole"
    sbatch --nodes=2 --wait "${train[@]}"
    cat medcalib_*.log
    compare 0.02 "$work/single" "$work/whole"

    say "the same, cancelled in the middle and submitted again"
    cd "$work/cancelled"
    job=$(sbatch --nodes=2 --parsable "${train[@]}")
    wait_for 600 reached 2
    scancel "$job"
    wait_for 120 ended "$job"
    holds "medcalib_$job.log" "resumes after the last complete epoch"
    sbatch --nodes=2 --wait "${train[@]}"
    cat medcalib_*.log
    compare 0 "$work/whole" "$work/cancelled"

    say "the same, with the signal that SLURM sends before the wall time ends"
    cd "$work/requeued"
    job=$(sbatch --nodes=2 --parsable "${train[@]}")
    wait_for 600 reached 2
    scancel --batch --signal=USR1 "$job"
    wait_for 600 started_again
    wait_for 600 ended "$job"
    cat medcalib_*.log
    holds "medcalib_$job.log" "goes back into the queue"
    compare 0 "$work/whole" "$work/requeued"

    say "two seeds as an array of jobs"
    cd "$work/seeds"
    sbatch --wait --array=1-2 --output=%A_%a.log "$scripts/slurm_train.sh" --bundle "$bundle" --debug --max_epochs=1
    ls -d "$bundle"/seed_*
    [[ -f $bundle/seed_1_debug/models/model.pt && -f $bundle/seed_2_debug/models/model.pt ]] || fail "A seed is missing."
}
[[ $part == study ]] || check_trainings

# ---------------------------------------------------------------------------------------------------------------- study
check_study() {
    say "a study of two losses on two nodes"
    mkdir "$work/study"
    cd "$work/study"
    cat > quick.yaml << TEXT
question: Does it run?
data: phantom
losses: [baseline_dice_ce, softl1ace_dice_ce]
seeds: 1
debug: true
TEXT
    sbatch --wait --nodes=2 "$scripts/slurm_study.sh" quick.yaml
    cat medcalib_*.log
    [[ -f studies_output/quick/report/index.html ]] || fail "The study has no report."
}
[[ $part == trainings ]] || check_study

say "all is well"
