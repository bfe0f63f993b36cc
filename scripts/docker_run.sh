#!/usr/bin/env bash
# Run a bundle, or any command of the project, in the container that scripts/docker_build.sh builds.
set -euo pipefail

usage() {
    cat << 'TEXT'
Usage: scripts/docker_run.sh [options] --mode MODE --bundle BUNDLE [options of run_bundle.py] [-- options of docker]
       scripts/docker_run.sh [options] COMMAND [arguments] [-- options of docker]

  --mode MODE       train, inference_pred or inference_eval
  --bundle BUNDLE   name of a bundle under bundles/, or its path
  --seed SEED       seed of the run (default: 12345)
  --gpu IDS         GPUs such as 0 or 0,1, or all; a bundle runs on all of them (default: none, it runs on the CPU)
  --cpus LIST       processor cores such as 0-5 or 0,2,4 (default: all)
  --shm-size SIZE   shared memory for the data loaders (default: 32g)
  --data DIR        folder that becomes /data (default: $MEDCALIB_DATA_DIR, else the project's data/)
  --image NAME      image to run (default: medcalib:latest)
  --foreground      stay attached and show the output (default for a command)
  --background      return at once (default for a bundle)

COMMAND is a script of the project, such as generate_bundle.py, or a program of the image, such as medcalib or python; the
options of this script stand before it. Options may also be written --option=value.
TEXT
}

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 2
}

project_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
mode=
bundle=
gpu=
num_gpus=
cpus=
shm_size=32g
seed=
data_dir=${MEDCALIB_DATA_DIR:-}
image=medcalib:latest
foreground=
variant=
command=()
rest=()
engine_options=()

while (($#)); do
    case ${1%%=*} in
        --mode | --bundle | --gpu | --cpus | --shm-size | --shm_size | --seed | --data | --image)
            option=${1%%=*}
            if [[ $1 == *=* ]]; then
                value=${1#*=}
            else
                value=${2-}
                (($# == 1)) || shift
            fi
            shift
            [[ -n $value && $value != --* ]] || fail "Option $option needs a value: see scripts/docker_run.sh --help."
            case $option in
                --mode) mode=$value ;;
                --bundle) bundle=$value ;;
                --gpu) gpu=$value ;;
                --cpus) cpus=$value ;;
                --shm-size | --shm_size) shm_size=$value ;;
                --seed) seed=$value ;;
                --data) data_dir=$value ;;
                --image) image=$value ;;
            esac
            ;;
        --foreground | --background)
            [[ $1 != *=* ]] || fail "Option ${1%%=*} takes no value."
            foreground=true
            [[ $1 == --foreground ]] || foreground=false
            shift
            ;;
        --help | -h)
            usage
            exit 0
            ;;
        --)
            shift
            engine_options=("$@")
            break
            ;;
        -* | "")
            # A debug run keeps its results apart, so it may run beside the real one.
            [[ $1 != --debug ]] || variant=_debug
            [[ ${1%%=*} != --num_gpus ]] || num_gpus=given
            rest+=("$1")
            shift
            ;;
        *)
            # After an option of run_bundle.py, a word is that option's value.
            if [[ -z $mode$bundle ]] && ((${#rest[@]} == 0)); then
                while (($#)) && [[ $1 != -- ]]; do
                    command+=("$1")
                    shift
                done
            else
                rest+=("$1")
                shift
            fi
            ;;
    esac
done

# Values go to docker, where one that begins with a dash would be an option.
[[ $image =~ ^[A-Za-z0-9][A-Za-z0-9._/:@-]*$ ]] || fail "--image is '$image': give the name of an image, such as medcalib:latest."
[[ $shm_size =~ ^[0-9]+[bkmgBKMG]?$ ]] || fail "--shm-size is '$shm_size': give a size such as 8g."
[[ $gpu =~ ^([A-Za-z0-9][A-Za-z0-9:/.-]*(,[A-Za-z0-9][A-Za-z0-9:/.-]*)*)?$ ]] || fail "--gpu is '$gpu': give GPU numbers such as 0 or 0,1, or all."
[[ $cpus =~ ^([0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*)?$ ]] || fail "--cpus is '$cpus': give cores such as 0-5 or 0,2,4."
[[ ${#engine_options[@]} -eq 0 || ${engine_options[0]} == -* ]] || fail "After -- stand options of docker, such as --network none, but there is '${engine_options[0]}'."

if ((${#command[@]})); then
    [[ -z $seed ]] || fail "--seed stands before ${command[0]}, but is for a bundle: give it after the command."
    if [[ ${command[0]} == *.py ]]; then
        [[ ${command[0]} != "$project_dir"/* ]] || command[0]=${command[0]#"$project_dir"/}
        [[ -f $project_dir/${command[0]} ]] || fail "There is no '${command[0]}' in '$project_dir': give a script of the project, such as generate_bundle.py."
        command=(python "${command[@]}")
    elif [[ ! ${command[0]} =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]]; then
        fail "'${command[0]}' is neither a Python script of the project nor the name of a program."
    fi
    foreground=${foreground:-true}
else
    [[ -n $mode ]] || fail "Option --mode is missing: give train, inference_pred or inference_eval, or a command such as generate_bundle.py."
    [[ -n $bundle ]] || fail "Option --bundle is missing: give the name of a bundle under bundles/."
    case $mode in
        train | inference_pred | inference_eval) ;;
        *) fail "Unknown mode '$mode': give train, inference_pred or inference_eval." ;;
    esac
    [[ $bundle != -* ]] || fail "--bundle is '$bundle': give the name of a bundle under bundles/."
    seed=${seed:-12345}
    if [[ ! $seed =~ ^0*[0-9]{1,10}$ ]] || ((10#$seed > 4294967295)); then
        fail "--seed is '$seed': give a whole number from 0 to 4294967295."
    fi
    seed=$((10#$seed))
    foreground=${foreground:-false}
fi

if command -v docker > /dev/null; then
    engine=docker
elif command -v podman > /dev/null; then
    engine=podman
else
    fail "docker was not found on PATH: install it from https://docs.docker.com/engine/install, or podman."
fi

# The container sees the project and nothing around it, under another path.
if [[ $bundle == */* ]]; then
    [[ -d $bundle || $bundle == /* ]] || bundle=$project_dir/$bundle
    bundle=$(realpath --canonicalize-missing "$bundle")
    [[ $bundle == "$project_dir"/* ]] || fail "Bundle '$bundle' lies outside of '$project_dir', where the container cannot see it: move it to bundles/."
    bundle=${bundle#"$project_dir"/}
    bundle=${bundle#bundles/}
fi
if [[ -n $bundle && ! -d $project_dir/bundles/$bundle && ! -d $project_dir/$bundle ]]; then
    printf "warning: there is no bundle '%s' in '%s' yet.\n" "$bundle" "$project_dir/bundles" >&2
fi

if [[ -z $data_dir ]]; then
    data_dir=$project_dir/data
    mkdir -p "$data_dir"
fi
[[ -d $data_dir ]] || fail "The data folder '$data_dir' does not exist: give an existing one with --data."
data_dir=$(cd -- "$data_dir" && pwd -P)
for folder in "$project_dir" "$data_dir"; do
    [[ $folder != *[,\"]* ]] || fail "docker cannot mount '$folder': choose a path without commas and quotes."
done
# A run shares its work among several GPUs when it is told to.
if [[ -n $gpu && -z $num_gpus ]] && ((${#command[@]} == 0)); then
    if [[ $gpu == all ]]; then
        num_gpus=$(nvidia-smi --list-gpus 2> /dev/null | grep -c . || true)
        ((num_gpus)) || fail "--gpu is all, but nvidia-smi does not say how many GPUs there are: name them, as in --gpu 0,1."
    else
        ids=${gpu//[!,]/}
        num_gpus=$((${#ids} + 1))
    fi
    ((num_gpus == 1)) || rest+=(--num_gpus "$num_gpus")
fi

# Under sudo, the caller is the one who typed the command. What the container writes belongs to them.
user_id=${SUDO_UID:-$(id -u)}
group_id=${SUDO_GID:-$(id -g)}
user=${SUDO_USER:-$(id -un 2> /dev/null || echo "$user_id")}

if ((${#command[@]})); then
    label=${command[1]:-${command[0]}}
    [[ ${command[0]} == python || ${command[0]} == medcalib ]] || label=${command[0]}
    label=${label##*/}
    name=${user}_${label%.py}_$(date +%Y%m%d_%H%M%S)_$$
else
    name=${user}_${bundle##*/}_${mode}_seed_$seed$variant
    command=(python run_bundle.py --bundle "$bundle" --mode "$mode" --seed "$seed" "${rest[@]}")
fi
name=${name//[^A-Za-z0-9_.-]/_}
# docker wants a letter or a digit first
name=${name/#[^A-Za-z0-9]/u}

# A finished container keeps its name, for the sake of its log; a new run of the same takes over.
found=$("$engine" container inspect --format '{{.State.Running}} {{index .Config.Labels "medcalib.user"}}' "$name" 2> /dev/null || true)
case $found in
    "") ;;
    "true "*) fail "Container '$name' is running already: follow it with '$engine logs -f $name' or stop it with '$engine stop $name'." ;;
    "false $user_id") "$engine" container rm "$name" > /dev/null ;;
    *) fail "Container '$name' is not yours: have its owner remove it with '$engine rm $name'." ;;
esac

arguments=(
    --name "$name"
    --label "medcalib.user=$user_id"
    --init
    --env HOME=/tmp
    --env "USER=$user"
    --shm-size "$shm_size"
    --mount "type=bind,source=$project_dir,target=/workspace/medcalib"
    --mount "type=bind,source=$data_dir,target=/data"
)
if "$engine" --version 2> /dev/null | grep -qi podman; then
    # Without --userns, whoever starts a rootless container is root in it, and any other user there is nobody outside.
    arguments+=(--user "$user_id:$group_id" --security-opt label=disable)
    [[ $user_id == 0 ]] || arguments+=(--userns keep-id --group-add keep-groups)
elif [[ $("$engine" info --format '{{.SecurityOptions}}' 2> /dev/null || true) == *rootless* ]]; then
    # Whoever starts a rootless container is root in it.
    arguments+=(--user 0:0)
else
    arguments+=(--user "$user_id:$group_id")
    # Data may be readable for a group only.
    for group in $(id -G "$user" 2> /dev/null || true); do
        [[ $group == "$group_id" ]] || arguments+=(--group-add "$group")
    done
fi
if [[ -n $gpu ]]; then
    if "$engine" --version 2> /dev/null | grep -qi podman; then
        for device in ${gpu//,/ }; do
            arguments+=(--device "nvidia.com/gpu=$device")
        done
    elif [[ $gpu == all ]]; then
        arguments+=(--gpus all)
    else
        # The inner quotes are for docker, which would otherwise split the list at its commas.
        arguments+=(--gpus "\"device=$gpu\"")
    fi
fi
if [[ -n $cpus ]]; then
    arguments+=(--cpuset-cpus "$cpus")
fi
arguments+=("${engine_options[@]}" "$image" "${command[@]}")

if $foreground; then
    if [[ -t 0 && -t 1 ]]; then
        arguments=(--interactive --tty "${arguments[@]}")
    fi
    exec "$engine" run --rm "${arguments[@]}"
fi
"$engine" run --detach "${arguments[@]}" > /dev/null
cat << TEXT
Started $name in the background.
  follow: $engine logs -f $name
  stop:   $engine stop $name
TEXT
