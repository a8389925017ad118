"""How is each part of a report drawn? As Vega specifications, whose colours are those of the page's style.

Altair writes Vega-Lite, which is compiled here, so that the browser has less to do. Colours are CSS
variables: a chart follows the reader's light or dark mode without being drawn again.
"""

import json
from collections.abc import Sequence
from typing import Any

import altair as alt
import vl_convert

from ..content import Agreement, Bins, Content, Distribution, Length, RunFacts, SliceFacts
from ..findings import share

Rows = list[dict[str, Any]]
Spec = dict[str, Any]
WIDTH = 780
KEPT, CUT, INK, MUTED, RULE = (f"var(--{name})" for name in ("kept", "cut", "ink", "muted", "rule"))
# That of the page. Named, because the width of labels is measured where nothing can be inherited.
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif'
SERIES = [f"var(--series-{number})" for number in range(1, 7)]
VEGA_LITE = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])


def compiled(chart: Any, description: str) -> Spec:
    """The Vega specification of a chart, with its description for those who cannot see it."""
    spec = _styled(chart).to_dict()
    vega = vl_convert.vegalite_to_vega(json.dumps(spec), vl_version=VEGA_LITE)
    return {**vega, "description": description}


def _styled(chart: Any) -> Any:
    return (
        chart.configure(background="transparent", font=FONT)
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=MUTED,
            titleColor=INK,
            tickColor=RULE,
            domainColor=RULE,
            gridColor=RULE,
            gridOpacity=0.6,
            titleFontWeight="normal",
            labelFontSize=11,
            titleFontSize=12,
        )
        .configure_legend(labelColor=INK, titleColor=INK, orient="top", labelFontSize=12)
        .configure_header(labelColor=INK, titleColor=INK, labelFontSize=12)
    )


# --- Distributions ---


def histogram(found: Distribution, bins: Bins, cut: SliceFacts | None, *, logarithmic: bool) -> Any:
    """Bars of a score: the kept part of each, the part that is cut on top, and a line at each edge."""
    scale = _scale(bins, logarithmic)
    bars = (
        alt.Chart(alt.InlineData(_bar_rows(bins, cut)))
        .mark_rect(stroke="var(--page)", strokeWidth=0.5)
        .encode(
            x=alt.X("low:Q", scale=scale, title=found.field, axis=alt.Axis(grid=False, format="~g")),
            x2="high:Q",
            y=alt.Y("bottom:Q", title=found.unit, axis=alt.Axis(format="~s", tickCount=5)),
            y2="top:Q",
            fill=alt.Fill("part:N", scale=_parts(cut), legend=_legend(cut)),
            tooltip=_bar_tooltip(found),
        )
    )
    return _layered([bars, *_edges(cut, found.field)]).properties(width=WIDTH, height=240)


def _parts(cut: SliceFacts | None) -> Any:
    domain = ["kept", "cut"] if cut else ["all"]
    return alt.Scale(domain=domain, range=[KEPT, CUT] if cut else [KEPT])


def _legend(cut: SliceFacts | None) -> Any:
    return alt.Legend(title=None) if cut else None


def _bar_tooltip(found: Distribution) -> list[Any]:
    return [
        alt.Tooltip("range:N", title=found.field),
        alt.Tooltip("quantiles:N", title="quantiles"),
        alt.Tooltip("count:Q", title=f"{found.unit} in it", format=","),
        alt.Tooltip("kept:N", title="kept"),
    ]


def _bar_rows(bins: Bins, cut: SliceFacts | None) -> Rows:
    kept = bins.kept.get(cut.name, [0] * len(bins.whole)) if cut else bins.whole
    rows: Rows = []
    for number, (whole, part) in enumerate(zip(bins.whole, kept, strict=True)):
        # A slice that is not of this stream may have more than the whole.
        part = min(part, whole)
        common = {
            "low": bins.edges[number],
            "high": bins.edges[number + 1],
            "range": _range_text(bins, number),
            "quantiles": f"{bins.quantiles[number]:.3f} to {bins.quantiles[number + 1]:.3f}",
            "count": whole,
            "kept": f"{part / whole:.0%}" if whole else "",
        }
        rows.append({**common, "bottom": 0, "top": part, "part": "kept" if cut else "all"})
        if cut:
            rows.append({**common, "bottom": part, "top": whole, "part": "cut"})
    return [row for row in rows if row["top"] > row["bottom"]]


def _range_text(bins: Bins, number: int) -> str:
    low = f"{bins.edges[number]:.4g}"
    high = f"{bins.edges[number + 1]:.4g}"
    if number == 0 and bins.clips_low:
        return f"below {high}"
    if number == len(bins.whole) - 1 and bins.clips_high:
        return f"above {low}"
    return f"{low} to {high}"


def by_group(found: Distribution, bins: Bins, cut: SliceFacts | None, *, logarithmic: bool) -> Any:
    """A row of bars for each group, each as high as its own largest bar, with the edges of the cut."""
    groups = list(bins.by_group)
    height = len(groups)
    rows = [row for place, group in enumerate(groups) for row in _group_rows(bins, group, height - 1 - place)]
    y = alt.Y("bottom:Q", axis=None, scale=alt.Scale(domain=[0, height], nice=False))
    x = alt.X(
        "low:Q",
        scale=_scale(bins, logarithmic),
        title=found.field,
        axis=alt.Axis(grid=False, format="~g"),
    )
    bars = (
        alt.Chart(alt.InlineData(rows))
        .mark_rect(fill=MUTED)
        .encode(
            x=x,
            x2="high:Q",
            y=y,
            y2="top:Q",
            tooltip=[
                alt.Tooltip("group:N", title="group"),
                alt.Tooltip("range:N", title=found.field),
                alt.Tooltip("count:Q", title=f"{found.unit} in it", format=","),
            ],
        )
    )
    # Names as marks: an axis of numbers has none, and a facet for each group takes a whole chart.
    names = [{"group": group, "bottom": height - 1 - place} for place, group in enumerate(groups)]
    labels = (
        alt.Chart(alt.InlineData(names))
        .mark_text(align="right", baseline="bottom", fill=INK, fontSize=12, limit=130)
        .encode(x=alt.value(-8), y=y, text="group:N")
    )
    layers = [bars, labels, *_edges(cut, found.field, labelled=False)]
    # Names stand outside the drawing, where only padding makes room for them.
    room = {"left": 130, "top": 4, "right": 4, "bottom": 4}
    return alt.layer(*layers).properties(width=WIDTH - 120, height=38 * height, padding=room)


def _group_rows(bins: Bins, group: str, bottom: int) -> Rows:
    counts = bins.by_group[group]
    # A little less than a whole row, so that rows do not touch.
    largest = max([*counts, 1]) / 0.88
    return [
        {
            "group": group,
            "low": bins.edges[number],
            "high": bins.edges[number + 1],
            "range": _range_text(bins, number),
            "bottom": bottom,
            "top": bottom + count / largest,
            "count": count,
        }
        for number, count in enumerate(counts)
        if count
    ]


def _scale(bins: Bins, logarithmic: bool) -> Any:
    return alt.Scale(
        type="log" if logarithmic else "linear",
        domain=[bins.edges[0], bins.edges[-1]],
        nice=False,
        zero=False,
    )


def _edges(cut: SliceFacts | None, field: str, *, labelled: bool = True) -> list[Any]:
    """A line at each edge of a cut of this score, with the score beside it if `labelled`."""
    if cut is None or cut.key != field or not cut.edges:
        return []
    rows = [{"score": edge.score, "label": f"{edge.score:.4g}"} for edge in cut.edges]
    base = alt.Chart(alt.InlineData(rows)).encode(x="score:Q")
    lines = base.mark_rule(stroke=INK, strokeDash=[4, 3], strokeWidth=1.2)
    # A halo in the colour of the page keeps a label readable over bars.
    text = base.mark_text(align="left", dx=4, dy=2, baseline="top", fill=INK, fontSize=12)
    halo = base.mark_text(
        align="left", dx=4, dy=2, baseline="top", stroke="var(--page)", strokeWidth=4, fontSize=12
    )
    labels = [each.encode(y=alt.value(0), text="label:N") for each in (halo, text)]
    return [lines, *(labels if labelled else [])]


def _layered(layers: Sequence[Any]) -> Any:
    return layers[0] if len(layers) == 1 else alt.layer(*layers)


# --- Composition ---


def composition(content: Content, cut: SliceFacts) -> Any:
    """The share of each group that a slice keeps, with a line at the share of the whole."""
    whole = content.corpus.amount if content.corpus else cut.amount
    rows = [
        {
            "group": name,
            "share": min(1.0, share(cut.groups[name], amount)) if name in cut.groups else 0.0,
            "records": amount.records,
            "tokens": amount.tokens,
        }
        for name, amount in list(content.groups.items())[:20]
    ]
    bars = (
        alt.Chart(alt.InlineData(rows))
        .mark_bar(fill=KEPT, height={"band": 0.62})
        .encode(
            y=alt.Y("group:N", sort="-x", title=None, axis=alt.Axis(labelLimit=160, labelFontSize=12)),
            x=alt.X(
                "share:Q",
                title="share kept",
                scale=alt.Scale(domain=[0, 1]),
                axis=alt.Axis(format="%", tickCount=5),
            ),
            tooltip=[
                alt.Tooltip("group:N", title=content.group_by),
                alt.Tooltip("share:Q", title="kept", format=".1%"),
                alt.Tooltip("records:Q", title="records before", format=","),
                alt.Tooltip("tokens:Q", title="tokens before", format=","),
            ],
        )
    )
    labels = bars.mark_text(align="left", dx=4, fill=INK).encode(text=alt.Text("share:Q", format=".0%"))
    mean = alt.Chart(alt.InlineData([{"share": share(cut.amount, whole)}]))
    line = mean.mark_rule(stroke=INK, strokeDash=[4, 3]).encode(x="share:Q")
    return alt.layer(bars, labels, line).properties(width=WIDTH - 140, height=alt.Step(24))


# --- Relations ---


def length(found: Length, cut: SliceFacts | None, *, logarithmic: bool) -> Any:
    """Score against length, a point a record, with lines at the edges of the cut."""
    rows = [{"length": max(size, 1), "score": score} for size, score in found.points]
    points = (
        alt.Chart(alt.InlineData(rows))
        .mark_circle(size=12, opacity=0.45, fill=KEPT)
        .encode(
            x=alt.X(
                "length:Q",
                scale=alt.Scale(type="log", nice=False),
                title=found.of,
                axis=alt.Axis(grid=False, format="~s"),
            ),
            y=alt.Y(
                "score:Q",
                scale=alt.Scale(type="log" if logarithmic else "linear", zero=False, nice=False),
                title=found.field,
                axis=alt.Axis(format="~g", tickCount=6),
            ),
        )
    )
    lines = [
        alt.Chart(alt.InlineData([{"score": edge.score}]))
        .mark_rule(stroke=INK, strokeDash=[4, 3])
        .encode(y="score:Q")
        for edge in (cut.edges if cut and cut.key == found.field else [])
    ]
    return _layered([points, *lines]).properties(width=WIDTH, height=280)


def scatter(found: Agreement) -> Any:
    """Two scores of the same records, as quantiles: a line if they agree, a cloud if they do not."""
    rows = [{"x": x, "y": y} for x, y in found.points]
    axis = alt.Axis(format="%", tickCount=5)
    unit = alt.Scale(domain=[0, 1])
    return (
        alt.Chart(alt.InlineData(rows))
        .mark_circle(size=12, opacity=0.45, fill=KEPT)
        .encode(
            x=alt.X("x:Q", scale=unit, title=f"{found.first} (quantile)", axis=axis),
            y=alt.Y("y:Q", scale=unit, title=f"{found.second} (quantile)", axis=axis),
        )
        .properties(width=300, height=280)
    )


def overlaps(found: Agreement) -> Any:
    """How much of what one score keeps the other keeps too, by part and fraction."""
    rows = [
        {"part": each.part, "frac": f"{each.frac:.0%}", "share": each.share, "chance": each.frac}
        for each in found.shared
    ]
    parts = ["bottom", "middle", "top"]
    base = alt.Chart(alt.InlineData(rows)).encode(
        x=alt.X("frac:N", title="fraction kept", sort=None, axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset("part:N", sort=parts),
    )
    bars = base.mark_bar().encode(
        y=alt.Y(
            "share:Q",
            scale=alt.Scale(domain=[0, 1]),
            title="kept by both",
            axis=alt.Axis(format="%", tickCount=5),
        ),
        fill=alt.Fill("part:N", sort=parts, scale=alt.Scale(range=SERIES[:3]), legend=alt.Legend(title=None)),
        tooltip=[
            "part:N",
            "frac:N",
            alt.Tooltip("share:Q", title="kept by both", format=".1%"),
            alt.Tooltip("chance:Q", title="by chance", format=".0%"),
        ],
    )
    chance = base.mark_tick(stroke=INK, thickness=2, width=14, fill=INK).encode(y="chance:Q")
    return alt.layer(bars, chance).properties(width=300, height=280)


# --- Training and results ---


def curves(runs: Sequence[RunFacts], name: str, title: str) -> Any:
    """One quantity of several runs over their steps."""
    rows = [
        {"run": run.name, "step": step, "value": value}
        for run in runs
        if name in run.curves
        for step, value in zip(run.curves[name].steps, run.curves[name].values, strict=True)
    ]
    few = len(rows) <= 60 * len(runs)
    names = [run.name for run in runs]
    return (
        alt.Chart(alt.InlineData(rows))
        .mark_line(strokeWidth=1.5, point=few)
        .encode(
            x=alt.X("step:Q", title="step", axis=alt.Axis(grid=False, format="~s")),
            y=alt.Y(
                "value:Q", title=title, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5, format="~g")
            ),
            stroke=alt.Stroke(
                "run:N",
                scale=alt.Scale(domain=names, range=SERIES),
                legend=alt.Legend(title=None) if len(names) > 1 else None,
            ),
            tooltip=["run:N", "step:Q", alt.Tooltip("value:Q", title=title, format=".5~g")],
        )
        .properties(width=WIDTH, height=180)
    )
