#!/bin/sh
# Writes the lock files of the images from pyproject.toml and constraints.txt; again after each
# change of either. Needs uv (`pip install uv`):
#   images/lock.sh
set -eu
cd "$(dirname "$0")/.."
core="sklearn xgboost lightgbm tune openvino trees pipelines mlflow serving s3 signing
  postgres kserve-cluster"
torch="torch text nncf features"
server="serving s3 openvino trees tokenizer signing"

# A CPU build of torch, by the digest of the PyTorch project's wheel: PyPI's brings gigabytes of CUDA.
torch_version=2.13.0+cpu
torch_sha256=6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b

# For NVIDIA GPUs: PyPI's torch, which brings CUDA, and the ONNX Runtime that uses it.
onnxruntime_gpu=1.31.1

lock() { # file, extras
  out=images/$1; shift
  mkdir -p "$(dirname "$out")"
  extras=; for extra in "$@"; do extras="$extras --extra $extra"; done
  # shellcheck disable=SC2086 # one argument per word
  "${UV:-uv}" pip compile -q pyproject.toml $extras -c constraints.txt --generate-hashes \
    --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
    --no-emit-package trimgate --no-emit-package torch --no-annotate --no-header |
    awk '/^[a-z]/ { cuda = /^(nvidia|cuda|triton)/ } !cuda' >"$out"
}
# shellcheck disable=SC2086 # one argument per extra
{
  lock core/requirements.lock $core
  lock torch/requirements.lock $core $torch
  lock server/requirements.lock $server
}
printf 'torch==%s \\\n    --hash=sha256:%s\n' $torch_version $torch_sha256 >>images/torch/requirements.lock
extras=; for extra in $core $torch; do extras="$extras --extra $extra"; done
overrides=$(mktemp); trap 'rm -f "$overrides"' EXIT
echo "onnxruntime; sys_platform == 'none'" >"$overrides" # it would lie over the other one
mkdir -p images/gpu
# shellcheck disable=SC2086 # one argument per word
echo "onnxruntime-gpu==$onnxruntime_gpu" | "${UV:-uv}" pip compile -q pyproject.toml - $extras \
  -c constraints.txt --overrides "$overrides" --generate-hashes --python-version 3.11 \
  --python-platform x86_64-manylinux_2_28 --no-emit-package trimgate --no-annotate --no-header \
  >images/gpu/requirements.lock
echo 'setuptools>=77
cyclonedx-bom>=7' | "${UV:-uv}" pip compile -q - --generate-hashes --python-version 3.11 \
  --python-platform x86_64-manylinux_2_28 --no-annotate --no-header -o images/build.lock
