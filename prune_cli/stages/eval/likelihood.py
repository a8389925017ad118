"""How well does one model predict the documents of a test set, with which uncertainty?

Intervals are 95 % percentile bootstraps (Efron & Tibshirani 1993, chapter 13). The sampled unit is a
document, or a cluster of documents that depend on each other.
"""

import logging
import math
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...statistics.bootstrap import Floats, Sampling, cluster_sums, finite_or_none, interval, resampled_sums
from ...statistics.differences import ratio
from .results import Measured

log = logging.getLogger(__name__)

# Units from which on a percentile interval is trusted. With fewer it is too narrow (for clusters see Cameron,
# Gelbach and Miller 2008).
FEW = 50
NAMED_GROUPS = 3  # in a warning

Result = dict[str, Any]


class Warnings(set[str]):
    """Warnings that were logged: each is logged once, however many results it concerns."""

    def log(self, message: str) -> None:
        """Log a warning unless it was logged before."""
        if message not in self:
            log.warning("%s", message)
            self.add(message)


def likelihoods(measured: Measured, sampling: Sampling, warnings: Warnings) -> Iterator[Result]:
    """One result for the whole test set, whose `group` is None, then one for each group.

    Groups are in order of appearance.
    """
    # Numbered once for all groups: a cluster may have documents in several of them.
    clusters = cluster_numbers([measured])
    few: list[str] = []
    for group in _groups(measured):
        rows, documents = _rows(measured, group, clusters)
        yield {
            "result": "likelihood",
            "model": measured.model,
            "data": measured.data,
            "group": group,
            "documents": documents,
            "clusters": len(rows) if is_clustered(measured) else None,
            **_pooled(rows, sampling),
            "provenance": measured.provenance,
        }
        if len(rows) < FEW and group is None:
            units = f"{len(rows)} {_units(measured)}"
            warnings.log(f"{measured.data}: {units}: intervals from fewer than {FEW} are too narrow")
        elif len(rows) < FEW:
            few.append(str(group))
    if few:
        units = f"under {FEW} {_units(measured)} in {_listed(few)}"
        warnings.log(f"{measured.data}: {units}: intervals from so few are too narrow")


def _groups(measured: Measured) -> list[Hashable]:
    """None, which stands for all documents, and every group."""
    return list(dict.fromkeys([None, *(item.group for item in measured.items)]))


def _rows(measured: Measured, group: Hashable, clusters: NDArray[np.int64]) -> tuple[Floats, int]:
    """The sums of each cluster of a group, (clusters, 4), and the number of documents that were summed.

    A document without a scored token is left out.
    """
    in_group = np.array([group is None or item.group == group for item in measured.items], dtype=bool)
    chosen = in_group & (measured.tokens > 0)
    return cluster_sums(measured.numbers[chosen], clusters[chosen]), int(chosen.sum())


def _units(measured: Measured) -> str:
    return "clusters" if is_clustered(measured) else "documents"


def _listed(names: Sequence[str]) -> str:
    listed = ", ".join(names[:NAMED_GROUPS])
    more = len(names) - NAMED_GROUPS
    return f"{listed} and {more} more groups" if more > 0 else listed


def is_clustered(measured: Measured) -> bool:
    """Whether documents of the test set belong to clusters."""
    return any(item.cluster is not None for item in measured.items)


def cluster_numbers(measured: Sequence[Measured]) -> NDArray[np.int64]:
    """A number for each document's cluster, (documents,), from the first measurement that has clusters.

    A document without a cluster is a cluster of its own.
    """
    labelled = next(filter(is_clustered, measured), measured[0])
    codes: dict[Any, int] = {}
    numbers = []
    for index, item in enumerate(labelled.items):
        # A tuple cannot be equal to a label, which is a string or a number.
        label = (index,) if item.cluster is None else item.cluster
        numbers.append(codes.setdefault(label, len(codes)))
    return np.array(numbers, dtype=np.int64)


def _pooled(rows: Floats, sampling: Sampling) -> Result:
    """Perplexity and its kin, pooled over all tokens (bytes, words) of the rows, (n, 4), with intervals.

    Pooled: a mean over documents would give a token of a short document more weight.
    """
    nll, tokens, n_bytes, words = rows.sum(0)
    # One set of resamples for all measures: their sums belong to the same documents.
    samples = resampled_sums(rows, sampling)
    # Bytes are NaN if those of some document are unknown, as they are for blocks of token ids.
    result: Result = {"tokens": int(tokens), "bytes": None if math.isnan(n_bytes) else int(n_bytes)}
    # lm-evaluation-harness defines word perplexity and bits per byte in the same way.
    measures = (
        ("perplexity", exp(ratio(nll, tokens)), exp(ratio(samples[:, 0], samples[:, 1]))),
        ("bits_per_byte", bits(ratio(nll, n_bytes)), bits(ratio(samples[:, 0], samples[:, 2]))),
        ("word_perplexity", exp(ratio(nll, words)), exp(ratio(samples[:, 0], samples[:, 3]))),
    )
    for name, value, values in measures:
        result[name] = finite_or_none(value)
        result[f"{name}_interval"] = interval(values)
    return {**result, "resamples": sampling.resamples, "seed": sampling.seed}


def exp(values: Any) -> Any:
    """e to the power of the values; infinity if that is too large, which results have as None."""
    with np.errstate(over="ignore"):
        return np.exp(values)


def bits(nats: Any) -> Any:
    """Nats in bits."""
    return nats / math.log(2)
