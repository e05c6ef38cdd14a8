import yaml
from kfp import compiler, dsl
from trimgate.components.deployment.deploy_kserve import deploy_kserve


def test_it_compiles_with_and_without_a_benchmark(tmp_path):
    @dsl.pipeline(name="deploy")
    def pipeline(uri: str, digest: str):
        measured = dsl.importer(artifact_uri="s3://runs/benchmark", artifact_class=dsl.Artifact)
        given = {"name": "fraud", "run": "r", "verdict": "pass", "serving": {"threads": 2}}
        deploy_kserve(uri=uri, digest=digest, benchmark=measured.output, percent=10, **given)
        deploy_kserve(uri=uri, digest=digest, namespace="models", **given)

    file = tmp_path / "pipeline.yaml"
    compiler.Compiler().compile(pipeline, str(file))
    tasks = next(yaml.safe_load_all(file.read_text()))["root"]["dag"]["tasks"]
    assert "benchmark" in tasks["deploy-kserve"]["inputs"]["artifacts"]
    assert "artifacts" not in tasks["deploy-kserve-2"]["inputs"]
    assert tasks["deploy-kserve"]["inputs"]["parameters"]["percent"]["runtimeValue"] == {
        "constant": 10
    }
