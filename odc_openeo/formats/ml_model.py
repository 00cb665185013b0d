"""Trained models and their files.

The files are skops archives: unlike pickles they hold no code. A file with types other than those of
scikit-learn's own models is refused. scikit-learn and skops are imported late: that takes a second, and few
processes need them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np

from odc_openeo.errors import ProcessParameterInvalid
from odc_openeo.formats.model import Asset, Format, Options, Target

MEDIA_TYPE: Final = "application/vnd.skops+zip"
EXTENSION: Final = "skops"
MAX_BYTES: Final = 2**30
TRUSTED: Final = {"sklearn.tree._tree.Tree"}
"""Types trusted in addition to those that skops trusts itself; trees are checked after loading."""


@dataclass(frozen=True)
class TrainedModel:
    """A model: ``estimator`` is a dask Delayed of a scikit-learn estimator, ``features`` are its inputs.

    It is not trained before a value is predicted or the model is saved.
    """

    openeo_subtypes: ClassVar = ("ml-model",)

    estimator: Any
    features: Sequence[str]


def write_model(model: TrainedModel, target: Target, options: Options) -> list[Asset]:
    """Train the model and write it."""
    import skops.io

    (estimator,) = target.compute(model.estimator)
    path = target.path(EXTENSION)
    skops.io.dump(estimator, path)
    return [Asset(path, MEDIA_TYPE, "A trained model, to be read with load_ml_model", ("mlm:model", "data"))]


def read_model(content: bytes, process: str, parameter: str) -> Any:
    """Load the scikit-learn estimator of a file; code is never run.

    Raises:
        ProcessParameterInvalid: it is not such a file, or holds types other than scikit-learn's.
    """

    def refuse(reason: str) -> ProcessParameterInvalid:
        return ProcessParameterInvalid(process=process, parameter=parameter, reason=reason)

    if len(content) > MAX_BYTES:
        raise refuse(f"the model is larger than {MAX_BYTES} bytes.")
    import skops.io

    try:
        unknown = set(skops.io.get_untrusted_types(data=content)) - TRUSTED
        if unknown:
            raise refuse(f"the file holds types that are not trusted: {', '.join(sorted(unknown))}.")
        estimator = skops.io.loads(content, trusted=sorted(TRUSTED))
    except ProcessParameterInvalid:
        raise
    except Exception as error:
        # A broken archive fails in many ways, depending on the byte.
        raise refuse("the file is not a model written by save_ml_model.") from error
    if not _is_sound(estimator):
        raise refuse("the file is not a random forest, or a tree of it is broken.")
    return estimator


def _is_sound(estimator: Any) -> bool:
    """Whether it is a forest whose trees refer only to later nodes and to existing features.

    scikit-learn does not check the indices in a tree: wrong ones would make it read foreign memory.
    """
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    if not isinstance(estimator, RandomForestClassifier | RandomForestRegressor):
        return False
    return all(_is_sound_tree(tree.tree_, estimator.n_features_in_) for tree in estimator.estimators_)


def _is_sound_tree(tree: Any, features: int) -> bool:
    numbers = np.arange(tree.node_count)
    left, right = tree.children_left, tree.children_right
    leaf = left == -1
    inner = ~leaf & (left > numbers) & (right > numbers) & (left < len(numbers)) & (right < len(numbers))
    known_features = leaf | ((tree.feature >= 0) & (tree.feature < features))
    return bool(
        len(left) == len(right) == len(tree.value) == len(numbers)
        and (leaf | inner).all()
        and known_features.all()
    )


MODEL: Final = Format(
    name="skops",
    title="Trained model",
    description="A scikit-learn model without code in it.",
    gis_data_types=["other"],
    media_type=MEDIA_TYPE,
    extension=EXTENSION,
    write=write_model,
)
