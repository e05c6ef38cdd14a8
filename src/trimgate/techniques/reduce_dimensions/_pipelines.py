"""Components before the last estimator of a scikit-learn model."""

import warnings
from typing import Any

import numpy as np

from trimgate.data.dataset import Array, Dataset
from trimgate.errors import NotApplicable
from trimgate.models import build_inputs
from trimgate.models._native import table
from trimgate.models.directory import ModelInfo
from trimgate.techniques._base import Context
from trimgate.techniques.reduce_dimensions._config import ReduceDimensionsConfig
from trimgate.training import (
    estimator_scores,
    estimator_table,
    fit,
    refuse_column_parameters,
    seeded_clone,
)

STEP = "reduce_dimensions"
_UNEVEN = 10.0
_BLANK_ROWS = 2


class PipelineReducer:
    """A scikit-learn model, its last estimator to be trained again on components.

    Args:
        model: Fitted.
        info: Its record.
        config: The step's parameters.
        context: The step's data.

    Attributes:
        columns: How many columns the last estimator looks at now.
        largest: The most components that make sense.
        notes: What stands before the components besides the model's own steps.

    Raises:
        NotApplicable: What reaches the last estimator are not numbers, or it refers to columns
            by their position.
    """

    def __init__(
        self, model: Any, info: ModelInfo, config: ReduceDimensionsConfig, context: Context
    ) -> None:
        self.model, self.info = model, info
        self.config, self.context = config, context
        self.steps = list(getattr(model, "steps", [("model", model)]))
        refuse_column_parameters(self.steps[-1:], "reduce the dimensions in your own training")
        matrix = self._matrix(estimator_table(model, info, context.train))
        self.columns = int(matrix.shape[1])
        self.largest = min(self.columns - 1, int(matrix.shape[0]) - 1)
        if self.largest < 1:
            raise NotApplicable("a single column reaches the last estimator")
        sparse = hasattr(matrix, "toarray")
        known = {"auto": "truncated_svd" if sparse else "pca"}
        self.method = known.get(config.method, config.method)
        if self.method == "pca" and sparse:
            # principal components center, which leaves no zeros
            raise NotApplicable(
                "the columns are sparse, and pca would make each of them dense",
                key="reduce_dimensions.method",
                value="pca",
                mend="use truncated_svd",
            )
        self.imputes = self._lets_gaps_through(matrix)
        self.scales = _uneven(matrix)
        self.notes = {"method": self.method, "scaled": self.scales, "imputed": self.imputes}

    def explaining(self, share: float) -> int:
        """How many components explain so much of the variance of the training rows."""
        from sklearn.pipeline import Pipeline

        stages = self._stages(self.largest)
        matrix = self._matrix(estimator_table(self.model, self.info, self.context.train))
        last = Pipeline(stages).fit(matrix).steps[-1][1]
        explained = np.cumsum(last.explained_variance_ratio_)
        return min(int(np.searchsorted(explained, share)) + 1, self.largest)

    def fit(self, count: int) -> Any:
        """The whole pipeline, trained with so many components."""
        from sklearn.pipeline import Pipeline

        clone = seeded_clone(self.model, self.context.seed)
        fresh = list(getattr(clone, "steps", [("model", clone)]))
        made = Pipeline([*fresh[:-1], *self._stages(count), fresh[-1]])
        try:
            return fit(made, self.model, self.info, self.context.train)
        except NotApplicable:
            raise
        # estimators say with it that values (negative ones, say) are none that they take
        except ValueError as error:
            raise NotApplicable(
                f"{type(fresh[-1][1]).__name__} cannot be trained on components "
                f"({(str(error).splitlines() or [''])[0][:200]})"
            ) from error

    def scores(self, model: Any, rows: Dataset) -> Array:
        """Scores as a session gives them."""
        return estimator_scores(model, self.info, rows)

    def components(self, model: Any, rows: Dataset) -> Array:
        """What the last estimator sees of rows: `(rows, components)`."""
        if getattr(model, "steps", None) is None or STEP not in dict(model.steps):
            raise TypeError("not a reduced pipeline")
        return np.asarray(model[:-1].transform(estimator_table(model, self.info, rows)))

    def explained(self, model: Any) -> float:
        """Share of the training rows' variance that the components explain."""
        return float(np.sum(dict(model.steps)[STEP].explained_variance_ratio_))

    def changes(self, model: Any, count: int) -> dict[str, Any]:
        """What the record says otherwise: no step here takes infinite numbers."""
        unused = set(self.info.unused_features)
        return {
            "inputs": tuple(
                spec.model_copy(
                    update={"no_inf": tuple(n for n in spec.features if n not in unused)}
                )
                if spec.dtype.startswith("float")
                else spec
                for spec in self.info.inputs
            )
        }

    def _stages(self, count: int) -> list[tuple[str, Any]]:
        from sklearn.decomposition import PCA, TruncatedSVD
        from sklearn.impute import SimpleImputer
        from sklearn.preprocessing import StandardScaler

        seed = self.context.seed
        stages: list[tuple[str, Any]] = []
        if self.imputes:
            stages.append((f"{STEP}_impute", SimpleImputer()))
        if self.scales:
            # centering would make sparse columns dense
            stages.append((f"{STEP}_scale", StandardScaler(with_mean=self.method == "pca")))
        if self.method == "pca":
            reducer: Any = PCA(count, whiten=self.config.whiten, random_state=seed)
        else:
            reducer = TruncatedSVD(count, n_iter=7, random_state=seed)
        return [*stages, (STEP, reducer)]

    def _matrix(self, rows: Any) -> Any:
        """What reaches the last estimator, dense or sparse.

        Raises:
            NotApplicable: That are not numbers.
        """
        if len(self.steps) > 1:
            with warnings.catch_warnings():
                # unknown categories that the user's encoder was told to ignore
                warnings.simplefilter("ignore")
                rows = self.model[:-1].transform(rows)
        if hasattr(rows, "toarray"):
            return rows
        try:
            return np.asarray(rows, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise NotApplicable(
                f"text reaches {type(self.steps[-1][1]).__name__}, and components are made of "
                "numbers",
                mend="encode it in a step of the pipeline",
            ) from error

    def _lets_gaps_through(self, matrix: Any) -> bool:
        """Whether missing values reach the last estimator, which components cannot take."""
        if hasattr(matrix, "toarray"):
            return bool(np.isnan(matrix.data).any())
        if np.isnan(matrix).any():
            return True
        inputs = build_inputs(self.info, self.context.train.take(slice(0, _BLANK_ROWS)).features)
        for spec in self.info.inputs:
            free = [i for i, n in enumerate(spec.features) if n not in spec.no_nan]
            if spec.dtype.startswith("float") and free:
                inputs[spec.name] = inputs[spec.name].copy()
                inputs[spec.name][:, free] = np.nan
        return bool(np.isnan(self._matrix(table(self.model, self.info, inputs))).any())


def _uneven(matrix: Any) -> bool:
    """Whether the columns' spreads differ so much that the widest would be the components."""
    if hasattr(matrix, "toarray"):
        squares = np.asarray(matrix.multiply(matrix).mean(axis=0)).ravel()
        spreads = np.sqrt(np.maximum(squares - np.asarray(matrix.mean(axis=0)).ravel() ** 2, 0))
    else:
        spreads = np.nanstd(matrix, axis=0)
    spreads = spreads[spreads > 0]
    return bool(len(spreads) and spreads.max() > _UNEVEN * spreads.min())
