#!/usr/bin/env bash
# Run a bundle in the container that scripts/docker_build.sh builds.
set -euo pipefail

usage() {
    cat << 'TEXT'
Usage: scripts/docker_run.sh --mode MODE --bundle BUNDLE [options] [anything else goes to run_bundle.py]

  --mode MODE       train, inference_pred or inference_eval
  --bundle BUNDLE   name of a bundle under bundles/, or its path
  --gpu IDS         GPUs such as 0, 0,1 or all (default: none, it runs on the CPU)
  --cpus LIST       processor cores such as 0-5 or 0,2,4 (default: all)
  --shm-size SIZE   shared memory for the data loaders (default: 32g)
  --seed SEED       seed of the run (default: 12345)
  --data DIR        folder that becomes /data (default: $MEDCALIB_DATA_DIR, else the project's data/)
  --image NAME      image to run (default: medcalib:latest)
  --foreground      stay attached and show the output

Options may also be written --option=value. Without --foreground the container runs in the background.
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
cpus=
shm_size=32g
seed=12345
data_dir=${MEDCALIB_DATA_DIR:-}
image=medcalib:latest
foreground=false
variant=
rest=()

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
        --foreground)
            foreground=true
            shift
            ;;
        --help | -h)
            usage
            exit 0
            ;;
        *)
            # A debug run keeps its results apart, so it may run beside the real one.
            [[ $1 != --debug ]] || variant=_debug
            rest+=("$1")
            shift
            ;;
    esac
done

[[ -n $mode ]] || fail "Option --mode is missing: give train, inference_pred or inference_eval."
[[ -n $bundle ]] || fail "Option --bundle is missing: give the name of a bundle under bundles/."
case $mode in
    train | inference_pred | inference_eval) ;;
    *) fail "Unknown mode '$mode': give train, inference_pred or inference_eval." ;;
esac
[[ $seed =~ ^[0-9]+$ ]] || fail "--seed is '$seed': give a whole number that is not negative."
[[ $gpu =~ ^([A-Za-z0-9:/.-]+(,[A-Za-z0-9:/.-]+)*)?$ ]] || fail "--gpu is '$gpu': give GPU numbers such as 0 or 0,1, or all."
[[ $cpus =~ ^([0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*)?$ ]] || fail "--cpus is '$cpus': give cores such as 0-5 or 0,2,4."
command -v docker > /dev/null || fail "docker was not found on PATH: install it from https://docs.docker.com/engine/install."

# The container sees the project and nothing around it, under another path.
if [[ $bundle == */* ]]; then
    [[ -d $bundle || $bundle == /* ]] || bundle=$project_dir/$bundle
    bundle=$(realpath --canonicalize-missing "$bundle")
    [[ $bundle == "$project_dir"/* ]] || fail "Bundle '$bundle' lies outside of '$project_dir', where the container cannot see it: move it to bundles/."
    bundle=${bundle#"$project_dir"/}
    bundle=${bundle#bundles/}
fi
if [[ ! -d $project_dir/bundles/$bundle && ! -d $project_dir/$bundle ]]; then
    printf "warning: there is no bundle '%s' in '%s' yet.\n" "$bundle" "$project_dir/bundles" >&2
fi

if [[ -z $data_dir ]]; then
    data_dir=$project_dir/data
    mkdir -p "$data_dir"
fi
[[ -d $data_dir ]] || fail "The data folder '$data_dir' does not exist: give an existing one with --data."
data_dir=$(cd "$data_dir" && pwd -P)
for folder in "$project_dir" "$data_dir"; do
    [[ $folder != *[,\"]* ]] || fail "docker cannot mount '$folder': choose a path without commas and quotes."
done

name=${bundle##*/}_${mode}_seed_$seed$variant
name=${name//[^A-Za-z0-9_.-]/_}

# A finished container keeps its name, for the sake of its log; a new run of the same takes over.
case $(docker container inspect --format '{{.State.Running}}' "$name" 2> /dev/null || true) in
    true) fail "Container '$name' is running already: follow it with 'docker logs -f $name' or stop it with 'docker stop $name'." ;;
    false) docker container rm "$name" > /dev/null ;;
esac

arguments=(
    --name "$name"
    --init
    --shm-size "$shm_size"
    --mount "type=bind,source=$project_dir,target=/workspace/medcalib"
    --mount "type=bind,source=$data_dir,target=/data"
)
if [[ $gpu == all ]]; then
    arguments+=(--gpus all)
elif [[ -n $gpu ]]; then
    # The inner quotes are for docker, which would otherwise split the list at its commas.
    arguments+=(--gpus "\"device=$gpu\"")
fi
if [[ -n $cpus ]]; then
    arguments+=(--cpuset-cpus "$cpus")
fi
command=(python run_bundle.py --bundle "$bundle" --mode "$mode" --seed "$seed" "${rest[@]}")

if $foreground; then
    if [[ -t 0 && -t 1 ]]; then
        arguments+=(--interactive --tty)
    fi
    exec docker run --rm "${arguments[@]}" "$image" "${command[@]}"
fi
docker run --detach "${arguments[@]}" "$image" "${command[@]}" > /dev/null
cat << TEXT
Started $name in the background.
  follow: docker logs -f $name
  stop:   docker stop $name
TEXT
