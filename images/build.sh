#!/bin/sh
# Builds the images with podman or docker:
#   images/build.sh [core] [torch] [server] [gpu]   the first three when none is named
# ENGINE, BASE, APT_MIRROR, PREFIX (such as registry.example.com/team/) and TAG may be set. In closed networks
# pip's own settings of this machine (index, find-links, certificate) are handed on to the build.
set -eu
cd "$(dirname "$0")/.."
engine=${ENGINE:-$(command -v podman >/dev/null && echo podman || echo docker)}
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' src/trimgate/__init__.py)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
setting() { # what pip uses here, from its variables or its files
  python3 -m pip config list 2>/dev/null |
    sed -n "s/^\(global\|install\|:env:\)\.$1='\(.*\)'/\2/p" | tail -n 1
}
set -- "${@:-core torch server}"
for image in $*; do
  arguments="--build-arg IMAGE=$image --build-arg VERSION=$version --build-arg REVISION=$revision"
  [ -z "${BASE:-}" ] || arguments="$arguments --build-arg BASE=$BASE"
  [ -z "${APT_MIRROR:-}" ] || arguments="$arguments --build-arg APT_MIRROR=$APT_MIRROR"
  index=$(setting index-url); [ -z "$index" ] || arguments="$arguments --build-arg PIP_INDEX_URL=$index"
  wheels=$(setting find-links); [ ! -d "$wheels" ] || arguments="$arguments --build-context wheels=$wheels"
  ca=$(setting cert); [ ! -f "$ca" ] || arguments="$arguments --secret id=ca,src=$ca"
  [ "$engine" != podman ] || arguments="$arguments --format docker --network host"
  echo "building ${PREFIX:-}trimgate/python-$image:${TAG:-$version} with $engine"
  # shellcheck disable=SC2086 # one argument per word
  "$engine" build -f images/Dockerfile --target "$image" $arguments \
    -t "${PREFIX:-}trimgate/python-$image:${TAG:-$version}" .
  size=$("$engine" image inspect --format '{{.Size}}' "${PREFIX:-}trimgate/python-$image:${TAG:-$version}")
  echo "python-$image: $((size / 1000000)) MB"
done
