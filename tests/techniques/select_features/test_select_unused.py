"""What the model no longer looks at may be left out, and may hold anything."""

import contextlib
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from trimgate import runtimes, techniques
from trimgate.errors import InvalidInput
from trimgate.models import build_inputs, directory
from trimgate.serving._rows import from_instances
from trimgate.techniques import Context
from trimgate.techniques.select_features import TECHNIQUE, SelectFeaturesConfig

NUMERIC: dict[str, Any] = {
    "pipeline": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "histogram boosting": lambda: HistGradientBoostingClassifier(max_iter=10, random_state=0),
    "xgboost": lambda: xgboost.XGBClassifier(n_estimators=9, max_depth=3, n_jobs=1),
    "lightgbm": lambda: lightgbm.LGBMClassifier(n_estimators=9, verbose=-1, n_jobs=1),
}


def served(source: Path, config: SelectFeaturesConfig, context: Context, tmp_path: Path) -> Path:
    """The selected model with its ONNX form."""
    TECHNIQUE.apply(source, tmp_path / "selected", config, context)
    export = techniques.get("optimize_graph")
    step = techniques.parse_step({"technique": "optimize_graph"})
    export.apply(tmp_path / "selected", tmp_path / "served", step, context)
    return tmp_path / "served"


def check_anything_goes(path: Path, context: Context, junk: dict[str, list[Any]]) -> None:
    """Missing, absent, infinite and textual values of unused features give the same scores."""
    info = directory.read(path)
    unused = set(info.unused_features)
    assert unused
    rows = context.validation.take(slice(0, 20)).features
    for folder in (path, path.parent / "selected"):
        here = directory.read(folder)
        with contextlib.closing(runtimes.load(folder)) as session:
            expected = session.predict(build_inputs(here, rows))
            needed = {n: v for n, v in rows.items() if n not in unused}
            np.testing.assert_array_equal(session.predict(build_inputs(here, needed)), expected)
            for values in zip(*junk.values(), strict=True):
                odd = dict(zip(junk, values, strict=True))
                garbage = {
                    n: np.full(20, odd["text" if v.dtype == object else "number"], dtype=object)
                    for n, v in rows.items()
                    if n in unused
                }
                tensors = build_inputs(here, {**needed, **garbage})
                np.testing.assert_array_equal(session.predict(tensors), expected)
            # and a client that sends tensors of its own
            raw = build_inputs(here, rows)
            for spec in here.inputs:
                columns = [i for i, n in enumerate(spec.features) if n in unused]
                tensor = raw[spec.name].copy()
                tensor[:, columns] = "\0?" if spec.dtype == "string" else np.nan
                raw[spec.name] = tensor
                assert not unused & {*spec.no_nan, *spec.no_inf}
            np.testing.assert_array_equal(session.predict(raw), expected)
    with pytest.raises(InvalidInput):
        build_inputs(info, {n: v for n, v in rows.items() if n in unused})


JUNK = {"number": [np.nan, np.inf, "text", None], "text": ["?", "", "x", None]}


@pytest.mark.parametrize("name", NUMERIC)
def test_a_matrix(name: str, planted: Context, bring: Any, matrix: Any, tmp_path: Path) -> None:
    source = bring(NUMERIC[name]().fit(matrix(planted.train), planted.train.labels), planted.train)
    path = served(source, SelectFeaturesConfig(keep=4), planted, tmp_path)
    check_anything_goes(path, planted, JUNK)


def test_strings(mixed: Context, bring: Any, tmp_path: Path) -> None:
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    model = make_pipeline(
        ColumnTransformer(
            [
                ("text", OneHotEncoder(handle_unknown="ignore"), ["city", "noise_text"]),
                ("numbers", numbers, ["noise_1", "age", "signal", "noise_2"]),
            ]
        ),
        LogisticRegression(),
    )
    source = bring(model.fit(mixed.train.frame(), mixed.train.labels), mixed.train)
    path = served(source, SelectFeaturesConfig(keep=3), mixed, tmp_path)
    check_anything_goes(path, mixed, JUNK)
    info = directory.read(path)
    full = {n: v[0] for n, v in mixed.validation.features.items()}
    full["age"] = None if np.isnan(full["age"]) else full["age"]
    part = {n: v for n, v in full.items() if n not in info.unused_features}
    odd = {**part, "noise_1": "text", "noise_text": 7}
    wanted = from_instances(info, [full], 10)
    for row in (part, odd, [odd.get(n) for n in info.features]):
        found = from_instances(info, [row], 10)
        assert list(found) == list(wanted)
        assert {n: v.tolist() for n, v in found.items() if n != "age"} == {
            n: v.tolist() for n, v in wanted.items() if n != "age"
        }
    with pytest.raises(InvalidInput, match="signal"):
        from_instances(info, [{n: v for n, v in part.items() if n != "signal"}], 10)
    with pytest.raises(InvalidInput, match="no such feature"):
        from_instances(info, [{**part, "nois_1": 0.0}], 10)
