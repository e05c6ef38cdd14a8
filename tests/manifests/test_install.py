"""docs/install.md: its commands are run in their order, or say why not."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from trimgate.cli import _parser

ROOT = Path(__file__).parents[2]
REASONS = (
    "needs a cluster",
    "needs a package index",
    "needs a container engine; .ci/images builds them, and tests/containers runs them",
)


class Block(NamedTuple):
    """Commands of the page; `reason` says why they are not run."""

    text: str
    reason: str | None


def blocks() -> list[Block]:
    page = (ROOT / "docs/install.md").read_text()
    found = re.findall(r"(?:<!-- not run: ([^\n]*) -->\n)?```sh\n(.*?)```\n", page, re.DOTALL)
    return [Block(text, reason or None) for reason, text in found]


def commands(text: str) -> list[list[str]]:
    """The simple commands of a block that is not run; heredocs are left out."""
    text = re.sub(r"<<'YAML'\n.*?\nYAML\n", "\n", text, flags=re.DOTALL).replace("\\\n", " ")
    return [shlex.split(line, comments=True) for line in text.splitlines() if line.strip()]


def test_every_block_is_run_or_says_why_not():
    page = (ROOT / "docs/install.md").read_text()
    assert len(blocks()) == page.count("```sh") > 10
    reasons = [block.reason for block in blocks() if block.reason]
    assert set(reasons) == set(REASONS)
    assert len([block for block in blocks() if block.reason is None]) > len(reasons)


def test_what_is_not_run_would_be_understood():
    """Folders are there, and trimgate takes the arguments."""
    seen = set()
    for block in blocks():
        for command in commands(block.text) if block.reason else ():
            seen.add(command[0])
            if command[0] == "trimgate":
                _parser().parse_args(command[1:])
            elif command[:2] in (["kubectl", "apply"], ["kubectl", "delete"]) and "-k" in command:
                folder = command[command.index("-k") + 1]
                assert (ROOT / folder / "kustomization.yaml").is_file(), folder
            elif command[0] == "make":
                assert re.search(rf"^{command[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"trimgate", "kubectl", "make"} <= seen


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.pipeline
def test_it_is_run(cancer, tmp_path):
    shutil.copytree(ROOT / "manifests", tmp_path / "manifests")
    shutil.copy(cancer / "model.skops", tmp_path / "fraud.skops")
    shutil.copy(cancer / "rows.parquet", tmp_path / "rows.parquet")
    git = ("git", "-c", "init.defaultBranch=main")
    subprocess.run([*git, "init", "--quiet", "--bare", tmp_path / "models.git"], check=True)
    # Servers that are not here, and a store; the recipe is the quickest one.
    here = {
        "http://mlflow:5000": "sqlite:///mlflow/mlflow.db",
        "store: s3://models": f"store: {tmp_path / 'store'}",
        "https://git.example.com/team/models.git": str(tmp_path / "models.git"),
    }
    config = tmp_path / "optimize.yaml"
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TRIMGATE_GIT_TOKEN": "",
    }
    for block in blocks():
        if block.reason:
            continue
        text = block.text
        for there, replaced in here.items():
            text = text.replace(there, replaced)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text], cwd=tmp_path, env=environment,
            capture_output=True, text=True, check=False, timeout=500,
        )  # fmt: skip
        assert done.returncode == 0, f"{block.text}\n{done.stdout}{done.stderr}"
        if "recipes: default" in config.read_text():
            quick = "recipes: [{steps: [{technique: optimize_graph}]}]\nbenchmark: " + (
                "{seconds: 1.5, processes: 1, min_rounds: 20, control_tolerance: 0.5}\n"
            )
            config.write_text(re.sub(r"recipes: default.*\n", quick, config.read_text()))

    def at(revision: str, path: str) -> dict:
        shown = subprocess.run(
            ["git", "-C", tmp_path / "models.git", "show", f"{revision}:{path}"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return yaml.safe_load(shown.stdout)

    released = at("main", "overlays/staging/fraud/release.yaml")
    uri = released["spec"]["predictor"]["model"]["storageUri"]
    assert uri.startswith(f"file://{tmp_path}/store/")
    branches = subprocess.run(
        ["git", "-C", tmp_path / "models.git", "branch", "--format=%(refname:short)"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    (proposed,) = (name for name in branches if name.startswith("trimgate/production/fraud-"))
    wanted = at(proposed, "overlays/production/fraud/release.yaml")
    assert wanted["spec"]["predictor"]["model"]["storageUri"] == uri

    registry = "image: registry.example.com/team/trimgate/python-"
    for file in ("local.yaml", "staging.yaml", "production.yaml", "pipeline.yaml"):
        text = (tmp_path / file).read_text()
        assert registry in text, file
        assert "image: trimgate/" not in text, file
    kinds = [o["kind"] for o in yaml.safe_load_all((tmp_path / "production.yaml").read_text())]
    assert "ServiceMonitor" in kinds
    kinds = [o["kind"] for o in yaml.safe_load_all((tmp_path / "staging.yaml").read_text())]
    assert "CronJob" in kinds
