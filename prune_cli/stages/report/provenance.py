"""Which commands made a stream? Its head says it, in the options of the command line."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ...stream.schema import Head
from .content import Step

# Keys of the sections of a head that are options, by verb; all other keys are counts and hashes.
OPTIONS: Mapping[str, Mapping[str, str]] = {
    "pack": {"context": "--context", "eod": "--eod", "last": "--last"},
    "score": {
        "fields": "-m",
        "names": "--model",
        "context": "--context",
        "stride": "--stride",
        "bos": "--bos",
        "dtype": "--dtype",
    },
    "rank": {"key": "-k", "unit": "--by", "reverse": "--reverse", "within": "--within"},
    "slice": {
        "key": "-k",
        "keep": "--keep",
        "frac": "--frac",
        "range": "--range",
        "tokens": "--tokens",
        "min": "--min",
        "max": "--max",
        "within": "--within",
        "scores": "--scores",
        "sample": "--sample",
        "seed": "--seed",
        "invert": "--invert",
        "keep_unscored": "--keep-unscored",
    },
}


def steps(head: Head | None) -> list[Step]:
    """The commands that a stream went through, the first one first; none for a foreign file."""
    if head is None:
        return []
    return [Step(verb, _command(verb, head.settings(verb))) for verb in OPTIONS if head.settings(verb)]


def _command(verb: str, section: Mapping[str, Any]) -> str:
    words = ["prune-cli", verb]
    for name, option in OPTIONS[verb].items():
        words += _words(option, section.get(name))
    return shlex.join(words)


def _words(option: str, value: Any) -> list[str]:
    if value is None or value is False or value == []:
        return []
    if value is True:
        return [option]
    if isinstance(value, list | tuple):
        return [word for each in value for word in (option, _spelled(each))]
    return [option, _spelled(value)]


def _spelled(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def slice_label(head: Head | None) -> str:
    """What a slice keeps, in a few words such as "middle 50 %"; empty if no head says it."""
    cut = head.settings("slice") if head else {}
    words = [*_part(cut), *_bounds(cut)]
    if cut.get("within"):
        words.append(f"within each {cut['within']}")
    label = " ".join(words)
    return f"all but {label}" if cut.get("invert") else label


def _part(cut: Mapping[str, Any]) -> Sequence[str]:
    words = [str(cut["keep"])] if "keep" in cut else []
    if "sample" in cut:
        words.append(f"sample at temperature {_spelled(cut['sample'])}")
    if "frac" in cut:
        words.append(f"{float(cut['frac']) * 100:g} %")
    if "tokens" in cut:
        words.append(f"{cut['tokens']:,} tokens")
    return words


def _bounds(cut: Mapping[str, Any]) -> Sequence[str]:
    words = []
    if "range" in cut:
        low, _, high = str(cut["range"]).partition(":")
        words.append(f"quantiles {low} to {high}")
    if "min" in cut:
        words.append(f"at least {_spelled(cut['min'])}")
    if "max" in cut:
        words.append(f"at most {_spelled(cut['max'])}")
    return words
