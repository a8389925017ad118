"""How are comparisons drawn? Each as a point with its interval, beside the line of no difference."""

from collections.abc import Iterable, Sequence
from typing import Any

import altair as alt

from ..content import ComparisonFacts, TaskFacts
from .charts import INK, MUTED, WIDTH

Rows = Sequence[dict[str, Any]]


def perplexities(comparisons: Iterable[ComparisonFacts]) -> Any:
    """The relative change of perplexity of each comparison; below 0 is better."""
    rows = [
        {
            "name": f"{each.model} against {each.against}",
            "data": each.data,
            "effect": each.effect,
            "low": each.interval[0],
            "high": each.interval[1],
            "verdict": each.verdict,
        }
        for each in comparisons
        if each.interval is not None
    ]
    return _forest(rows, ("name", "data"), "change of perplexity (below 0 is better)", ".1%")


def shares(tasks: Iterable[TaskFacts]) -> Any:
    """The difference of each share between 0 and 1, in points; the colour says which is better."""
    rows = [
        {
            "name": each.task,
            "comparison": f"{each.model} against {each.against}",
            "documents": each.documents,
            "effect": 100 * each.delta,
            "low": 100 * each.interval[0],
            "high": 100 * each.interval[1],
            "verdict": each.verdict,
        }
        for each in tasks
        if is_share(each) and each.delta is not None and each.interval is not None
    ]
    return _forest(rows, ("name", "comparison", "documents"), "difference in points", ".3~g")


def is_share(task: TaskFacts) -> bool:
    """Whether both values lie between 0 and 1, as accuracies do: others have scales of their own."""
    values = (task.value, task.against_value)
    return task.interval is not None and all(value is not None and 0 <= value <= 1 for value in values)


def _forest(rows: Rows, told: Sequence[str], title: str, number: str) -> Any:
    """What crosses the line at 0 is not told apart."""
    verdicts = ["better", "worse", "not distinguishable"]
    colour = alt.Scale(domain=verdicts, range=["var(--better)", "var(--worse)", MUTED])
    base = alt.Chart(alt.InlineData(rows)).encode(
        y=alt.Y("name:N", title=None, sort=None, axis=alt.Axis(labelLimit=320, labelFontSize=12)),
        tooltip=[
            *(f"{name}:N" for name in (*told, "verdict")),
            *(alt.Tooltip(f"{name}:Q", format=f"+{number}") for name in ("effect", "low", "high")),
        ],
    )
    x = alt.X(
        "low:Q",
        title=title,
        axis=alt.Axis(format=f"+{number}", tickCount=6),
        scale=alt.Scale(zero=True, nice=True),
    )
    bars = base.mark_rule(strokeWidth=2).encode(
        x=x, x2="high:Q", stroke=alt.Stroke("verdict:N", scale=colour, legend=alt.Legend(title=None))
    )
    points = base.mark_point(size=70, filled=True, opacity=1).encode(
        x="effect:Q", fill=alt.Fill("verdict:N", scale=colour, legend=None)
    )
    zero = alt.Chart(alt.InlineData([{"x": 0}])).mark_rule(stroke=INK).encode(x="x:Q")
    return alt.layer(zero, bars, points).properties(width=WIDTH - 240, height=alt.Step(34))
