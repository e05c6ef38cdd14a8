#!/bin/sh
# Makes docker.io/library/python:3.11-slim from Debian's packages, for builds where no image
# registry is in reach. Debian 12 has Python 3.11. Needs root, debootstrap and podman or docker:
#   images/bootstrap-base.sh [podman|docker]
set -eu
engine=${1:-podman}
suite=bookworm
name=docker.io/library/python:3.11-slim
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 '/debian/\?$')
debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$suite" "$root" "$mirror"
# As in the official image: `python` on the path, and no package lists or documentation.
ln -s python3 "$root/usr/bin/python"
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/usr/share/doc/* "$root"/usr/share/man/*
tar -C "$root" -c . | "$engine" import --change 'CMD ["python3"]' - "$name"
