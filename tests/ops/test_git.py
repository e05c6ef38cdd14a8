import getpass
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from ops.git_servers import SSHD, bare, git, http_server, ssh_server

from trimgate.errors import InvalidInput
from trimgate.ops.git import (
    Access,
    Change,
    ConfigRepository,
    GitError,
    PushRejected,
    ReleaseLog,
    add_to_repository,
    check_access,
    init_local,
)
from trimgate.ops.kserve import validate
from trimgate.ops.release import (
    ReleasedModel,
    promote_canary,
    read,
    release_path,
    release_stable,
    set_share,
    start_canary,
)

STAGING = release_path("fraud", "staging")
TOKEN = "token-that-must-not-be-logged"


def model(digit):
    digest = digit * 64
    return ReleasedModel(
        storage_uri=f"s3://models/fraud/{digest}/", digest=f"sha256:{digest}", run=f"run-{digit}",
        verdict="pass", promoted=f"2026-11-2{int(digit, 16) % 10}T12:00:00+00:00",
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = bare(tmp_path_factory.mktemp("made") / "config.git")
    with ConfigRepository.open(Access(str(folder))) as repository:
        add_to_repository(repository, "fraud", ["staging", "production"])
    return folder


@pytest.fixture
def remote(made, tmp_path):
    """A bare repository with the model `fraud` in it."""
    return shutil.copytree(made, tmp_path / "remotes" / "config.git")


def release(access, digit, name="fraud", environment="staging"):
    with ConfigRepository.open(access) as repository:
        log = ReleaseLog(repository, name, environment)
        return log.change(lambda r: release_stable(r, model(digit)), f"Promote {digit}")


def show(remote, path=STAGING, revision="main"):
    return git(remote, "show", f"{revision}:{path}")


def count(remote):
    return int(git(remote, "rev-list", "--count", "main"))


def test_the_scaffold_builds(remote, tmp_path):
    git(tmp_path, "clone", "--quiet", remote, "work")
    release(Access(str(remote)), "a")
    git(tmp_path / "work", "pull", "--quiet")
    for folder, services in (("staging", 1), ("production", 0)):
        built = subprocess.run(
            ["kubectl", "kustomize", str(tmp_path / "work/overlays" / folder)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        found = [d for d in yaml.safe_load_all(built.stdout) if d]
        kinds = [d["kind"] for d in found]
        assert kinds == ["PodDisruptionBudget"] + services * ["InferenceService"]
        for service in found[1:]:
            validate(service)
    assert git(remote, "log", "--format=%s", "main").splitlines() == [
        "Promote a", "Add fraud for staging, production",
    ]  # fmt: skip


def test_a_second_model_is_listed_and_what_is_there_stays(remote, tmp_path):
    git(tmp_path, "clone", "--quiet", remote, "work")
    work = tmp_path / "work"
    file = work / "overlays/staging/kustomization.yaml"
    file.write_text(file.read_text() + "# ours\n")
    (work / "base/fraud/inferenceservice.yaml").write_text("# ours\nkind: InferenceService\n")
    git(work, "commit", "--quiet", "-am", "ours")
    git(work, "push", "--quiet")
    with ConfigRepository.open(Access(str(remote))) as repository:
        assert add_to_repository(repository, "fraud", ["staging"]) is None
        add_to_repository(repository, "churn", ["staging"], namespaces={"staging": "models"})
    text = show(remote, "overlays/staging/kustomization.yaml")
    assert yaml.safe_load(text)["resources"] == ["fraud", "churn"]
    assert text.endswith("# ours\n")
    assert show(remote, "base/fraud/inferenceservice.yaml").startswith("# ours")
    overlay = yaml.safe_load(show(remote, "overlays/staging/churn/kustomization.yaml"))
    assert overlay["namespace"] == "models"


def test_a_commit_says_what_it_is_about(remote):
    access = Access(str(remote), author="Release Bot <bot@example.org>")
    revision = release(access, "a")
    assert git(remote, "log", "-1", "--format=%an <%ae>|%cn|%B", revision).splitlines() == [
        "Release Bot <bot@example.org>|Release Bot|Promote a",
        "",
        "Trimgate-Model: fraud",
        "Trimgate-Environment: staging",
        "Trimgate-Run: run-a",
        f"Trimgate-Digest: {model('a').digest}",
        "Trimgate-Verdict: pass",
        f"Trimgate-Storage: {model('a').storage_uri}",
        "",
    ]
    assert git(remote, "show", "--format=", "--name-only", revision).split() == [STAGING]
    assert release(access, "a") is None
    assert count(remote) == 2


def test_git_s_own_identity_is_used(remote, monkeypatch, tmp_path):
    (tmp_path / "config").write_text("[user]\nname = Ada\nemail = ada@example.org\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    assert git(remote, "log", "-1", "--format=%an", release(Access(str(remote)), "a")) == "Ada\n"
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    made = git(remote, "log", "-1", "--format=%ae", release(Access(str(remote)), "b"))
    assert made == "trimgate@localhost\n"


def test_comments_of_people_stay(remote, tmp_path):
    release(Access(str(remote)), "a")
    git(tmp_path, "clone", "--quiet", remote, "work")
    file = tmp_path / "work" / STAGING
    file.write_bytes(
        file.read_bytes().replace(b"spec:\n", b"# do not touch, \xc3\xa9\nspec: # x\n")
    )
    git(tmp_path / "work", "commit", "--quiet", "-am", "comment")
    git(tmp_path / "work", "push", "--quiet")
    before = show(remote).splitlines()
    release(Access(str(remote)), "b")
    after = show(remote).splitlines()
    assert len(before) == len(after)
    assert sum(one != other for one, other in zip(before, after, strict=True)) == 4
    assert "# do not touch, é" in after
    assert "spec: # x" in after


def test_rollback_is_a_revert(remote):
    access = Access(str(remote))
    release(access, "a")
    first = show(remote)
    promoted = release(access, "b")
    release(access, "c", environment="production")
    with ConfigRepository.open(access) as repository:
        now, revision = ReleaseLog(repository, "fraud", "staging").rollback()
    assert now.stable == model("a")
    assert show(remote) == first
    message = git(remote, "log", "-1", "--format=%B", revision)
    assert message.startswith(f'Revert "Promote b"\n\nThis reverts commit {promoted}.')
    assert read(show(remote, release_path("fraud", "production"))).stable == model("c")


def test_rolling_back_twice_goes_further_back(remote):
    access = Access(str(remote))
    for digit in "abc":
        release(access, digit)
    with ConfigRepository.open(access) as repository:
        log = ReleaseLog(repository, "fraud", "staging")
        assert log.rollback()[0].stable == model("b")
        assert log.rollback()[0].stable == model("a")
        with pytest.raises(InvalidInput, match="nothing of fraud was released in staging before"):
            log.rollback()
        assert [e.subject for e in log.entries()][:2] == [
            'Revert "Promote b"',
            'Revert "Promote c"',
        ]
        log.change(lambda r: release_stable(r, model("d")), "Promote d")
        assert log.rollback()[0].stable == model("a")


def test_a_canary_is_dropped_and_a_promoted_one_reverted(remote):
    access = Access(str(remote))
    release(access, "a")
    stable = show(remote)
    with ConfigRepository.open(access) as repository:
        log = ReleaseLog(repository, "fraud", "staging")
        first = log.change(lambda r: start_canary(r, model("b"), 10), "Canary b")
        second = log.change(lambda r: set_share(r, 50), "Half to b")
        text = show(remote)
        assert yaml.safe_load(text)["spec"]["canary"][0]["predictor"]["model"]["modelFormat"]
        _, revision = log.rollback()
        message = git(remote, "log", "-1", "--format=%B", revision)
        assert message.startswith('Revert "Canary b"')
        assert f"reverts commit {second}.\nThis reverts commit {first}." in message
        assert show(remote) == stable
        log.change(lambda r: start_canary(r, model("b"), 10), "Canary b")
        log.change(promote_canary, "All to b")
        now, _ = log.rollback()
        # The Deployment that serves is rolled over in place.
        assert now.stable == model("a").model_copy(update={"predictor": "mbbbbbb"})


def test_given_commits_are_reverted_or_somebody_was_faster(remote):
    access = Access(str(remote))
    release(access, "a")
    text = show(remote)
    with ConfigRepository.open(access) as repository:
        log = ReleaseLog(repository, "fraud", "staging")
        log.change(lambda r: start_canary(r, model("b"), 10), "Canary b")
        log.change(lambda r: set_share(r, 50), "Half to b")
        entries = log.entries()[:2]
        assert log.revert(entries, "Breach: latency")
        assert show(remote) == text
        assert log.revert(entries, "Breach: latency") is None


RACE = """
import sys
from trimgate.ops.git import *
from trimgate.ops.release import *
url, name = sys.argv[1:]
for digit in "abc":
    with ConfigRepository.open(Access(url)) as repository:
        log = ReleaseLog(repository, name, "staging")
        model = ReleasedModel(storage_uri=f"s3://{name}/{digit}/", digest="sha256:" + digit * 64,
                              run=f"{name}-{digit}", verdict="pass", promoted=digit)
        assert log.change(lambda r: release_stable(r, model), f"Promote {name} {digit}")
"""


@pytest.mark.parametrize("kind", ["file", "http"])
def test_racing_pushes_of_two_processes(remote, kind, tmp_path):
    with ConfigRepository.open(Access(str(remote))) as repository:
        add_to_repository(repository, "churn", ["staging"])
    before = count(remote)
    with http_server(remote.parent) as server:
        url = f"{server.url}/config.git" if kind == "http" else str(remote)
        racing = [
            subprocess.Popen([sys.executable, "-c", RACE, url, name]) for name in ("fraud", "churn")
        ]
        assert [process.wait(120) for process in racing] == [0, 0]
    assert count(remote) == before + 6
    for name in ("fraud", "churn"):
        assert read(show(remote, release_path(name, "staging"))).stable.run == f"{name}-c"
    git(remote, "fsck", "--strict")


def test_an_edit_is_asked_again_after_a_race(remote):
    access = Access(str(remote))
    seen = []
    with ConfigRepository.open(access) as repository:

        def make(now):
            seen.append(now.stable)
            if len(seen) == 1:
                release(access, "a")
            return release_stable(now, model("b"))

        ReleaseLog(repository, "fraud", "staging").change(make, "Promote b")
    assert seen == [None, model("a")]
    assert git(remote, "log", "--format=%s", "main").splitlines()[:2] == ["Promote b", "Promote a"]


KILLED = """
import sys, time
from trimgate.ops.git import *
from trimgate.ops.release import *
with ConfigRepository.open(Access(sys.argv[1])) as repository:
    log = ReleaseLog(repository, "fraud", "staging")
    model = ReleasedModel(storage_uri="s3://x/", digest="sha256:" + "e" * 64, run="r",
                          verdict="pass", promoted="e")
    log.change(lambda r: release_stable(r, model), "Promote e")
"""


def test_killed_while_pushing(remote, tmp_path):
    """All or nothing, and the next one goes on; the hook holds the push until the kill."""
    access = Access(str(remote))
    release(access, "a")
    hook = remote / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/begun\nsleep 1\ntest ! -e {tmp_path}/stop\n")
    hook.chmod(0o755)
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(remote)])
    deadline = time.monotonic() + 60
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(1.5)
    # The repository may have taken the whole push before it noticed, and never a part of it.
    assert read(show(remote)).stable.run in ("run-a", "r")
    hook.unlink()
    assert release(access, "b")
    assert read(show(remote)).stable == model("b")
    git(remote, "fsck", "--strict")


def test_a_hook_refuses(remote):
    hook = remote / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'releases are frozen until Monday' >&2\nexit 1\n")
    hook.chmod(0o755)
    before = git(remote, "rev-parse", "main")
    with pytest.raises(PushRejected) as caught:
        release(Access(str(remote)), "a")
    words = str(caught.value)
    assert "the push to main was refused, and nothing was changed" in words
    assert "releases are frozen until Monday" in words
    assert "\n" not in words
    assert git(remote, "rev-parse", "main") == before


def test_a_locked_repository(remote, monkeypatch):
    monkeypatch.setattr("trimgate.ops.git._repository.ATTEMPTS", 3)
    before = git(remote, "rev-parse", "main")
    lock = remote / "refs" / "heads" / "main.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()
    with pytest.raises(PushRejected, match=r"could not be changed in 3 attempts .* lock"):
        release(Access(str(remote)), "a")
    assert git(remote, "rev-parse", "main") == before
    lock.unlink()
    assert release(Access(str(remote)), "a")


def test_an_empty_repository(tmp_path):
    folder = bare(tmp_path / "empty.git")
    with ConfigRepository.open(Access(str(folder))) as repository:
        assert repository.head is None
        assert repository.files() == []
        assert repository.read("a") is None
        with pytest.raises(InvalidInput, match=r"has no overlays/staging/fraud/release.yaml"):
            ReleaseLog(repository, "fraud", "staging").current()
        assert add_to_repository(repository, "fraud", ["staging"])
    assert release(Access(str(folder)), "a")


def test_a_shallow_repository(remote, tmp_path):
    for digit in "abc":
        release(Access(str(remote)), digit)
    git(tmp_path, "clone", "--quiet", "--bare", "--depth=2", f"file://{remote}", "shallow.git")
    access = Access(str(tmp_path / "shallow.git"))
    assert release(access, "d")
    with ConfigRepository.open(access) as repository:
        log = ReleaseLog(repository, "fraud", "staging")
        assert len(log.entries()) == 3
        assert log.rollback()[0].stable == model("c")


def test_a_branch_for_a_pull_request(remote):
    access = Access(str(remote))
    with ConfigRepository.open(access) as repository:
        log = ReleaseLog(repository, "fraud", "production")
        first = log.change(lambda r: release_stable(r, model("a")), "Promote a", branch="bot/a")
        again = log.change(lambda r: release_stable(r, model("a")), "Promote a", branch="bot/a")
    assert again == first
    assert git(remote, "rev-parse", "bot/a").strip() == first
    assert read(show(remote, log.path)).stable is None
    release(access, "b")
    with ConfigRepository.open(access) as repository:
        log = ReleaseLog(repository, "fraud", "production")
        new = log.change(lambda r: release_stable(r, model("c")), "Promote c", branch="bot/a")
    assert git(remote, "rev-parse", "bot/a^").strip() == git(remote, "rev-parse", "main").strip()
    # A merge is one entry, with the time at which it was merged.
    tree = git(remote, "rev-parse", f"{new}^{{tree}}").strip()
    merged = git(
        remote, "-c", "user.name=a", "-c", "user.email=b", "commit-tree", tree, "-p", "main", "-p",
        new, "-m", "Merge pull request #1",
    ).strip()  # fmt: skip
    git(remote, "update-ref", "refs/heads/main", merged)
    with ConfigRepository.open(access) as repository:
        entries = ReleaseLog(repository, "fraud", "production").entries()
    assert [e.subject for e in entries] == [
        "Merge pull request #1", "Add fraud for staging, production",
    ]  # fmt: skip
    assert entries[0].release.stable == model("c")


def test_over_http_with_a_token(remote, monkeypatch, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("TRIMGATE_GIT_TOKEN", TOKEN)
    monkeypatch.setenv("GIT_TRACE_CURL", "1")
    with http_server(remote.parent, TOKEN) as server:
        access = Access(f"{server.url}/config.git")
        assert release(access, "a")
        assert read(show(remote)).stable == model("a")
        monkeypatch.setenv("TRIMGATE_GIT_TOKEN", "expired")
        with pytest.raises(GitError, match="TRIMGATE_GIT_TOKEN is set, and is wrong, has expired"):
            release(access, "b")
        monkeypatch.delenv("TRIMGATE_GIT_TOKEN")
        with pytest.raises(GitError, match="set TRIMGATE_GIT_TOKEN to a token that may write"):
            release(access, "b")
        monkeypatch.setenv("TRIMGATE_GIT_TOKEN", TOKEN)
        with pytest.raises(GitError, match="there is no Git repository"):
            release(Access(f"{server.url}/other.git"), "b")
    out, err = capfd.readouterr()
    assert TOKEN not in out + err + caplog.text
    assert read(show(remote)).stable == model("a")


def test_over_http_with_a_credential_helper(remote, monkeypatch, tmp_path):
    helper = f"!f() {{ echo username=bot; echo password={TOKEN}; }}; f"
    (tmp_path / "config").write_text("")
    git(tmp_path, "config", "-f", "config", "credential.helper", helper)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    with http_server(remote.parent, TOKEN, "bot") as server:
        assert release(Access(f"{server.url}/config.git"), "a")
        assert TOKEN not in str(server.seen[0])


def test_the_host_is_away(tmp_path):
    with pytest.raises(GitError, match="cannot be reached") as caught:
        release(Access("http://127.0.0.1:9/config.git"), "a")
    assert "\n" not in str(caught.value)
    with pytest.raises(GitError, match="there is no Git repository"):
        release(Access(str(tmp_path / "none.git")), "a")


def test_no_answer(tmp_path, monkeypatch):
    script = tmp_path / "ssh"
    script.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nsleep 60\n")
    script.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(script))
    with pytest.raises(GitError, match="no answer within 1 s"):
        release(Access("git@host:config.git", timeout=1), "a")
    state = Path(f"/proc/{int((tmp_path / 'pid').read_text())}/stat")
    deadline = time.monotonic() + 20
    while state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline, "what Git started is left"
        time.sleep(0.05)


def test_over_ssh(remote, tmp_path, monkeypatch):
    """The transport itself, with a stand-in for `ssh` that runs the command here."""
    script = tmp_path / "ssh"
    script.write_text('#!/bin/sh\nfor last; do :; done\nexec sh -c "$last"\n')
    script.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(script))
    monkeypatch.setenv("GIT_SSH_VARIANT", "ssh")
    assert release(Access(f"git@host:{remote}"), "a")
    assert release(Access(f"ssh://git@host{remote}"), "b")
    assert read(show(remote)).stable == model("b")


@pytest.mark.skipif(SSHD is None, reason="sshd is not installed (Debian: openssh-server)")
def test_a_real_ssh_server(remote, tmp_path, monkeypatch):
    folder = tmp_path / "ssh"
    folder.mkdir()

    def use(key, known="known_hosts"):
        monkeypatch.setenv(
            "GIT_SSH_COMMAND",
            f"ssh -F /dev/null -oBatchMode=yes -oIdentitiesOnly=yes -i {folder / key} "
            f"-oUserKnownHostsFile={folder / known} -oIdentityAgent=none",
        )

    with ssh_server(folder) as port:
        access = Access(f"ssh://{getpass.getuser()}@127.0.0.1:{port}{remote}")
        use("client")
        assert release(access, "a"), (folder / "log").read_text()
        assert read(show(remote)).stable == model("a")
        use("stranger")
        with pytest.raises(GitError, match="refuses the SSH key; add a deploy key that may write"):
            release(access, "b")
        use("client", known="nobody")
        with pytest.raises(GitError, match="key is unknown; add it to known_hosts"):
            release(access, "b")
    use("client")
    with pytest.raises(GitError, match="cannot be reached"):
        release(access, "b")
    assert count(remote) == 2


def test_commits_are_signed_with_an_ssh_key(remote, tmp_path):
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True
    )
    revision = release(Access(str(remote), signing_key=str(tmp_path / "key")), "a")
    public = (tmp_path / "key.pub").read_text()
    (tmp_path / "allowed").write_text(f"trimgate@localhost {public}* {public}")
    checked = subprocess.run(
        ["git", "-C", str(remote), "-c", f"gpg.ssh.allowedSignersFile={tmp_path}/allowed",
         "verify-commit", revision], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr
    assert "Good" in checked.stderr


def test_commits_are_signed_with_a_gpg_key(remote, tmp_path_factory, monkeypatch):
    # a short path: GPG's agent listens on a socket in it
    home = tmp_path_factory.mktemp("gpg")
    home.chmod(0o700)
    monkeypatch.setenv("GNUPGHOME", str(home))
    try:
        subprocess.run(
            ["gpg", "--batch", "--passphrase", "", "--quick-gen-key", "Bot <bot@example.org>",
             "ed25519", "sign"], check=True, capture_output=True,
        )  # fmt: skip
        revision = release(Access(str(remote), signing_key="bot@example.org"), "a")
        checked = subprocess.run(
            ["git", "-C", str(remote), "verify-commit", revision], capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert "Good signature" in checked.stderr
        with pytest.raises(GitError, match="cannot be signed with nobody"):
            release(Access(str(remote), signing_key="nobody@example.org"), "b")
    finally:
        subprocess.run(["gpgconf", "--kill", "gpg-agent"], check=False)
    assert count(remote) == 2


def test_a_key_that_cannot_sign(remote, tmp_path):
    (tmp_path / "key").write_text("no key")
    with pytest.raises(GitError, match="cannot be signed with"):
        release(Access(str(remote), signing_key=str(tmp_path / "key")), "a")
    assert count(remote) == 1


@pytest.mark.parametrize(
    ("access", "words"),
    [
        (Access("https://user:secret@host/a/b"), "holds a user or a password"),
        (Access("ext::sh -c id"), "is not the URL of a Git repository"),
        (Access("--upload-pack=id"), "is not the URL"),
        (Access("ftp://host/a"), "is not the URL"),
        (Access("/tmp", branch="--force"), "is not a branch"),
        (Access("/tmp", branch="a..b"), "is not a branch"),
        (Access("/tmp", author="me"), "must be `Name <mail>`"),
        (Access("/tmp", signing_key="/none/key"), "the file is missing"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(access, words):
    with pytest.raises(InvalidInput, match=words) as caught:
        check_access(access)
    assert "secret" not in str(caught.value)


def test_a_token_is_not_sent_unencrypted(monkeypatch):
    monkeypatch.setenv("TRIMGATE_GIT_TOKEN", TOKEN)
    with pytest.raises(InvalidInput, match="would send the token unencrypted"):
        check_access(Access("http://git.example.org/a/b"))
    check_access(Access("https://git.example.org/a/b"))


def test_without_git(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InvalidInput, match="install git"):
        check_access(Access("/tmp"))


def test_paths_stay_inside(remote):
    with ConfigRepository.open(Access(str(remote))) as repository:
        for path in ("../a", "/etc/passwd", ""):
            with pytest.raises(InvalidInput, match="leads out of the repository"):
                repository.change(lambda _, path=path: Change("x", {path: "x"}))


def test_a_local_repository_is_made_once(tmp_path):
    folder = init_local(tmp_path / "store" / "releases.git")
    assert init_local(folder) == folder
    assert git(folder, "symbolic-ref", "HEAD") == "refs/heads/main\n"
    assert [f.name for f in folder.parent.iterdir()] == ["releases.git"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(InvalidInput, match="is not a Git repository"):
        init_local(tmp_path / "other")
