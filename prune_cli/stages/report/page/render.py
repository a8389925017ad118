"""How does a report become a page? A template, a style, a script and the charts' data, all in one file.

Nothing is loaded from elsewhere, and the page's own policy forbids it. Texts of documents are data: they are
never part of the markup.
"""

import json
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any, NamedTuple

import jinja2
import vl_convert

from ..content import Content, Distribution, SliceFacts, Volume
from ..findings import share
from . import charts, forests

MOST_CHARTS = 24  # of distributions: scores times slices could be any number
CURVES = {
    "loss": "training loss (nats per token)",
    "held_out_loss": "held-out loss (nats per token)",
    "lr": "learning rate",
    "tokens_per_second": "tokens per second",
}
# Characters that could end a data block, or that JavaScript takes for line ends.
UNSAFE = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})


class Chart(NamedTuple):
    """A chart of the page: `axis` is logarithmic or linear where the reader can choose, else empty."""

    id: str
    caption: str
    spec: dict[str, Any]
    axis: str = ""


def page(content: Content) -> bytes:
    """The page as HTML."""
    drawn = _sections(content)
    scripts = {"library": _library(), "script": _resource("page.js")}
    html = _template().render(
        content=content,
        charts=drawn,
        style=_resource("style.css"),
        scripts=scripts,
        policy=_policy(list(scripts.values())),
        specs=data_block([{"id": chart.id, "spec": chart.spec} for chart in _all(drawn)]),
        documents=data_block([asdict(document) for document in content.documents]),
    )
    return html.encode("utf-8", "surrogatepass")


@cache
def _library() -> str:
    """Vega as one script without imports; it takes two seconds to make."""
    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def data_block(value: Any) -> str:
    """JSON that can stand inside a script element."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).translate(UNSAFE)


def _policy(scripts: list[str]) -> str:
    """The Content-Security-Policy: these scripts and no others, inline styles, and no connection at all."""
    hashes = " ".join(f"'sha256-{b64encode(sha256(each.encode()).digest()).decode()}'" for each in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"
    )


def _resource(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {
        "count": _count,
        "percent": _percent,
        "score": _score,
        "signed": _signed,
        "difference": _difference,
    }
    environment.globals["share"] = share
    environment.globals["nothing"] = Volume()
    return environment.from_string(_resource("page.html"))


def _count(value: float) -> str:
    return f"{value:,}"


def _percent(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:.{digits}%}"


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.2%}"


def _difference(value: float | None) -> str:
    return "" if value is None else f"{value:+.3g}"


# --- Which charts there are ---


def _sections(content: Content) -> dict[str, list[Chart]]:
    return {
        "distribution": list(_distributions(content))[:MOST_CHARTS],
        "composition": list(_compositions(content)),
        "length": list(_lengths(content)),
        "agreement": list(_agreements(content)),
        "training": list(_training(content)),
        "results": list(_results(content)),
    }


def _all(sections: dict[str, list[Chart]]) -> Iterator[Chart]:
    return (chart for section in sections.values() for chart in section)


def _distributions(content: Content) -> Iterator[Chart]:
    for number, found in enumerate(content.distributions):
        cuts: list[SliceFacts | None] = [cut for cut in content.slices if cut.name in found.linear.kept] or [
            None
        ]
        for place, cut in enumerate(cuts):
            yield from _on_both_axes(content, found, cut, f"{number}-{place}")


def _on_both_axes(
    content: Content, found: Distribution, cut: SliceFacts | None, name: str
) -> Iterator[Chart]:
    """The chart of a distribution and that by group, on each axis that there can be."""
    label = f" ({cut.label})" if cut and cut.label else ""
    part = f", and what {cut.name}{label} keeps" if cut else ""
    # A score that is better drawn on a linear axis has one chart, which is always shown.
    axes = (
        {"linear": found.linear, "logarithmic": found.logarithmic}
        if found.logarithmic
        else {"": found.linear}
    )
    for axis, bins in axes.items():
        assert bins is not None
        logarithmic = axis == "logarithmic"
        drawn = charts.histogram(found, bins, cut, logarithmic=logarithmic)
        caption = f"Distribution of {found.field} in {found.unit}{part}"
        yield Chart(f"whole-{name}-{axis}", caption, charts.compiled(drawn, caption), axis)
        if len(bins.by_group) > 1:
            drawn = charts.by_group(found, bins, cut, logarithmic=logarithmic)
            caption = f"{found.field} by {content.group_by}, each to its own height"
            yield Chart(f"groups-{name}-{axis}", caption, charts.compiled(drawn, caption), axis)


def _compositions(content: Content) -> Iterator[Chart]:
    for number, cut in enumerate(content.slices):
        if content.groups:
            caption = f"Share of each {content.group_by} that {cut.name} keeps; the dashed line is the whole"
            yield Chart(
                f"composition-{number}", caption, charts.compiled(charts.composition(content, cut), caption)
            )


def _lengths(content: Content) -> Iterator[Chart]:
    skewed = {found.field for found in content.distributions if found.logarithmic}
    for number, found in enumerate(content.lengths):
        if found.points:
            cut = next((each for each in content.slices if each.key == found.field), None)
            drawn = charts.length(found, cut, logarithmic=found.field in skewed)
            edges = "; dashed lines are the edges of the cut" if cut and cut.edges else ""
            caption = f"{found.field} against length in {found.of}{edges}"
            yield Chart(f"length-{number}", caption, charts.compiled(drawn, caption))


def _agreements(content: Content) -> Iterator[Chart]:
    for number, found in enumerate(content.agreements):
        if found.points:
            caption = f"{found.second} against {found.first}, as quantiles"
            yield Chart(f"scatter-{number}", caption, charts.compiled(charts.scatter(found), caption))
            caption = f"Records that {found.first} and {found.second} both keep; the ticks are chance"
            yield Chart(f"overlap-{number}", caption, charts.compiled(charts.overlaps(found), caption))


def _training(content: Content) -> Iterator[Chart]:
    for name, title in CURVES.items():
        if any(name in run.curves for run in content.runs):
            drawn = charts.curves(content.runs, name, title)
            yield Chart(f"training-{name}", title.capitalize(), charts.compiled(drawn, title))


def _results(content: Content) -> Iterator[Chart]:
    if any(each.interval for each in content.comparisons):
        caption = "Change of perplexity against the baseline, with 95 % intervals"
        yield Chart("forest", caption, charts.compiled(forests.perplexities(content.comparisons), caption))
    # A chart for each pair of models: in a common one, all pairs would share the row of a task.
    pairs = dict.fromkeys((each.model, each.against) for each in content.tasks if forests.is_share(each))
    for number, (model, against) in enumerate(pairs):
        own = [each for each in content.tasks if (each.model, each.against) == (model, against)]
        caption = f"{model} against {against} on tasks, with 95 % intervals"
        yield Chart(f"tasks-{number}", caption, charts.compiled(forests.shares(own), caption))
