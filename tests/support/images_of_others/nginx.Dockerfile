# SPDX-License-Identifier: AGPL-3.0-or-later
# Debian's nginx, which takes its site from where the official image does.
FROM debian:trixie-slim
RUN apt-get update && apt-get install --yes --no-install-recommends nginx-light \
    && rm -rf /var/lib/apt/lists/* /etc/nginx/sites-enabled/default
ENTRYPOINT ["nginx", "-g", "daemon off; error_log stderr;"]
