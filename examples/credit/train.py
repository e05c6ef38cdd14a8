"""Trains the model that a data scientist would bring: a forest behind encoders and imputers.

It takes the rows as they are, with words and gaps; all preparation is part of the pipeline.

    python train.py [FOLDER] [forest|boosting]
"""

import sys
from pathlib import Path

import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder
from skops import io

WORDS = ["sex", "education", "marriage"]


def pipeline(kind: str, numbers: list[str]) -> Pipeline:
    """An untrained pipeline.

    Args:
        kind: `forest`: medians for gaps, a column for each word, 300 trees. `boosting`: words
            as numbers, gaps left to the trees.
        numbers: The columns that hold numbers.

    Raises:
        ValueError: There is no such kind.
    """
    filled = SimpleImputer(strategy="constant", fill_value="unknown")
    if kind == "forest":
        return make_pipeline(
            make_column_transformer(
                (make_pipeline(filled, OneHotEncoder(handle_unknown="ignore")), WORDS),
                (SimpleImputer(strategy="median"), numbers),
            ),
            RandomForestClassifier(300, min_samples_leaf=10, random_state=0, n_jobs=1),
        )
    if kind == "boosting":
        encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
        return make_pipeline(
            make_column_transformer(
                (make_pipeline(filled, encoder), WORDS), ("passthrough", numbers)
            ),
            HistGradientBoostingClassifier(
                max_iter=150, learning_rate=0.06, max_leaf_nodes=15, l2_regularization=1,
                early_stopping=False, random_state=0,
            ),
        )  # fmt: skip
    raise ValueError(f"no kind {kind!r}; there are forest and boosting")


def train(folder: Path, kind: str = "forest") -> Path:
    """Writes `<kind>.skops` into the folder that has the Parquet files of fetch.py."""
    target = folder / f"{kind}.skops"
    if target.is_file():
        return target
    rows = {name: pd.read_parquet(folder / f"{name}.parquet") for name in ("train", "validation")}
    numbers = [name for name in rows["train"] if name not in (*WORDS, "default")]
    # a missing word is NaN, as scikit-learn's imputer looks for it
    features = {n: r.drop(columns="default").replace({None: float("nan")}) for n, r in rows.items()}
    model = pipeline(kind, numbers).fit(features["train"], rows["train"]["default"])
    scores = model.predict_proba(features["validation"])[:, 1]
    area = roc_auc_score(rows["validation"]["default"], scores)
    print(f"{kind} trained on {len(rows['train']):,} clients; ROC AUC on others {area:.4f}")
    partial = target.with_suffix(".partial")
    io.dump(model, partial)
    partial.replace(target)
    return target


if __name__ == "__main__":
    where, *what = sys.argv[1:] or ["."]
    print(train(Path(where), *what[:1]))
