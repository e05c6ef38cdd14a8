"""The command line. Each command is a module that is imported when it is called."""

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Sequence

from trimgate import __version__
from trimgate.errors import InvalidInput, TrimgateError

EXIT_PASSED = 0
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_REJECTED = 3
EXIT_INTERRUPTED = 130

_COMMANDS = (
    "init", "run", "compile", "submit", "report", "gate", "serve", "stop", "promote", "deploy",
    "rollback", "history", "diff", "init-repository", "rollout", "doctor", "schema",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """The `trimgate` command.

    Args:
        argv: Arguments; those of the process when left out.

    Returns:
        0 passed, 1 failed inside, 2 bad input, 3 rejected (only with `--fail-on-reject`, and
        by `gate`), 130 interrupted.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    if not arguments.command:
        parser.print_help()
        return EXIT_BAD_INPUT
    module = importlib.import_module(f"trimgate.cli._{arguments.command.replace('-', '_')}")
    try:
        return int(module.run(arguments))
    except InvalidInput as error:
        print(f"trimgate: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except TrimgateError as error:
        print(f"trimgate: {error}", file=sys.stderr)
        return EXIT_FAILED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except OSError as error:
        print(f"trimgate: {_storage(error)}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("trimgate: interrupted; the same command goes on from what is done", file=sys.stderr)
        return EXIT_INTERRUPTED


def _storage(error: OSError) -> str:
    """One line about a disk that is full, a folder that is gone, and the like."""
    where = f"{error.filename}: " if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return (
            f"{where}{error.strerror}; free some space, and the same command goes on from what "
            "is done"
        )
    return where + " ".join(str(error.strerror or error).split())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trimgate",
        description="Make a trained model faster and smaller, prove that it is still as good, "
        "roll it out.",
        epilog="Begin with `trimgate init --model M --data D`, then `trimgate run optimize.yaml`. "
        "Exit codes: 0 passed, 1 failed inside, 2 bad input, 3 rejected (with --fail-on-reject, "
        "and by gate), "
        "130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"trimgate {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name in _COMMANDS:
        _ADD[name](commands)
    return parser


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    what: str,
    more: str = "",
) -> argparse.ArgumentParser:
    description = f"{what[0].upper()}{what[1:]}. {more}".strip()
    return commands.add_parser(name, help=what, description=description)


def _init(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    p = _command(commands, "init", "write a commented optimize.yaml for a model and its data")
    p.add_argument("--model", required=True, help="model file, or a Hugging Face folder")
    p.add_argument("--data", required=True, help="Parquet, CSV or .npz file with the label in it")
    p.add_argument("--label", help="column to predict (found out when left out)")
    p.add_argument("--text", help="column that a text model reads (found out when left out)")
    p.add_argument("--name", help="the model's name (from the file's name when left out)")
    p.add_argument("--builder", help="for torch: package.module:function that makes the module")
    p.add_argument(
        "--builder-argument", action="append", default=[], metavar="NAME=VALUE",
        help="what the builder is called with, such as classes=10; repeatable",
    )  # fmt: skip
    p.add_argument("--time", help="column that orders the rows: the newest become the test rows")
    p.add_argument(
        "--allow-pickle", action="store_true",
        help="load a .joblib/.pkl file: it runs code from the file",
    )  # fmt: skip
    p.add_argument("--target", default="cloud-cpu", help="target profile (default: %(default)s)")
    p.add_argument("-o", "--output", default="optimize.yaml", help="default: %(default)s")
    p.add_argument("--force", action="store_true", help="replace the output file")


def _run(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    p = _command(commands, "run", "optimize, judge and release on this machine")
    p.add_argument("config", help="optimize.yaml")
    p.add_argument(
        "--fail-on-reject", action="store_true", help="exit 3 when the gate does not pass"
    )
    p.add_argument(
        "--output",
        metavar="DIR",
        help="folder of the runs (default: trimgate-runs beside the config)",
    )
    p.add_argument("--fresh", action="store_true", help="take nothing from earlier runs")
    p.add_argument(
        "--containers", action="store_true",
        help="run each task in its image, as a cluster does (Docker, or podman with DOCKER_HOST)",
    )  # fmt: skip
    p.add_argument("--serve", action="store_true", help="leave the released model served")
    p.add_argument("--port", type=int, default=0, help="port for --serve (default: a free one)")


def _compile(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    p = _command(commands, "compile", "write the Kubeflow pipeline")
    p.add_argument("config", help="optimize.yaml")
    p.add_argument("-o", "--output", default="pipeline.yaml", help="default: %(default)s")
    p.add_argument("--images", default="", help="registry (and folder) that holds the images")


def _submit(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    p = _command(commands, "submit", "start a compiled pipeline on Kubeflow")
    p.add_argument("pipeline", help="pipeline.yaml from `trimgate compile`")
    p.add_argument("--host", required=True, help="URL of the Kubeflow Pipelines API")
    p.add_argument("--token", help="bearer token (better: the variable TRIMGATE_KFP_TOKEN)")
    p.add_argument("--token-file", help="file that holds the token, such as a pod's own")
    p.add_argument("--namespace", default="kubeflow", help="default: %(default)s")
    p.add_argument("--experiment", default="trimgate", help="default: %(default)s")
    p.add_argument("--run-name", help="name of the run")
    p.add_argument("--service-account", help="ServiceAccount that the pods run as")
    p.add_argument(
        "--parameter", action="append", default=[], metavar="NAME=VALUE",
        help="a pipeline parameter, such as model_uri=s3://models/fraud.skops; repeatable",
    )  # fmt: skip
    p.add_argument("--fail-on-reject", action="store_true", help="a rejection ends the run red")


def _report(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    p = _command(commands, "report", "show a run, or compare several over time")
    p.add_argument(
        "run", nargs="*", metavar="RUN", help="folder of a run, or its name in trimgate-runs"
    )
    p.add_argument(
        "--compare", action="store_true",
        help="compare the runs (all in trimgate-runs, or in a folder of runs, when one is named)",
    )  # fmt: skip
    p.add_argument(
        "--format", choices=("text", "markdown", "pull-request", "json"), default="text",
        help="pull-request: short Markdown whose details are folded away (default: %(default)s)",
    )  # fmt: skip
    p.add_argument(
        "-o", "--output", metavar="FILE",
        help="for --compare: the HTML page (default: compare.html beside the runs)",
    )  # fmt: skip


def _gate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    p = _command(
        commands, "gate",
        "judge saved records by a policy: exit 0 when they pass, 3 when they do not",
    )  # fmt: skip
    p.add_argument("run", nargs="?", help="folder of a run, or its name in trimgate-runs")
    p.add_argument("--baseline", metavar="FILE", help="evaluation of the baseline on test rows")
    p.add_argument("--candidate", metavar="FILE", help="evaluation of the candidate beside it")
    p.add_argument("--benchmark", metavar="FILE", help="benchmark of the candidate beside it")
    p.add_argument("--served", metavar="FILE", help="what the model server did")
    p.add_argument(
        "--policy", metavar="FILE",
        help="YAML with the rules, or an optimize.yaml with a gate (default: those of the run)",
    )  # fmt: skip
    p.add_argument("--json", action="store_true", help="print the verdict as JSON")


def _serve(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    p = _command(commands, "serve", "serve a model directory (V1 and V2 REST, V2 gRPC)")
    p.add_argument("model", help="model directory")
    p.add_argument("--host", default="127.0.0.1", help="address to bind (default: %(default)s)")
    p.add_argument("--port", type=int, default=8080, help="REST port, 0 for a free one")
    p.add_argument("--grpc-port", type=int, default=8081, help="gRPC port, 0 for a free one")
    p.add_argument("--threads", type=int, default=1, help="threads of the engine")
    p.add_argument("--name", help="name in URLs (default: the model's own)")
    p.add_argument(
        "--verify-key", metavar="FILE", help="public key (PEM) that the model must be signed for"
    )


def _stop(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    p = _command(commands, "stop", "stop the server that `run --serve` left")
    p.add_argument("config", help="optimize.yaml of that run")


def _promote(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    p = _command(
        commands, "promote", "release a model that passed, by a commit or a pull request",
        "The model is verified first: its bytes, its signature, its provenance and its verdict. "
        "Nothing is built again: an environment gets the same digest as the one before it.",
    )  # fmt: skip
    p.add_argument(
        "what",
        help="folder or name of a run, models:/NAME@ALIAS, the URI of a published model, or a "
        "model's name for what the environment before runs",
    )
    p.add_argument("--to", required=True, metavar="ENVIRONMENT", help="such as staging, production")
    p.add_argument(
        "--from", dest="source", metavar="ENVIRONMENT",
        help="for a name: whose model is meant (default: the environment before)",
    )  # fmt: skip
    p.add_argument(
        "--canary", type=int, metavar="PERCENT", help="beside the stable model, with this share"
    )
    _by(p, "the config says which")
    p.add_argument("--commit", action="store_true", help="commit at once, whatever the config says")
    _repository(p)


def _deploy(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    p = _command(
        commands, "deploy", "apply a model that passed to a cluster, where Git does not",
        "The config's `deploy` says where. An earlier model is deployed again in the same way.",
    )  # fmt: skip
    p.add_argument(
        "what", help="folder or name of a run, models:/NAME@ALIAS, or the URI of a published model"
    )
    p.add_argument("-c", "--config", metavar="FILE", help="config (default: optimize.yaml)")
    p.add_argument(
        "--percent", type=int, metavar="PERCENT",
        help="its share of the traffic beside the stable model (default: the config's)",
    )  # fmt: skip


def _rollback(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    p = _command(
        commands, "rollback", "revert the last promotion of a model",
        "A canary is dropped; without one the stable model before is restored. Commits to other "
        "files stay.",
    )  # fmt: skip
    p.add_argument("name", help="the model's name")
    p.add_argument("--environment", required=True, help="such as staging, production")
    _by(p, "a commit at once is the default")
    _repository(p)


def _history(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    p = _command(commands, "history", "the commits that changed a model's releases")
    p.add_argument("name", help="the model's name")
    p.add_argument("--environment", help="this one alone")
    _repository(p)


def _diff(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    p = _command(commands, "diff", "what one environment releases and another does not")
    p.add_argument("first", help="an environment, such as staging")
    p.add_argument("second", help="another, such as production")
    p.add_argument("--name", help="this model alone")
    _repository(p)


def _init_repository(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    p = _command(
        commands, "init-repository", "add a model's base and overlays to the config repository",
        "What is there already stays as it is.",
    )  # fmt: skip
    p.add_argument("--name", help="the model's name (the config's when left out)")
    p.add_argument(
        "--run", help="a run, by what was measured of whose winner cpu and memory are set"
    )
    _repository(p)


def _by(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--pull-request", action="store_true", help=f"by a pull request ({default})"
    )


def _repository(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-c", "--config", metavar="FILE",
        help="config with `promote` in it (default: optimize.yaml, where there is one)",
    )  # fmt: skip
    parser.add_argument("--repository", metavar="URL", help="instead of the config's")
    parser.add_argument("--branch", help="instead of the config's")
    parser.add_argument("--store", help="instead of the config's")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _rollout(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    p = _command(commands, "rollout", "a canary gets more of the traffic as it proves itself")
    actions = p.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, what in (
        ("start", "begin with the first step, and watch it"),
        ("watch", "take the rollout that runs to its end: exit 0 promoted, 3 rolled back"),
        ("status", "look once, and do nothing"),
        ("serve", "serve what is released on this machine: stable and canary behind a proxy"),
    ):
        a = _command(actions, name, what)
        a.add_argument("name", help="the model's name")
        a.add_argument("--environment", default="production", help="default: %(default)s")
        a.add_argument("--config", default="optimize.yaml", help="default: %(default)s")
        if name == "serve":
            a.add_argument("--port", type=int, default=8080, help="0 for a free one")
            a.add_argument("--mirror", type=float, default=1.0, help="share that both answer")
            a.add_argument("--interval", type=float, default=1.0, help="seconds between two looks")
            a.add_argument("--detach", action="store_true", help="leave it running")
            a.add_argument("--announce", action="store_true", help=argparse.SUPPRESS)
            a.add_argument("--stop-on-eof", action="store_true", help=argparse.SUPPRESS)
            continue
        a.add_argument("--rows", help="for golden inputs: .parquet, .csv, .npz, or a folder")
        a.add_argument("--url", help="the local platform, if it was not started here")
        a.add_argument("--json", action="store_true", help="print JSON")
        if name in ("start", "watch"):
            a.add_argument(
                "--metrics", metavar="HOST:PORT",
                help="answer Prometheus there: agreement, and how each check stands",
            )  # fmt: skip
            a.add_argument(
                "--forever", action="store_true", help="then wait for the next rollout"
            )
        if name == "start":
            a.add_argument(
                "--from", dest="source", default="staging", metavar="ENVIRONMENT",
                help="where the model is released already (default: %(default)s)",
            )  # fmt: skip
            a.add_argument("--no-watch", action="store_true", help="only begin")


def _doctor(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    p = _command(commands, "doctor", "what this machine offers, and what is missing")
    p.add_argument("--json", action="store_true", help="print JSON")


def _schema(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    p = _command(commands, "schema", "print a JSON Schema: of optimize.yaml, or of card.json")
    p.add_argument(
        "of", nargs="?", choices=("config", "card"), default="config", help="default: %(default)s"
    )


_ADD = {
    "init": _init,
    "run": _run,
    "compile": _compile,
    "submit": _submit,
    "report": _report,
    "gate": _gate,
    "serve": _serve,
    "stop": _stop,
    "promote": _promote,
    "deploy": _deploy,
    "rollback": _rollback,
    "history": _history,
    "diff": _diff,
    "init-repository": _init_repository,
    "rollout": _rollout,
    "doctor": _doctor,
    "schema": _schema,
}
