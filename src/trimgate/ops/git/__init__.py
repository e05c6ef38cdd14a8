"""The config repository: what is released where, as commits that people read and revert.

`base/<model>/` holds a model's InferenceService, `overlays/<environment>/<model>/release.yaml` what
is released of it (see `trimgate.ops.release`). A change is made on a fresh copy of the branch's
newest commit, without a work tree, and pushed in one step: it is there whole or not at all.

Git itself does the work (`git` 2.34 or newer): its credential helpers, SSH configuration, hooks
and signatures hold here as they do for people.
"""

from trimgate.ops.git._command import Access, GitError, PushRejected, check_access
from trimgate.ops.git._log import Entry, ReleaseLog
from trimgate.ops.git._repository import Change, Commit, ConfigRepository, init_local
from trimgate.ops.git._scaffold import add_model, add_to_repository

__all__ = [
    "Access",
    "Change",
    "Commit",
    "ConfigRepository",
    "Entry",
    "GitError",
    "PushRejected",
    "ReleaseLog",
    "add_model",
    "add_to_repository",
    "check_access",
    "init_local",
]
