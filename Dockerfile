# syntax=docker/dockerfile:1
# CPU:  docker build -t lakelens .
# GPU:  docker build -t lakelens:gpu --build-arg BASE=rayproject/ray:2.60.0-py311-cu128 .
ARG BASE=rayproject/ray:2.60.0-py311

FROM ${BASE} AS build
WORKDIR /home/ray/lakelens
COPY --chown=ray:users pyproject.toml constraints.txt README.md LICENSE ./
COPY --chown=ray:users pipeline pipeline
COPY --chown=ray:users jobs jobs
COPY --chown=ray:users configs configs
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /home/ray/wheels .

FROM ${BASE}
COPY --from=build --chown=ray:users /home/ray/wheels /tmp/wheels
COPY --chown=ray:users constraints.txt /tmp/constraints.txt
RUN python -m pip install --no-cache-dir -c /tmp/constraints.txt /tmp/wheels/*.whl \
    && rm -r /tmp/wheels /tmp/constraints.txt \
    && lakelens --version
COPY --chown=ray:users configs /home/ray/configs
USER 1000:100
WORKDIR /home/ray
ENTRYPOINT ["lakelens"]
CMD ["--help"]
