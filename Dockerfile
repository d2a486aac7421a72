# SPDX-License-Identifier: AGPL-3.0-or-later
# Orthanc of a Debian suite with the plugin. `docker/compose.yml` shows how it is run.
ARG SUITE=forky

FROM debian:${SUITE}-slim AS dependencies
ARG DEBIAN_FRONTEND=noninteractive
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-pip \
    && rm -rf /var/lib/apt/lists/*
COPY requirements.txt /tmp/
RUN python3 -m pip install --no-cache-dir --root-user-action ignore --only-binary=:all: \
    --target /opt/orthanc-ups/site --requirement /tmp/requirements.txt

FROM debian:${SUITE}-slim
LABEL org.opencontainers.image.title="orthanc-ups" \
      org.opencontainers.image.description="Orthanc as a DICOM Unified Procedure Step (UPS) worklist manager" \
      org.opencontainers.image.licenses="AGPL-3.0-or-later"
ARG DEBIAN_FRONTEND=noninteractive
# python3-minimal is for the health check; en_US.UTF-8 is the locale that Orthanc asks for.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
       ca-certificates locales orthanc orthanc-dicomweb orthanc-python python3-minimal \
    && rm -rf /var/lib/apt/lists/* \
    && localedef -i en_US -f UTF-8 en_US.UTF-8 \
    && groupadd --gid 4243 orthanc-ups \
    && useradd --uid 4243 --gid 4243 --no-create-home --home-dir /var/lib/orthanc-ups orthanc-ups \
    && install --directory --owner 4243 --group 4243 --mode 750 /var/lib/orthanc-ups
COPY --from=dependencies /opt/orthanc-ups/site /opt/orthanc-ups/site
COPY LICENSE /opt/orthanc-ups/
COPY plugin /opt/orthanc-ups/plugin
COPY docker/entrypoint.sh docker/healthcheck.py /opt/orthanc-ups/docker/
COPY orthanc.json docker/container.json /etc/orthanc-ups/
RUN python3 -m compileall -q /opt/orthanc-ups/plugin

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
ENTRYPOINT ["/opt/orthanc-ups/docker/entrypoint.sh"]
CMD ["/etc/orthanc-ups"]
