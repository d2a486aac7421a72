#!/bin/sh
# SPDX-License-Identifier: AGPL-3.0-or-later
# Starts Orthanc in the container. Our own configuration lets in one user, who must have a password;
# another configuration folder or file, given as the container's command, takes care of that itself.
set -eu

refuse() { echo "orthanc-ups: $*" >&2; exit 64; }

if [ "$*" = /etc/orthanc-ups ] && grep -q ORTHANC_UPS_PASSWORD /etc/orthanc-ups/*.json; then
    [ -n "${ORTHANC_UPS_PASSWORD:-}" ] || refuse "set ORTHANC_UPS_PASSWORD, the password of the user 'admin'"
    # It is put into the text of a JSON file.
    case "$ORTHANC_UPS_PASSWORD" in
        *[\"\\\$]*) refuse "ORTHANC_UPS_PASSWORD may not contain \" or \\ or \$" ;;
    esac
fi
exec Orthanc "$@"
