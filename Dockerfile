# syntax=docker/dockerfile:1
# LakeLens, and a Ray node that can run it: alone, with `ray start`, under KubeRay (configs/kuberay/README.md).
#
#   docker build --target cpu --build-arg TORCH_INDEX=URL -t registry.example.com/lakelens:0.1.0-cpu .
#   docker build --target gpu -t registry.example.com/lakelens:0.1.0-gpu .
#   docker build --target tpu --build-arg TORCH_INDEX=URL -t registry.example.com/lakelens:0.1.0-tpu .
#
# TORCH_INDEX is the package index of PyTorch's CPU builds, which PyTorch's installation page names. Without it PyPI's
# torch is installed, which works everywhere and brings gigabytes of CUDA. EXTRAS are LakeLens's own.
ARG PYTHON=3.11.14-slim-bookworm

FROM python:${PYTHON} AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY pipeline pipeline
COPY jobs jobs
COPY configs configs
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

# Everything goes to /usr/local: KubeRay starts Ray in a login shell, whose PATH is /etc/profile's.
FROM python:${PYTHON} AS node
# KubeRay's probes before 1.6 use wget. Debian keeps no older version that a pin could name.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 --gid 100 --shell /bin/bash ray
ENV PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0
WORKDIR /home/ray

FROM node AS light
ARG TORCH_INDEX=
RUN --mount=type=bind,source=constraints.txt,target=/constraints.txt \
    if [ -n "$TORCH_INDEX" ]; then \
        python -m pip install --no-cache-dir --no-deps --index-url "$TORCH_INDEX" -c /constraints.txt torch; \
    fi

FROM light AS cpu
ARG EXTRAS=int8,gcs
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    --mount=type=bind,source=constraints.txt,target=/constraints.txt \
    set -- /wheels/*.whl \
    && python -m pip install --no-cache-dir -c /constraints.txt "$1[$EXTRAS]" 'ray[default]'
USER 1000:100
RUN lakelens --version && lakelens demo --help && ray job submit --help
ENTRYPOINT ["lakelens"]
CMD ["--help"]

FROM light AS tpu
ARG EXTRAS=tpu,gcs
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    --mount=type=bind,source=constraints.txt,target=/constraints.txt \
    set -- /wheels/*.whl \
    && python -m pip install --no-cache-dir -c /constraints.txt "$1[$EXTRAS]" 'ray[default]'
USER 1000:100
RUN lakelens --version && lakelens demo --help && ray job submit --help
ENTRYPOINT ["lakelens"]
CMD ["--help"]

# PyPI's torch brings CUDA; the driver is the node's, and on some nodes (GKE's) it is found by LD_LIBRARY_PATH only.
FROM node AS gpu
ARG EXTRAS=gcs
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    LD_LIBRARY_PATH=/usr/local/nvidia/lib:/usr/local/nvidia/lib64
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    --mount=type=bind,source=constraints.txt,target=/constraints.txt \
    set -- /wheels/*.whl \
    && python -m pip install --no-cache-dir -c /constraints.txt "$1[$EXTRAS]" 'ray[default]'
USER 1000:100
RUN lakelens --version && lakelens demo --help && ray job submit --help
ENTRYPOINT ["lakelens"]
CMD ["--help"]
