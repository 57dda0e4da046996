# Three images: `gateway`, small and without torch, for a NIM; `clip` with torch for CUDA and the bundled model; and `bulk`,
# which is `clip` with Ray, for `vecgate bulk` on a cluster.
#
#   docker build --target gateway --tag vecgate/gateway:0.1.0 .
#   docker build --target clip --tag vecgate/clip:0.1.0 .
#   docker build --target bulk --tag vecgate/bulk:0.1.0 .
#
# CONTRIBUTING.md has the commands of a release, which others can repeat layer for layer.
#
# BASE_IMAGE is any image with Python 3.11 or newer as python3 and its module venv; builder and result share it. A tag may
# mean another image tomorrow, so a build that states its REVISION has to name its base by digest, too.
# A pip.conf for a mirror or a proxy's certificate goes in as the secret `pip_conf`, and stays in no layer.
ARG BASE_IMAGE=python:3.12-slim-bookworm

FROM ${BASE_IMAGE} AS tools
ARG BASE_IMAGE
ARG REVISION=unknown
RUN case "${REVISION} ${BASE_IMAGE}" in \
      "unknown "* | *@sha256:*) ;; \
      *) echo "a build of revision ${REVISION} needs its base by digest: --build-arg BASE_IMAGE=${BASE_IMAGE}@sha256:..." >&2; exit 1 ;; \
    esac
WORKDIR /build
COPY requirements-image.txt ./
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    python3 -m venv /opt/tools \
    && /opt/tools/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --requirement requirements-image.txt
COPY pyproject.toml README.md LICENSE ./
COPY service service
COPY embedders embedders
COPY protos/pyproject.toml protos/README.md protos/LICENSE protos/
COPY protos/vecgate protos/vecgate
RUN /opt/tools/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --no-index --wheel-dir /build/wheels ./protos .

# Compiled files that are checked by the time of their source would be stale once the image has been pushed, which rounds
# times; where nothing can be written they would be compiled again at each start. One process compiles all, with one seed of
# hashes, because the bytes depend on both.
FROM tools AS gateway-environment
COPY requirements-gateway.txt ./
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    python3 -m venv --without-pip /opt/vecgate \
    && /opt/tools/bin/pip --python /opt/vecgate/bin/python install --no-cache-dir --disable-pip-version-check \
        --no-compile --require-hashes --requirement requirements-gateway.txt \
    && /opt/tools/bin/pip --python /opt/vecgate/bin/python install --no-cache-dir --disable-pip-version-check \
        --no-compile --no-deps --no-index /build/wheels/*.whl \
    && rm -r /opt/vecgate/lib/python3*/site-packages/embedders/models \
    && /opt/tools/bin/cyclonedx-py environment --output-reproducible --output-file /opt/vecgate/sbom.cdx.json /opt/vecgate/bin/python \
    && PYTHONHASHSEED=0 /opt/vecgate/bin/python -m compileall -q -f --invalidation-mode unchecked-hash /opt/vecgate/lib

# torch loads some of its own tests' files; one of them only newer versions of Python can read.
FROM tools AS clip-environment
COPY requirements-clip.txt ./
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    python3 -m venv --without-pip /opt/vecgate \
    && /opt/tools/bin/pip --python /opt/vecgate/bin/python install --no-cache-dir --disable-pip-version-check \
        --no-compile --require-hashes --requirement requirements-clip.txt \
    && /opt/tools/bin/pip --python /opt/vecgate/bin/python install --no-cache-dir --disable-pip-version-check \
        --no-compile --no-deps --no-index /build/wheels/*.whl \
    && /opt/tools/bin/cyclonedx-py environment --output-reproducible --output-file /opt/vecgate/sbom.cdx.json /opt/vecgate/bin/python \
    && PYTHONHASHSEED=0 /opt/vecgate/bin/python -m compileall -q -f --invalidation-mode unchecked-hash \
        -x 'torch/testing/_internal/py312' /opt/vecgate/lib

FROM tools AS bulk-environment
COPY requirements-bulk.txt ./
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    python3 -m venv --without-pip /opt/vecgate \
    && /opt/tools/bin/pip --python /opt/vecgate/bin/python install --no-cache-dir --disable-pip-version-check \
        --no-compile --require-hashes --requirement requirements-bulk.txt \
    && /opt/tools/bin/pip --python /opt/vecgate/bin/python install --no-cache-dir --disable-pip-version-check \
        --no-compile --no-deps --no-index /build/wheels/*.whl \
    && /opt/tools/bin/cyclonedx-py environment --output-reproducible --output-file /opt/vecgate/sbom.cdx.json /opt/vecgate/bin/python \
    && PYTHONHASHSEED=0 /opt/vecgate/bin/python -m compileall -q -f --invalidation-mode unchecked-hash \
        -x 'torch/testing/_internal/py312' /opt/vecgate/lib

FROM ${BASE_IMAGE} AS runtime
ARG BASE_IMAGE
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=unknown
# The base's own modules too, of which some bases have none compiled.
RUN PYTHONHASHSEED=0 python3 -m compileall -q -f --invalidation-mode unchecked-hash -x '/tests?/' \
    "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
LABEL org.opencontainers.image.title="Vecgate" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}"
# The root file system is read-only where it runs, so nothing is ever compiled there, and home is the one folder that
# can be written. In a container, loopback would be an address that nobody reaches; without TLS the servers do not start
# until VECGATE_SERVER__ALLOW_PLAINTEXT asks for that.
ENV PATH=/opt/vecgate/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    HF_HUB_OFFLINE=1 \
    HF_HUB_DISABLE_TELEMETRY=1 \
    TRANSFORMERS_OFFLINE=1 \
    VECGATE_SERVER__HOST=0.0.0.0 \
    VECGATE_WEB__HOST=0.0.0.0
USER 10001:10001
WORKDIR /
EXPOSE 50070 8070
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s --retries=6 CMD ["python", "-m", "service.healthcheck"]
ENTRYPOINT ["vecgate"]
CMD ["serve"]

FROM runtime AS gateway
LABEL org.opencontainers.image.description="Vecgate in front of an NVIDIA NIM, without torch"
COPY --from=gateway-environment /opt/vecgate /opt/vecgate

# KubeRay starts what it runs with bash, which the base has to have.
FROM runtime AS bulk
LABEL org.opencontainers.image.description="Vecgate with local CLIP models and Ray, for bulk jobs on a cluster"
COPY --from=bulk-environment /opt/vecgate /opt/vecgate

# Last, so that it is what a build without a target makes.
FROM runtime AS clip
LABEL org.opencontainers.image.description="Vecgate with local CLIP models on CUDA or the CPU"
COPY --from=clip-environment /opt/vecgate /opt/vecgate
