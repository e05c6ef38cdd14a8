"""Names of the images, and what a container may do on a cluster."""

import trimgate

CORE, SERVER, TORCH = (
    f"trimgate/python-{name}:{trimgate.__version__}" for name in ("core", "server", "torch")
)
RESTRICTED = {
    "read_only": True,
    "tmpfs": {"/tmp": "mode=1777"},
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "user": "54321:54321",
}
