"""What should a reader see first? The conclusions of a report as sentences, and what to be careful about."""

from collections import Counter
from collections.abc import Iterator, Sequence

from .content import Agreement, ComparisonFacts, Content, SliceFacts, TaskFacts, Volume

STRONG = 0.5  # rank correlation from which a cut by score is called a cut by length
NOTABLE = 0.3
MOST_COMPARISONS = 2  # that each get a sentence, whatever they show
FEWEST = 0.01  # of the records: a source below it is not worth a sentence


def findings(content: Content) -> list[str]:
    """The conclusions, the most important first."""
    lines: list[str] = []
    for cut in content.slices:
        lines += _of_slice(cut, content)
    lines += [_of_length(content)] if content.slices else []
    lines += _of_comparisons(content.comparisons)
    lines += _of_tasks(content.tasks)
    lines += [_of_agreement(each) for each in content.agreements]
    return [line for line in lines if line]


def _of_slice(cut: SliceFacts, content: Content) -> Iterator[str]:
    if content.corpus is None:
        yield f"{cut.name} holds {_amount(cut.amount)}."
        return
    whole = content.corpus.amount
    removed = Volume(whole.records - cut.amount.records, whole.tokens - cut.amount.tokens)
    yield (
        f"{cut.name} keeps {_part(cut)}{_amount(cut.amount)}, {_percent(cut.amount, whole)} of the "
        f"{_unit(whole)}. It removes {_amount(removed)}{_where(cut)}."
    )
    yield _by_group(cut, content)


def _part(cut: SliceFacts) -> str:
    of_key = f" of {cut.key}" if cut.key else ""
    return f"the {cut.label}{of_key}: " if cut.label else ""


def _where(cut: SliceFacts) -> str:
    """The scores that are removed, in words."""
    beyond = [
        f"{'below' if edge.keeps == 'above' else 'above'} {edge.score:.4g}"
        for edge in sorted(cut.edges, key=lambda edge: edge.score)
    ]
    return f", with a {cut.key} {' or '.join(beyond)}" if beyond else ""


def _by_group(cut: SliceFacts, content: Content) -> str:
    """The groups that lose the most and the least of their own."""
    total = content.corpus.amount if content.corpus else Volume()
    shares = {
        name: share(cut.groups.get(name, Volume()), amount)
        for name, amount in content.groups.items()
        if amount.records >= FEWEST * total.records
    }
    if len(shares) < 2:
        return ""
    least = min(shares, key=lambda name: shares[name])
    most = max(shares, key=lambda name: shares[name])
    if shares[most] - shares[least] < 0.02:
        return f"Every {content.group_by} keeps about the same share, {shares[least]:.0%}."
    return (
        f"By {content.group_by}, {least} loses most in {cut.name} ({shares[least]:.0%} of it is kept) "
        f"and {most} least ({shares[most]:.0%} is kept)."
    )


def _of_length(content: Content) -> str:
    key = next((cut.key for cut in content.slices if cut.key), None)
    length = next((each for each in content.lengths if each.field == key), None)
    if length is None or length.correlation is None:
        return ""
    value = length.correlation
    number = f"rank correlation of {length.field} with length {value:+.2f}"
    if abs(value) >= STRONG:
        return f"Length explains much of the cut: {number}. The cut is in large part one by length."
    if abs(value) >= NOTABLE:
        return f"Length explains a part of the cut: {number}."
    return f"Length does not explain the cut: {number}."


def _of_comparisons(comparisons: Sequence[ComparisonFacts]) -> Iterator[str]:
    """A sentence for each comparison; of many, for each that shows a difference, after a count."""
    if len(comparisons) <= MOST_COMPARISONS:
        yield from map(_of_comparison, comparisons)
        return
    yield f"Of {len(comparisons)} comparisons with a baseline: {_counted(comparisons)}."
    yield from (_of_comparison(each) for each in comparisons if each.verdict in ("better", "worse"))


def _counted(compared: Sequence[ComparisonFacts | TaskFacts]) -> str:
    verdicts = Counter(each.verdict for each in compared)
    return ", ".join(f"{verdicts[name]} {name}" for name in ("better", "worse", "not distinguishable"))


def _of_comparison(comparison: ComparisonFacts) -> str:
    if comparison.effect is None or comparison.interval is None:
        return ""
    low, high = comparison.interval
    return (
        f"{_claim(comparison)} on {comparison.data}: perplexity {comparison.effect:+.2%} "
        f"(95 % interval {low:+.2%} to {high:+.2%}).{_noise(comparison)}"
    )


def _claim(compared: ComparisonFacts | TaskFacts) -> str:
    claim = {
        "better": "is better than",
        "worse": "is worse than",
        "not distinguishable": "cannot be told from",
    }[compared.verdict]
    return f"{compared.model} {claim} {compared.against}"


def _noise(compared: ComparisonFacts | TaskFacts) -> str:
    return "" if compared.includes_training_noise else " The interval leaves out the noise of training."


def _of_tasks(tasks: Sequence[TaskFacts]) -> Iterator[str]:
    """A sentence for each average, and a count of the tasks."""
    for average in tasks:
        if average.is_average and average.delta is not None and average.interval is not None:
            low, high = (100 * end for end in average.interval)
            yield (
                f"{_claim(average)} on the {average.task}: {100 * average.delta:+.2f} points "
                f"(95 % interval {low:+.2f} to {high:+.2f}).{_noise(average)}"
            )
    alone = [task for task in tasks if not task.is_average]
    if len(alone) > 1:
        yield (
            f"Of {len(alone)} comparisons on tasks: {_counted(alone)}. By chance alone one in twenty would "
            "seem better or worse."
        )


def _of_agreement(agreement: Agreement) -> str:
    middle = next(each.share for each in agreement.shared if (each.part, each.frac) == ("middle", 0.5))
    if agreement.correlation is None:
        return ""
    return (
        f"{agreement.first} and {agreement.second} have a rank correlation of {agreement.correlation:+.2f}; "
        f"their middle halves share {middle:.0%} of their records (50% by chance)."
    )


def cautions(content: Content) -> list[str]:
    """What a reader may overlook."""
    lines = []
    corpus = content.corpus
    if corpus and corpus.nulls:
        lines.append(f"{corpus.nulls:,} of {corpus.amount.records:,} records have no score.")
    for length in content.lengths:
        if length.correlation is not None and abs(length.correlation) >= STRONG:
            lines.append(f"{length.field} goes with length: rank correlation {length.correlation:+.2f}.")
    duplicates = content.duplicates
    if duplicates and duplicates.copies > 0.01 * duplicates.records:
        lines.append(f"{duplicates.copies:,} records are exact copies of another one.")
    compared: list[ComparisonFacts | TaskFacts] = [*content.comparisons, *content.tasks]
    for model, against in dict.fromkeys(
        (each.model, each.against) for each in compared if not each.includes_training_noise
    ):
        lines.append(
            f"{model} and {against} are one training run each: a run with another seed may differ by more "
            "than the interval."
        )
    return lines


def mismatches(content: Content) -> Iterator[str]:
    """The slices that cannot have been cut from the corpus, and how that shows."""
    corpus = content.corpus
    if corpus is None:
        return
    for cut in content.slices:
        if cut.amount.records > corpus.amount.records or _has_more(cut, content):
            yield f"{cut.name} has records that {corpus.name} lacks: it is not a slice of it"
        elif None not in (cut.ranked, corpus.ranked) and cut.ranked != corpus.ranked:
            yield (
                f"{cut.name} was cut from a ranking of {cut.ranked:,} records, and {corpus.name} is one of "
                f"{corpus.ranked:,}: it is not a slice of it"
            )


def _has_more(cut: SliceFacts, content: Content) -> bool:
    """Whether the slice has more of a group than the whole."""
    return any(
        amount.records > content.groups.get(name, amount).records for name, amount in cut.groups.items()
    )


def share(kept: Volume, whole: Volume) -> float:
    """The fraction that is kept, in tokens if there are any."""
    if whole.tokens:
        return kept.tokens / whole.tokens
    return kept.records / max(whole.records, 1)


def _percent(kept: Volume, whole: Volume) -> str:
    return f"{share(kept, whole):.1%}"


def _unit(whole: Volume) -> str:
    return "tokens" if whole.tokens else "records"


def _amount(amount: Volume) -> str:
    tokens = f" ({amount.tokens:,} tokens)" if amount.tokens else ""
    return f"{amount.records:,} records{tokens}"
