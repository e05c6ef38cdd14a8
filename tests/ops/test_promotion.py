"""The commands about releases, on real stores and repositories."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from ops.fake_forges import TOKEN, fake_forge
from ops.git_servers import bare, git, http_server
from ops.models_to_publish import model
from report.sample_cards import passing

from trimgate import tasks
from trimgate.cli import main
from trimgate.config import PromoteSection, load_config
from trimgate.errors import InvalidInput
from trimgate.models.directory import read
from trimgate.ops.kserve import resources_for
from trimgate.ops.release import read as read_release
from trimgate.ops.release import release_path
from trimgate.report import CardInput


def finished(folder: Path, run: str, weight: float, name: str = "fraud") -> Path:
    """The folder of a run that passed, with its winner beside it."""
    directory = model(folder / "winners" / run, weight, name=name)
    card = passing(run=run, name=name, winner=read(directory))
    place = folder / "trimgate-runs" / run
    place.mkdir(parents=True)
    (place / "card.json").write_text(card.model_dump_json())
    return place


def release(folder: Path, run: str, version: str = "") -> str:
    """What the pipeline's last task does."""
    section = load_config(folder / "optimize.yaml").promote
    files = str(folder / "trimgate-runs" / run)
    settings = section.model_dump(mode="json", exclude={"store"}, exclude_none=True)
    uri = tasks.publish(
        str(folder / "winners" / run),
        files,
        store=section.store,
        settings=settings,
        version="",
        tracking_uri="",
        registered_model="",
    )
    return tasks.promote(
        uri,
        files,
        name="fraud",
        verdict="pass",
        version=version,
        store=section.store,
        environment="staging",
        settings=settings,
    )


def configure(folder: Path, **promote) -> None:
    config = {
        "name": "fraud",
        "model": {"path": "model.skops"},
        "data": {"path": "rows.parquet", "label": "fraud"},
        "mlflow": {"enabled": False},
        "promote": promote,
    }
    (folder / "optimize.yaml").write_text(yaml.safe_dump(config))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two runs, both released to the local staging."""
    folder = tmp_path_factory.mktemp("made")
    configure(folder)
    for number, run in enumerate(("one", "two"), 1):
        finished(folder, run, float(number))
    return folder


@pytest.fixture
def project(made, tmp_path, monkeypatch):
    """A copy of it, where the command is called."""
    folder = shutil.copytree(made, tmp_path / "project")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("TRIMGATE_GIT_TOKEN", raising=False)
    return folder


def call(capsys, *arguments):
    """Exit code, standard output and standard error of one command."""
    capsys.readouterr()  # what the task before it logged
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def digest(folder, run):
    return read(folder / "winners" / run).digest


def test_the_whole_story(project, capsys):
    first = release(project, "one")
    assert first.startswith((project / "trimgate-store/models/fraud").as_uri())
    assert release(project, "one") == first
    release(project, "two", "2")
    code, out, _ = call(capsys, "history", "fraud", "--environment", "staging", "--json")
    entries = json.loads(out)
    assert code == 0
    assert [e["stable"] and e["stable"]["run"] for e in entries] == ["two", "one", None]
    assert entries[0]["stable"]["version"] == "2"

    code, out, _ = call(capsys, "diff", "staging", "production", "--json")
    assert json.loads(out)["fraud"]["run"] == {"staging": "two", "production": ""}
    code, out, _ = call(capsys, "promote", "one", "--to", "production", "--json")
    promoted = json.loads(out)
    assert code == 0
    assert promoted["stable"]["storage_uri"] == first
    assert promoted["stable"]["digest"] == digest(project, "one")
    assert promoted["revision"]
    code, out, _ = call(capsys, "promote", "one", "--to", "production")
    assert out.startswith("nothing to do: production has fraud")

    code, out, _ = call(capsys, "promote", "fraud", "--to", "production", "--canary", 10, "--json")
    canary = json.loads(out)
    assert (canary["canary"]["version"], canary["traffic_percent"]) == ("2", 10)
    code, out, _ = call(capsys, "rollback", "fraud", "--environment", "production", "--json")
    assert json.loads(out)["stable"] == promoted["stable"]
    code, out, _ = call(capsys, "promote", "fraud", "--to", "production")
    assert "production has fraud v2" in out
    code, out, _ = call(capsys, "diff", "staging", "production")
    assert out == "staging and production release the same\n"
    code, out, _ = call(capsys, "rollback", "fraud", "--environment", "production")
    assert code == 0
    assert digest(project, "one")[7:19] in out
    code, out, _ = call(capsys, "history", "fraud")
    assert out.count("\n") >= 8
    repository = project / "trimgate-store" / "releases.git"
    git(repository, "fsck", "--strict")
    subject = git(repository, "log", "-1", "--format=%s", "main")
    assert subject.startswith('Revert "Promote fraud to production: v2 (')
    assert "Trimgate-Run: one" in git(repository, "log", "-1", "--format=%B", "main")


def test_a_published_uri(project, capsys):
    uri = release(project, "one")
    for what in (uri, uri.removeprefix("file://")):
        code, out, err = call(capsys, "promote", what, "--to", "production", "--json")
        assert (code, err) == (0, "")
        assert json.loads(out)["stable"]["run"] == "one"


def test_a_tampered_model_is_not_promoted(project, capsys):
    uri = release(project, "one")
    Path(uri.removeprefix("file://"), "model.onnx").write_bytes(b"evil")
    for what in ("one", "fraud", uri):
        code, out, err = call(capsys, "promote", what, "--to", "production")
        assert (code, out) == (2, "")
        assert "model.onnx" in err
        assert err.count("\n") == 1
    code, out, _ = call(capsys, "history", "fraud", "--environment", "production", "--json")
    assert [e["stable"] for e in json.loads(out)] == [None]


def test_signatures_are_asked_for(project, keys, capsys):
    uri = release(project, "one")
    configure(project, signing={"verify_key": str(keys / "a.pub")})
    code, _, err = call(capsys, "promote", uri, "--to", "production")
    assert code == 2
    assert "sign" in err
    configure(project, signing={"key": str(keys / "a.pem")})
    signed = release(project, "one")
    assert signed != uri
    assert call(capsys, "promote", signed, "--to", "production")[0] == 0


@pytest.mark.parametrize("outcome", ["fail", "inconclusive"])
def test_only_what_passed(project, capsys, outcome):
    file = project / "trimgate-runs" / "one" / "card.json"
    card = json.loads(file.read_text())
    card["verdict"]["outcome"] = outcome
    file.write_text(json.dumps(card))
    code, _, err = call(capsys, "promote", "one", "--to", "staging")
    assert code == 2
    assert f"only a model that passed the gate is promoted, and the verdict is {outcome}" in err
    with pytest.raises(InvalidInput, match="only a model that passed"):
        release(project, "one")


def test_a_configured_repository(project, tmp_path, capsys):
    """By name staging takes commits, and production a branch when no forge is known."""
    remote = bare(tmp_path / "config.git")
    configure(project, repository=str(remote), author="Bot <bot@example.org>")
    with pytest.raises(InvalidInput, match="`trimgate init-repository --name fraud` adds"):
        release(project, "one")
    code, out, _ = call(capsys, "init-repository", "--config", "optimize.yaml")
    assert code == 0
    assert "look through base/fraud/inferenceservice.yaml" in out
    code, out, _ = call(capsys, "init-repository", "--name", "fraud")
    assert "already" in out
    release(project, "one")
    code, out, _ = call(capsys, "promote", "fraud", "--to", "production")
    branch = f"trimgate/production/fraud-{digest(project, 'one')[7:19]}"
    assert f"once this is merged: open it from the branch {branch}" in " ".join(out.split())
    path = release_path("fraud", "production")
    assert read_release(git(remote, "show", f"main:{path}")).stable is None
    assert read_release(git(remote, "show", f"{branch}:{path}")).stable.run == "one"
    assert git(remote, "log", "-1", "--format=%an", branch) == "Bot\n"
    before = git(remote, "rev-parse", branch)
    call(capsys, "promote", "fraud", "--to", "production")
    assert git(remote, "rev-parse", branch) == before
    code, out, _ = call(capsys, "promote", "fraud", "--to", "production", "--commit", "--json")
    assert json.loads(out)["branch"] is None
    assert read_release(git(remote, "show", f"main:{path}")).stable.run == "one"
    release(project, "two")
    call(capsys, "promote", "fraud", "--to", "production", "--commit")
    code, out, _ = call(
        capsys, "rollback", "fraud", "--environment", "production", "--pull-request"
    )
    assert "trimgate/production/fraud-rollback" in out
    assert read_release(git(remote, "show", f"main:{path}")).stable.run == "two"
    assert not (project / "trimgate-store" / "releases.git").exists()


def test_the_scaffold_serves_as_the_config_says_and_as_was_measured(project, tmp_path, capsys):
    remote = bare(tmp_path / "config.git")
    raw = yaml.safe_load(Path("optimize.yaml").read_text())
    raw["promote"]["repository"] = str(remote)
    raw["serving"] = {
        "max_replicas": 4, "autoscaling": {"kind": "hpa", "metric": "cpu", "target": 70},
        "logger": {"url": "http://sink"},
    }  # fmt: skip
    Path("optimize.yaml").write_text(yaml.safe_dump(raw))
    code, out, _ = call(capsys, "init-repository", "--run", "one")
    assert code == 0
    assert "look through base/fraud/inferenceservice.yaml" in out
    base = yaml.safe_load(git(remote, "show", "main:base/fraud/inferenceservice.yaml"))
    predictor = base["spec"]["predictor"]
    assert (predictor["maxReplicas"], predictor["scaleMetric"]) == (4, "cpu")
    assert predictor["logger"] == {"url": "http://sink", "mode": "all"}
    card = CardInput.model_validate_json(Path("trimgate-runs/one/card.json").read_bytes())
    winner = next(c for c in card.candidates if c.name == card.selection.winner)
    measured = resources_for(winner.benchmark, threads=card.target.threads)
    assert predictor["model"]["resources"] == measured.manifest()
    assert predictor["model"]["args"] == [f"--threads={card.target.threads}"]
    budget = yaml.safe_load(git(remote, "show", "main:base/fraud/poddisruptionbudget.yaml"))
    assert budget["spec"]["maxUnavailable"] == 1
    code, _, err = call(capsys, "init-repository", "--name", "f" * 40)
    assert (code, err.count("\n")) == (2, 1)
    assert "39 is the most" in err
    assert call(capsys, "init-repository", "--run", "none")[0] == 2


@pytest.mark.parametrize("kind", ["github", "gitlab"])
def test_a_pull_request(project, tmp_path, capsys, monkeypatch, kind):
    """By HTTP to a repository that asks for a token; the card is the request's text."""
    folder = tmp_path / "remotes" / "acme" / ("" if kind == "github" else "ml")
    folder.mkdir(parents=True)
    remote = bare(folder / "models.git")
    monkeypatch.setenv("TRIMGATE_GIT_TOKEN", TOKEN)
    with http_server(tmp_path / "remotes", TOKEN) as server, fake_forge(kind) as forge:
        url = f"{server.url}/{remote.relative_to(tmp_path / 'remotes')}"
        configure(project, repository=url, forge=kind, forge_url=forge.url)
        assert call(capsys, "init-repository", "--name", "fraud")[0] == 0
        release(project, "one")
        forge.first = [(500, {}, {})]
        code, out, err = call(capsys, "promote", "fraud", "--to", "production")
        assert (code, out) == (1, "")
        assert "nothing was released (the branch trimgate/production/fraud-" in err
        code, out, _ = call(capsys, "promote", "fraud", "--to", "production", "--json")
        told = json.loads(out)
        assert code == 0
        assert told["pull_request"].endswith(("/pull/7", "/-/3"))
        (there,) = forge.there
        text = there["body" if kind == "github" else "description"]
        assert "Passed" in text
        assert there["title"].startswith("Promote fraud to production: ")
        again = json.loads(call(capsys, "promote", "one", "--to", "production", "--json")[1])
        assert again == told
        path = release_path("fraud", "production")
        assert read_release(git(remote, "show", f"main:{path}")).stable is None
        git(remote, "update-ref", "refs/heads/main", told["revision"])
        code, out, _ = call(capsys, "promote", "one", "--to", "production")
        assert out.startswith("nothing to do")
        monkeypatch.setenv("TRIMGATE_GIT_TOKEN", "expired")
        code, out, err = call(capsys, "rollback", "fraud", "--environment", "staging")
        assert (code, err.count("\n")) == (1, 1)
        assert "has expired" in err


def test_without_a_config(project, tmp_path, capsys, monkeypatch):
    uri = release(project, "one")
    remote = bare(tmp_path / "config.git")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, _, err = call(capsys, "history", "fraud")
    assert code == 2
    assert "there is no optimize.yaml here" in err
    assert call(capsys, "init-repository", "--name", "fraud", "--repository", remote)[0] == 0
    code, _, err = call(capsys, "promote", uri, "--to", "staging", "--repository", remote)
    assert (code, err) == (0, "")
    code, out, _ = call(capsys, "diff", "staging", "production", "--repository", remote)
    assert "fraud" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("promote", "one", "--to", "moon"), "there is no such environment; there are staging"),
        (("promote", "fraud", "--to", "staging"), "is the first environment"),
        (("promote", "fraud", "--to", "production"), "nothing of fraud is released in staging"),
        (("promote", "two", "--to", "staging"), "its winner is not in the store"),
        (("promote", "/none/model", "--to", "staging"), "is not the URI of a published model"),
        (("rollback", "fraud", "--environment", "staging"), "nothing of fraud was released"),
        (("rollback", "other", "--environment", "staging"), "has no overlays/staging/other"),
        (("history", "other"), "knows no such model"),
        (("diff", "staging", "moon"), "there is no such environment"),
        (("diff", "staging", "production", "--name", "other"), "knows no such model"),
        (
            ("promote", "one", "--to", "production", "--canary", "10"),
            "nothing of fraud is released",
        ),
        (("promote", "models:/fraud@champion", "--to", "staging"), "needs the registry"),
    ],
)
def test_bad_input_is_one_line(project, capsys, arguments, words):
    release(project, "one") if "one" in arguments else None
    if arguments[0] in ("rollback", "history", "diff") or arguments[1] == "fraud":
        from trimgate.ops.git import add_to_repository

        with tasks.releases_of(load_config("optimize.yaml").promote).open() as repository:
            add_to_repository(repository, "fraud", ["staging", "production"])
    code, out, err = call(capsys, *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


def test_the_section_is_checked(tmp_path):
    configure(tmp_path, repository="https://user:secret@host/a/b")
    with pytest.raises(InvalidInput, match=r"promote\.repository.*TRIMGATE_GIT_TOKEN"):
        load_config(tmp_path / "optimize.yaml")
    configure(tmp_path, store="s3://models/a")
    with pytest.raises(InvalidInput, match="needs a `repository`"):
        load_config(tmp_path / "optimize.yaml")
    with pytest.raises(InvalidInput, match="needs a `repository`"):
        tasks.releases_of(PromoteSection(store="s3://models/a"))
    configure(tmp_path, repository="../config.git", commit_key="keys/bot")
    section = load_config(tmp_path / "optimize.yaml").promote
    assert section.repository == str(tmp_path.parent / "config.git")
    assert section.commit_key == str(tmp_path / "keys" / "bot")
    for url in ("git@host:a/b.git", "https://host/a/b"):
        configure(tmp_path, repository=url)
        assert load_config(tmp_path / "optimize.yaml").promote.repository == url
    assert list(PromoteSection().environments) == ["staging", "production"]
