ARG BASE_IMAGE=nvidia/cuda:13.0.1-base-ubuntu24.04
# hadolint ignore=DL3006
FROM ${BASE_IMAGE} AS system

SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# The compiler and the headers of Python are for Triton, which builds the launcher of its kernels on first use.
# The distribution's mirror keeps only the newest build of each package, so a pinned one would soon be gone.
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        ca-certificates gcc git libc6-dev python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "BASE_IMAGE must offer Python 3.11 or newer")'

ENV PATH=/opt/venv/bin:${PATH}

# Torch comes from an index of its own: the wheels bring their CUDA libraries along, and the lock file's own index
# options may point to the build without CUDA. PyPI's wheel of this version is built for CUDA 13.0.
FROM system AS pins
COPY requirements.lock /tmp/requirements.lock
RUN sed -nE 's/^(torch==[^+; ]+).*/\1/p' /tmp/requirements.lock > /tmp/torch.txt \
    && sed -E '/^(torch==|-)/d' /tmp/requirements.lock > /tmp/others.txt \
    && grep -q . /tmp/torch.txt

FROM system AS run
ARG TORCH_INDEX_URL
# A layer of its own, which is made again only for another torch.
COPY --from=pins /tmp/torch.txt /opt/pins/torch.txt
RUN python3 -m venv /opt/venv \
    && pip install --no-cache-dir ${TORCH_INDEX_URL:+--index-url="${TORCH_INDEX_URL}"} --requirement /opt/pins/torch.txt \
    && python -c 'import torch; print("torch", torch.__version__, "for CUDA", torch.version.cuda)'
COPY --from=pins /tmp/others.txt /opt/pins/others.txt
RUN pip install --no-cache-dir --constraint /opt/pins/torch.txt --requirement /opt/pins/others.txt

# The project is mounted at run time, so its command is not installed, but finds it then.
RUN printf '#!/bin/sh\nexec python -m medcalib.cli "$@"\n' > /opt/venv/bin/medcalib && chmod 755 /opt/venv/bin/medcalib

# The container runs as whoever starts it, whom the image does not know: what is written outside of the mounted folders
# goes to /tmp, where everyone may write. The user is for those who name none. A base image may have given its id away.
RUN taken="$(id --name --user 1000 2> /dev/null || true)" \
    && if [ -n "${taken}" ]; then userdel "${taken}"; fi \
    && useradd --no-log-init --create-home --shell /bin/bash --user-group --uid 1000 medcalib \
    && install --directory --mode=1777 /workspace/medcalib /data

# MONAI asks for the name of the user, which a user whom the image does not know has from here alone.
ENV HOME=/tmp \
    USER=medcalib \
    MPLCONFIGDIR=/tmp/matplotlib \
    TRITON_CACHE_DIR=/tmp/triton \
    PYTHONPATH=/workspace/medcalib/src \
    PYTHONUNBUFFERED=1 \
    MEDCALIB_DATA_DIR=/data

USER 1000:1000
WORKDIR /workspace/medcalib
CMD ["bash"]

# For those who develop in the container.
FROM run AS test
USER 0:0
COPY requirements-test.lock /opt/pins/tests.txt
RUN pip install --no-cache-dir --constraint /opt/pins/torch.txt --constraint /opt/pins/others.txt \
        --requirement /opt/pins/tests.txt
ENV HOME=/home/medcalib
USER 1000:1000

FROM run
