# syntax=docker/dockerfile:1
ARG BASE_IMAGE=nvidia/cuda:13.0.1-base-ubuntu24.04
# hadolint ignore=DL3006
FROM ${BASE_IMAGE}

SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# The distribution's mirror keeps only the newest build of each package, so a pinned one would soon be gone.
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        ca-certificates git python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "BASE_IMAGE must offer Python 3.11 or newer")'

ENV PATH=/opt/venv/bin:${PATH}

# Torch comes first and from an index of its own: the wheels bring their CUDA libraries along, and the lock file's own
# index options may point to the build without CUDA. PyPI's wheel of this version is built for CUDA 13.0.
ARG TORCH_INDEX_URL
COPY requirements.lock /tmp/requirements.lock
RUN python3 -m venv /opt/venv \
    && sed -nE 's/^(torch==[^+; ]+).*/\1/p' /tmp/requirements.lock > /tmp/torch.txt \
    && sed -E '/^(torch==|-)/d' /tmp/requirements.lock > /tmp/others.txt \
    && grep -q . /tmp/torch.txt \
    && pip install --no-cache-dir ${TORCH_INDEX_URL:+--index-url="${TORCH_INDEX_URL}"} --requirement /tmp/torch.txt \
    && pip install --no-cache-dir --constraint /tmp/torch.txt --requirement /tmp/others.txt \
    && python -c 'import torch; print("torch", torch.__version__, "for CUDA", torch.version.cuda)' \
    && rm /tmp/requirements.lock /tmp/torch.txt /tmp/others.txt

# Whatever a run writes into the mounted project then belongs to the one who started it. A base image may have given the
# ids away already: its user goes, its group is shared.
ARG USER_ID=1000
ARG GROUP_ID=1000
RUN if [ "${USER_ID}" -eq 0 ]; then echo "USER_ID must not be that of root" >&2; exit 1; fi \
    && taken="$(getent passwd "${USER_ID}" | cut --delimiter=: --fields=1 || true)" \
    && if [ -n "${taken}" ]; then userdel "${taken}"; fi \
    && if ! getent group "${GROUP_ID}" > /dev/null; then groupadd --gid "${GROUP_ID}" medcalib; fi \
    && useradd --no-log-init --create-home --shell /bin/bash --uid "${USER_ID}" --gid "${GROUP_ID}" medcalib \
    && install --directory --owner="${USER_ID}" --group="${GROUP_ID}" /workspace/medcalib /data

ENV PYTHONPATH=/workspace/medcalib/src \
    PYTHONUNBUFFERED=1 \
    MEDCALIB_DATA_DIR=/data

USER ${USER_ID}:${GROUP_ID}
WORKDIR /workspace/medcalib
CMD ["bash"]
