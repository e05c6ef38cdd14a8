import json
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from trimgate.cli import main


def trimgate(*arguments, cwd=None, **kwargs):
    """The command as a user calls it, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "trimgate", *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, timeout=300, **kwargs,
    )  # fmt: skip


def test_entry_point():
    (script,) = entry_points(group="console_scripts", name="trimgate")
    assert script.load() is main


def test_help_is_light():
    code = (
        "import sys; from trimgate.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'onnx', 'kfp', 'sklearn', 'mlflow', 'torch', 'pydantic'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in ("init", "run", "compile", "submit", "report", "serve", "doctor"):
        assert command in done.stdout


def test_no_command(capsys):
    assert main([]) == 2
    assert "COMMAND" in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("trimgate ")


def test_typo_in_the_config(cancer, tmp_path, capsys):
    text = (cancer / "optimize.yaml").read_text().replace("recipes:", "recipies:")
    (tmp_path / "optimize.yaml").write_text(text)
    assert main(["run", str(tmp_path / "optimize.yaml")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "recipies: unknown key; did you mean 'recipes'?" in error
    assert [f.name for f in tmp_path.iterdir()] == ["optimize.yaml"]


def test_missing_config(tmp_path, capsys):
    assert main(["run", str(tmp_path / "nope.yaml")]) == 2
    assert "the file is missing; `trimgate init" in capsys.readouterr().err


def test_doctor(capsys):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["machine"]["cores"] >= 1
    assert found["runtimes"]["onnxruntime"] is None
    assert found["extras"]["sklearn"] == []
    assert found["targets"]["mobile"]["latency"].startswith("checked: ")
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out
    assert "avx512_vnni" in told
    assert "inferentia" in told


def test_schema(capsys):
    assert main(["schema"]) == 0
    assert "properties" in json.loads(capsys.readouterr().out)


def test_init_writes_a_config_that_compiles(cancer, tmp_path, capsys):
    output = tmp_path / "optimize.yaml"
    init = ["init", "--model", str(cancer / "model.skops"), "--data", str(cancer / "rows.parquet")]
    assert main([*init, "-o", str(output)]) == 0
    text = output.read_text()
    assert "label: target" in text
    assert "max_drop:" in text
    assert main(["compile", str(output), "-o", str(tmp_path / "pipeline.yaml")]) == 0
    assert (tmp_path / "pipeline.yaml").read_text().startswith("# PIPELINE DEFINITION")
    capsys.readouterr()
    assert main([*init, "-o", str(output)]) == 2
    assert "already exists; --force replaces it" in capsys.readouterr().err
    assert main([*init, "-o", str(output), "--force", "--label", "nope"]) == 2
    assert "no such column" in capsys.readouterr().err
    assert output.read_text() == text


def test_init_finds_shared_rows(cancer, tmp_path, capsys):
    import pandas as pd

    rows = pd.read_parquet(cancer / "rows.parquet")
    pd.concat([rows, rows[:50]]).to_parquet(tmp_path / "rows.parquet")
    output = tmp_path / "o.yaml"
    arguments = ["--model", str(cancer / "model.skops"), "--data", str(tmp_path / "rows.parquet")]
    assert main(["init", *arguments, "-o", str(output)]) == 0
    assert "overlap: drop" in output.read_text()
    assert "also stand in" in capsys.readouterr().out


def test_init_takes_what_the_model_does_not_for_the_label(cancer, tmp_path, capsys):
    """Neither the number of a row nor the last column, when that is a feature."""
    import pandas as pd

    rows = pd.read_parquet(cancer / "rows.parquet").rename(columns={"target": "ill next year"})
    rows.insert(0, "ill next year", rows.pop("ill next year"))
    rows.insert(0, "patient", range(len(rows)))
    rows.to_parquet(tmp_path / "rows.parquet", index=False)
    output = tmp_path / "o.yaml"
    arguments = ["--model", str(cancer / "model.skops"), "--data", str(tmp_path / "rows.parquet")]
    assert main(["init", *arguments, "-o", str(output)]) == 0
    text = output.read_text()
    assert "label: ill next year" in text
    assert "drop: [patient]" in text
    rows["ward"] = [f"ward {n % 3}" for n in range(len(rows))]
    rows.to_parquet(tmp_path / "rows.parquet", index=False)
    capsys.readouterr()
    assert main(["init", *arguments, "-o", str(output), "--force"]) == 2
    words = capsys.readouterr().err
    assert "which column is the label?" in words
    assert "name it with --label" in words
    rows.drop(columns=["patient", "ward", "ill next year"]).to_parquet(tmp_path / "rows.parquet")
    assert main(["init", *arguments, "-o", str(output), "--force"]) == 2
    assert "add the label column" in capsys.readouterr().err


def test_compile_writes_nothing_on_bad_input(cancer, tmp_path, capsys):
    assert main(["compile", str(cancer / "nope.yaml"), "-o", str(tmp_path / "p.yaml")]) == 2
    assert not list(tmp_path.iterdir())


def test_report_of_no_run(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "is not the folder of a finished run" in capsys.readouterr().err


def test_submit_needs_name_and_value(capsys):
    assert main(["submit", "p.yaml", "--host", "http://127.0.0.1:9", "--parameter", "x"]) == 2
    assert "must be NAME=VALUE" in capsys.readouterr().err


def test_process_exit_code(tmp_path):
    done = trimgate("run", tmp_path / "nope.yaml")
    assert done.returncode == 2
    assert done.stderr.startswith("trimgate: ")
    assert "Traceback" not in done.stderr


def test_a_token_file_that_is_missing(tmp_path, capsys):
    (tmp_path / "pipeline.yaml").write_text("{}")
    missing = str(tmp_path / "token")
    arguments = ["submit", str(tmp_path / "pipeline.yaml"), "--host", "http://127.0.0.1:9"]
    assert main([*arguments, "--token-file", missing]) == 2
    told = capsys.readouterr().err
    assert "--token-file" in told
    assert "the file is missing" in told
