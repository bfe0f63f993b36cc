#!/usr/bin/env bash
# Builds the image of the Dockerfile without docker, and trains, predicts and evaluates in it.
set -euo pipefail

usage() {
    cat << 'TEXT'
Usage: scripts/check_image.sh [options] [-- options of buildah build]

Builds the Dockerfile with buildah, which needs no daemon, and generates, trains, predicts and evaluates a bundle of the
phantom in the image, on the CPU and as a user whom the image does not know. Image and results are removed afterwards.

  --base_image IMAGE      base image with Python 3.11 or newer (default: see the Dockerfile)
  --base_archive FILE     tar archive of the files of a base image, for machines that reach no registry of images:
                              mmdebstrap --variant=minbase --include=ca-certificates bookworm base.tar
  --torch_index_url URL   package index to take torch from (default: PyPI, whose wheel is built for CUDA 13.0)
  --work DIR              folder for the image, of which it takes about 10 GB, with CUDA 30 GB (default: in $TMPDIR)

How pip finds packages here is told by options of buildah, such as -- --volume "$PWD/pip.conf:/etc/pip.conf:ro"
It needs Linux, and root or what rootless buildah needs. With root and apt-get, it installs buildah where that is missing.
TEXT
}

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 2
}

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
base_image=
base_archive=
arguments=()
parent=${TMPDIR:-/tmp}
while (($#)); do
    case $1 in
        --base_image | --base_archive | --torch_index_url | --work)
            [[ -n ${2-} && $2 != -* ]] || fail "Option $1 needs a value: see scripts/check_image.sh --help."
            case $1 in
                --base_image) base_image=$2 ;;
                --base_archive) base_archive=$2 ;;
                --torch_index_url) arguments+=(--build-arg "TORCH_INDEX_URL=$2") ;;
                --work) parent=$2 ;;
            esac
            shift 2
            ;;
        --help | -h)
            usage
            exit 0
            ;;
        --)
            shift
            arguments+=("$@")
            break
            ;;
        *) fail "Unknown option '$1': see scripts/check_image.sh --help." ;;
    esac
done
[[ -z $base_image || -z $base_archive ]] || fail "Give --base_image or --base_archive, and not both."
[[ -z $base_archive || -f $base_archive ]] || fail "There is no file '$base_archive': see scripts/check_image.sh --help."
[[ -d $parent ]] || fail "The folder '$parent' does not exist: give an existing one with --work."
if ! command -v buildah > /dev/null; then
    if [[ $(id -u) != 0 ]] || ! command -v apt-get > /dev/null; then
        fail "buildah was not found on PATH: install it."
    fi
    echo "Installing buildah"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install --yes -qq --no-install-recommends buildah runc > /dev/null
fi

work=$(mktemp -d -p "$parent" medcalib_image.XXXXXX)
# chroot needs neither a runtime of containers nor control groups
export BUILDAH_ISOLATION=${BUILDAH_ISOLATION:-chroot}
image_tool() { buildah --root "$work/storage" --runroot "$work/run" "$@"; }
clean() {
    image_tool rm --all > /dev/null 2>&1 || true
    image_tool rmi --all --force > /dev/null 2>&1 || true
    chmod -R u+w "$work" 2> /dev/null || true
    rm -rf "$work" || echo "warning: '$work' could not be removed." >&2
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf '\n== %s (%s s)\n' "$1" "$SECONDS"; }

if [[ -n $base_archive ]]; then
    say "base image of $base_archive"
    base=$(image_tool from scratch)
    image_tool add --quiet "$base" "$base_archive" / > /dev/null
    base_image=localhost/medcalib_base
    image_tool commit --quiet --rm "$base" "$base_image" > /dev/null
fi
say "building the image"
# images of buildah's own format know no SHELL
image_tool build --format docker --layers=false --target run --tag localhost/medcalib_check \
    ${base_image:+--build-arg "BASE_IMAGE=$base_image"} "${arguments[@]}" "$project"
say "size of the image"
image_tool images --format '{{.Name}} {{.Size}}'

# A copy of the project as it is mounted at run time, which belongs to somebody whom the image does not know.
user=4711
mkdir "$work/project" "$work/data"
(cd "$project" && tar --exclude=./bundles --exclude=./data --exclude='./.*' --create .) | tar --extract -C "$work/project"
[[ $(id -u) != 0 ]] || chown -R "$user:$user" "$work/project" "$work/data"
chmod 755 "$work"
container=$(image_tool from localhost/medcalib_check)
inside() {
    image_tool run --user "$user:$user" --volume "$work/project:/workspace/medcalib" --volume "$work/data:/data" \
        "$container" -- "$@"
}

say "user and versions"
inside bash -c 'id; pwd; python --version; python -c "import torch; print(torch.__version__)"; medcalib --version'
say "generate"
bundle=$(inside python generate_bundle.py --data phantom --loss softl1ace_dice_ce | tail -n 1)
echo "$bundle"
for mode in train inference_pred inference_eval; do
    say "$mode"
    inside python run_bundle.py --bundle "$bundle" --mode "$mode" --debug
done
say "who owns the results"
summary=$(find "$work/project/bundles" -name summary.json | head -n 1)
[[ -n $summary ]] || { echo "error: There is no summary.json." >&2; exit 1; }
stat --format '%u %n' "$summary"
[[ $(stat --format %u "$summary") == "$user" || $(id -u) != 0 ]] || { echo "error: It is not $user's." >&2; exit 1; }
say "all is well"
