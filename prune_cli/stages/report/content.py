"""What does a report say? Numbers, names and documents as plain data, for the page and for `--json`."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Volume:
    """Records and their tokens."""

    records: int = 0
    tokens: int = 0


@dataclass(frozen=True)
class Step:
    """A verb that the stream went through, and its command line."""

    verb: str
    command: str


@dataclass(frozen=True)
class StreamFacts:
    """A stream as its head and its records describe it; `nulls` are records without any of the scores."""

    name: str
    amount: Volume
    nulls: int
    text_bytes: int
    version: str | None
    steps: list[Step]
    key: str | None = None  # that it is ranked by
    unit: str = "records"  # that it is ranked in
    ranked: int | None = None  # scored records of the whole ranking


@dataclass(frozen=True)
class Bins:
    """Records or tokens between neighbouring `edges` (n + 1): of the whole, and kept by each slice, (n) each.

    With `clips_low` or `clips_high` the outermost bins hold all that lies beyond them, too. `quantiles` are
    the parts of the distribution below each edge.
    """

    edges: list[float]
    quantiles: list[float]
    whole: list[int]
    kept: dict[str, list[int]]
    by_group: dict[str, list[int]]
    clips_low: bool
    clips_high: bool


@dataclass(frozen=True)
class Distribution:
    """How a score is distributed, counted in `unit`. `logarithmic` is None where `linear` shows more."""

    field: str
    unit: str
    records: int
    quantiles: dict[str, float]
    group_quantiles: dict[str, dict[str, float]]
    linear: Bins
    logarithmic: Bins | None


@dataclass(frozen=True)
class CutEnd:
    """A score at which a slice begins or ends. `keeps` says on which side the kept records lie."""

    score: float
    keeps: str  # above or below


@dataclass(frozen=True)
class SliceFacts:
    """What a slice kept, whole and by group, and at which scores of the field `key` it begins and ends."""

    name: str
    label: str  # such as "middle 50 % by tokens"; empty if nothing says it
    key: str | None
    amount: Volume
    groups: dict[str, Volume]
    edges: list[CutEnd]
    steps: list[Step]
    ranked: int | None = None  # scored records of the whole ranking from which it was cut


@dataclass(frozen=True)
class Length:
    """Score against length: Spearman's correlation over `sampled` records, and points (length, score)."""

    field: str
    correlation: float | None
    sampled: int
    is_exact: bool
    of: str  # tokens, or bytes of the line
    points: list[tuple[float, float]]


@dataclass(frozen=True)
class Shared:
    """How much of what one score would keep the other would keep too, from 0 to 1."""

    part: str  # bottom, middle or top
    frac: float
    share: float


@dataclass(frozen=True)
class Agreement:
    """Two scores of the same records; points are their quantiles, (x, y)."""

    first: str
    second: str
    correlation: float | None
    sampled: int
    is_exact: bool
    shared: list[Shared]
    points: list[tuple[float, float]]


@dataclass(frozen=True)
class ShownDocument:
    """A record to read, and why it is shown. `length` is that of its text in characters."""

    place: str
    group: str | None
    name: str
    scores: dict[str, float | None]
    tokens: int
    length: int
    text: str


@dataclass(frozen=True)
class Duplicates:
    """Exact copies: of `records`, how many are copies of an earlier one; an estimate for very many texts."""

    records: int
    copies: int
    most_often: int
    is_exact: bool


@dataclass(frozen=True)
class Curve:
    """A quantity over the steps of a run, thinned out without losing its extremes."""

    steps: list[int]
    values: list[float]


@dataclass(frozen=True)
class RunFacts:
    """A training run: its curves by quantity, its settings with their origin, and its counts."""

    name: str
    curves: dict[str, Curve]
    settings: dict[str, str]
    counts: dict[str, float]
    last: dict[str, float]


@dataclass(frozen=True)
class ComparisonFacts:
    """A model, or several seeds of it, against a baseline.

    The effect is the relative change of perplexity: below 0 is better.
    """

    model: str
    against: str
    data: str
    documents: int
    effect: float | None
    interval: tuple[float, float] | None
    p: float | None
    includes_training_noise: bool

    @property
    def verdict(self) -> str:
        """What the interval says of the model."""
        return _verdict(self.interval if self.effect is not None else None, higher_is_better=False)


@dataclass(frozen=True)
class TaskFacts:
    """A model, or several seeds of it, against a baseline on a task, or on the average of several.

    `delta` is the difference of the values.
    """

    model: str
    against: str
    task: str  # with its metric
    is_average: bool
    higher_is_better: bool
    documents: int
    value: float | None
    against_value: float | None
    delta: float | None
    interval: tuple[float, float] | None
    p: float | None
    includes_training_noise: bool

    @property
    def verdict(self) -> str:
        """What the interval says of the model."""
        return _verdict(self.interval if self.delta is not None else None, self.higher_is_better)


def _verdict(interval: tuple[float, float] | None, higher_is_better: bool) -> str:
    if interval is None:
        return "unknown"
    low, high = interval
    if low <= 0 <= high:
        return "not distinguishable"
    return "better" if (low > 0) == higher_is_better else "worse"


@dataclass(frozen=True)
class LikelihoodFacts:
    """How well a model predicts a test set, whole or one `group` of it."""

    model: str
    data: str
    group: str | None
    documents: int
    perplexity: float | None
    interval: tuple[float, float] | None
    bits_per_byte: float | None


@dataclass(frozen=True)
class Content:
    """All of a report."""

    title: str
    version: str
    command: str
    created: str
    corpus: StreamFacts | None = None
    group_by: str = "source"
    groups: dict[str, Volume] = field(default_factory=dict)
    slices: list[SliceFacts] = field(default_factory=list)
    distributions: list[Distribution] = field(default_factory=list)
    lengths: list[Length] = field(default_factory=list)
    agreements: list[Agreement] = field(default_factory=list)
    duplicates: Duplicates | None = None
    documents: list[ShownDocument] = field(default_factory=list)
    runs: list[RunFacts] = field(default_factory=list)
    likelihoods: list[LikelihoodFacts] = field(default_factory=list)
    comparisons: list[ComparisonFacts] = field(default_factory=list)
    tasks: list[TaskFacts] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
