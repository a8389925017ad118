"""What `prune-cli eval` shows on a terminal."""

from collections.abc import Sequence
from typing import Any

from .. import terminal

Result = dict[str, Any]


def show(results: Sequence[Result]) -> None:
    """The results as tables; what does not fit into 80 columns is in the records."""
    likelihoods = [one for one in results if one["result"] == "likelihood"]
    names = ["model", "data", *(["group"] if any(one["group"] is not None for one in likelihoods) else [])]
    rows = [
        [
            *("" if one[name] is None else str(one[name]) for name in names),
            f"{one['documents']:,}",
            *_shown(one, "perplexity", "{:.5g}"),
            *_shown(one, "bits_per_byte", "{:.4f}")[:1],
        ]
        for one in likelihoods
    ]
    terminal.table((*names, "documents", "perplexity", "95 %", "bits/byte"), rows)
    if comparisons := [one for one in results if one["result"] == "comparison"]:
        _show_comparisons(comparisons)


def _show_comparisons(comparisons: Sequence[Result]) -> None:
    rows = [
        [
            *(several(one[name]) for name in ("model", "against", "data")),
            *_shown(one, "effect", "{:+.2%}"),
            *(
                "" if one[name] is None else form.format(one[name])
                for name, form in (("p", "{:.4f}"), ("improved", "{:.1%}"))
            ),
        ]
        for one in comparisons
    ]
    caption = "effect: on perplexity, by token or, of unlike tokenizers, by byte; below 0 is better than the baseline"
    terminal.table(("model", "against", "data", "effect", "95 %", "p", "improved"), rows, caption)


def _shown(result: Result, name: str, form: str) -> tuple[str, str]:
    """A number and its interval."""
    value, ends = result[name], result[f"{name}_interval"]
    return "" if value is None else form.format(value), "" if ends is None else "…".join(
        map(form.format, ends)
    )


def several(names: str | Sequence[str]) -> str:
    return names if isinstance(names, str) else ", ".join(names)
