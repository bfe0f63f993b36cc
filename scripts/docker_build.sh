#!/usr/bin/env bash
# Build the image that scripts/docker_run.sh runs.
set -euo pipefail

usage() {
    cat << 'TEXT'
Usage: scripts/docker_build.sh [options] [anything else goes to docker build]

  --base_image IMAGE      base image with Python 3.11 or newer (default: see the Dockerfile)
  --torch_index_url URL   package index to take torch from (default: PyPI, whose wheel is built for CUDA 13.0)
  --tag NAME              name of the image (default: medcalib:latest)
  --user_id ID            user id inside the container (default: yours)
  --group_id ID           group id inside the container (default: yours)

Options may also be written --option=value.
TEXT
}

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 2
}

project_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
tag=medcalib:latest
# Under sudo, the caller is the one who typed the command.
user_id=${SUDO_UID:-$(id -u)}
group_id=${SUDO_GID:-$(id -g)}
build_args=()
rest=()

while (($#)); do
    case ${1%%=*} in
        --base_image | --torch_index_url | --tag | --user_id | --group_id)
            option=${1%%=*}
            if [[ $1 == *=* ]]; then
                value=${1#*=}
            else
                value=${2-}
                (($# == 1)) || shift
            fi
            shift
            [[ -n $value && $value != --* ]] || fail "Option $option needs a value: see scripts/docker_build.sh --help."
            case $option in
                --base_image) build_args+=(--build-arg "BASE_IMAGE=$value") ;;
                --torch_index_url) build_args+=(--build-arg "TORCH_INDEX_URL=$value") ;;
                --tag) tag=$value ;;
                --user_id) user_id=$value ;;
                --group_id) group_id=$value ;;
            esac
            ;;
        --help | -h)
            usage
            exit 0
            ;;
        *)
            rest+=("$1")
            shift
            ;;
    esac
done

[[ $user_id =~ ^[0-9]+$ ]] || fail "--user_id is '$user_id': give a number."
[[ $group_id =~ ^[0-9]+$ ]] || fail "--group_id is '$group_id': give a number."
((user_id != 0)) || fail "The image must not run as root: give --user_id and --group_id of whoever owns the project folder."
[[ -f $project_dir/requirements.lock ]] || fail "'$project_dir/requirements.lock' is missing: restore it from the repository."
command -v docker > /dev/null || fail "docker was not found on PATH: install it from https://docs.docker.com/engine/install."

exec docker build \
    --tag "$tag" \
    --build-arg "USER_ID=$user_id" \
    --build-arg "GROUP_ID=$group_id" \
    "${build_args[@]}" \
    "${rest[@]}" \
    "$project_dir"
