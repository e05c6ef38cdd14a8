"""Winners for Triton and the OpenVINO Model Server: their layout, and how they are run."""

import pytest
from ops.kserve.samples import linear_model
from ops.test_publish import a_card

from trimgate import tasks
from trimgate.ops.kserve import Serving
from trimgate.ops.store import open_store


@pytest.fixture
def winner(tmp_path):
    return linear_model(tmp_path / "winner", engine="openvino")


def test_published(winner, tmp_path):
    card = a_card(winner)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "card.json").write_text(card.model_dump_json())
    store = str(tmp_path / "store")
    given = {"store": store, "settings": {}, "version": "", "tracking_uri": "",
             "registered_model": ""}  # fmt: skip
    uris = [
        tasks.publish(str(winner), str(tmp_path / "files"), **given, layout=layout)
        for layout in ("", "openvino")
    ]
    kept = open_store(tmp_path / "store" / "models")
    plain, served = (set(kept.manifest(uri).files) for uri in uris)
    assert served - plain == {"1/model.onnx"}


def test_arguments_are_those_that_were_judged(winner):
    card = a_card(winner)
    said = Serving(runtime="openvino", arguments=("--log_level=DEBUG",))
    threads = card.target.threads
    assert tasks.serving_for(said, card).arguments == (
        f'--plugin_config={{"INFERENCE_PRECISION_HINT":"f32","INFERENCE_NUM_THREADS":{threads}}}',
        "--log_level=DEBUG",
    )
    assert tasks.serving_for(said, None) == said
    assert tasks.serving_for(Serving(runtime="triton"), card).arguments == ()
