# SPDX-License-Identifier: AGPL-3.0-or-later
# Debian's PostgreSQL with the variables of the official image that the compose files use.
FROM debian:trixie-slim
RUN apt-get update && apt-get install --yes --no-install-recommends postgresql && rm -rf /var/lib/apt/lists/*
ENV PATH=/usr/lib/postgresql/17/bin:/usr/sbin:/usr/bin:/sbin:/bin
COPY postgresql.sh /
ENTRYPOINT ["sh", "/postgresql.sh"]
