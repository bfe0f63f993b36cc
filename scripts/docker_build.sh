#!/usr/bin/env bash
# Build the image that scripts/docker_run.sh runs.
set -euo pipefail

usage() {
    cat << 'TEXT'
Usage: scripts/docker_build.sh [options] [anything else goes to docker build]

  --base_image IMAGE      base image with Python 3.11 or newer (default: see the Dockerfile)
  --torch_index_url URL   package index to take torch from (default: PyPI, whose wheel is built for CUDA 13.0)
  --tag NAME              name of the image (default: medcalib:latest)
  --target STAGE          run, or test, which also has what the tests need (default: run)

Options may also be written --option=value. One image serves all users. podman is used where docker is not installed.
TEXT
}

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 2
}

project_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
tag=medcalib:latest
target=run
build_args=()
rest=()

while (($#)); do
    case ${1%%=*} in
        --base_image | --torch_index_url | --tag | --target)
            option=${1%%=*}
            if [[ $1 == *=* ]]; then
                value=${1#*=}
            else
                value=${2-}
                (($# == 1)) || shift
            fi
            shift
            [[ -n $value && $value != --* ]] || fail "Option $option needs a value: see scripts/docker_build.sh --help."
            # Whatever begins with a dash would be an option of docker or of pip.
            [[ $value =~ ^[A-Za-z0-9][^[:space:]]*$ ]] || fail "$option is '$value': give a name without spaces that begins with a letter or a digit."
            case $option in
                --base_image) build_args+=(--build-arg "BASE_IMAGE=$value") ;;
                --torch_index_url) build_args+=(--build-arg "TORCH_INDEX_URL=$value") ;;
                --tag) tag=$value ;;
                --target) target=$value ;;
            esac
            ;;
        --user_id | --group_id)
            fail "${1%%=*} is no longer needed: one image serves all users, and the container runs as whoever starts it."
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

[[ $target == run || $target == test ]] || fail "Unknown target '$target': give run or test."
for lock in requirements.lock requirements-test.lock; do
    [[ -f $project_dir/$lock ]] || fail "'$project_dir/$lock' is missing: restore it from the repository."
done
if command -v docker > /dev/null; then
    engine=docker
elif command -v podman > /dev/null; then
    # its own format of images knows no SHELL
    engine=podman
    rest+=(--format docker)
else
    fail "docker was not found on PATH: install it from https://docs.docker.com/engine/install, or podman."
fi

exec "$engine" build --tag "$tag" --target "$target" "${build_args[@]}" "${rest[@]}" "$project_dir"
