# SPDX-License-Identifier: AGPL-3.0-or-later
# Orthanc of a Debian suite with the plugin. `docker/compose.yml` shows how to run it.
ARG SUITE=forky

FROM debian:${SUITE}-slim AS dependencies
ARG DEBIAN_FRONTEND=noninteractive
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-pip \
    && rm -rf /var/lib/apt/lists/*
COPY requirements.lock /tmp/
RUN python3 -m pip install --no-cache-dir --root-user-action ignore --only-binary=:all: --require-hashes \
    --target /opt/orthanc-ups/site --requirement /tmp/requirements.lock
COPY plugin /opt/orthanc-ups/plugin
RUN python3 -m compileall -q /opt/orthanc-ups/plugin

FROM debian:${SUITE}-slim
ARG DEBIAN_FRONTEND=noninteractive
# python3-minimal is for the entry point and the health check; en_US.UTF-8 is the locale that Orthanc requires.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
       ca-certificates locales orthanc orthanc-dicomweb orthanc-postgresql orthanc-python python3-minimal \
    && localedef -i en_US -f UTF-8 en_US.UTF-8 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/* /var/log/* \
    && groupadd --gid 4243 orthanc-ups \
    && useradd --uid 4243 --gid 4243 --no-create-home --home-dir /var/lib/orthanc-ups orthanc-ups \
    && install --directory --owner 4243 --group 4243 --mode 750 /var/lib/orthanc-ups /var/lib/orthanc-ups/storage
COPY --from=dependencies /opt/orthanc-ups /opt/orthanc-ups
COPY LICENSE CHANGELOG.md /opt/orthanc-ups/
COPY docker/entrypoint.py docker/healthcheck.py /opt/orthanc-ups/docker/
COPY orthanc.json docker/container.json /etc/orthanc-ups/

ARG VERSION=unreleased
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="orthanc-ups" \
      org.opencontainers.image.description="Orthanc as a DICOM Unified Procedure Step (UPS) worklist manager" \
      org.opencontainers.image.licenses="AGPL-3.0-or-later" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
ENV PYTHONPATH=/opt/orthanc-ups/site \
    PYTHONDONTWRITEBYTECODE=1 \
    ORTHANC_UPS_BIND=0.0.0.0
USER 4243:4243
WORKDIR /var/lib/orthanc-ups
VOLUME /var/lib/orthanc-ups
# Orthanc's REST API and Explorer, its DICOM server, UPS over DIMSE, UPS over DICOMweb
EXPOSE 8042 4242 4243 8043
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 \
    CMD ["python3", "-I", "/opt/orthanc-ups/docker/healthcheck.py"]
ENTRYPOINT ["python3", "-I", "/opt/orthanc-ups/docker/entrypoint.py"]
CMD ["/etc/orthanc-ups"]
