"""Write man/, shell/completions/ and the README's table (`python -m prune_cli.help.manual [--check]`)."""

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from .. import metrics
from ..cli import application
from ..version import __version__
from . import completions, overview
from .promises import PROMISES
from .screen import PIPELINE
from .spec import OptionSpec, Verb, verbs

ROOT = Path(__file__).resolve().parent.parent.parent
DATE = "2026-11-28"  # of the last change of the pages; mandoc warns about a page without a date
TABLE = re.compile(r"(?<=<!-- verbs -->\n).*?(?=<!-- /verbs -->)", re.DOTALL)
ENDS = {"low": "Easy records score low.", "high": "Easy records score high.", None: "Has no easy end."}
ESCAPES = str.maketrans(
    {
        "\\": "\\(rs",
        "-": "\\-",
        "'": "\\(aq",
        "^": "\\(ha",
        "~": "\\(ti",
        "×": "\\(mu",
        "−": "\\-",
        "½": "\\(12",
    }
)


def documents() -> dict[Path, str]:
    """The text of every generated document, by its path."""
    all_verbs = verbs(application())
    pages = {f"prune-cli-{verb.name}.1": page(verb, all_verbs) for verb in all_verbs} | {
        "prune-cli.1": overview_page(all_verbs)
    }
    readme = ROOT / "README.md"
    return (
        {ROOT / "man" / name: text for name, text in pages.items()}
        | {
            ROOT / "shell" / "completions" / name: text
            for name, text in completions.scripts(all_verbs).items()
        }
        | {readme: TABLE.sub(lambda _: table(all_verbs), readme.read_text(encoding="utf-8"))}
    )


def main(arguments: list[str]) -> int:
    """Write the documents that are out of date. With --check only name them; return 1 if there are any."""
    stale = [
        path
        for path, text in documents().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    for path in stale:
        print(path.relative_to(ROOT))
        if "--check" not in arguments:
            path.parent.mkdir(exist_ok=True)
            path.write_text(documents()[path], encoding="utf-8")
    return int(bool(stale) and "--check" in arguments)


def table(all_verbs: Iterable[Verb]) -> str:
    """The verbs as a table in Markdown."""
    rows = "".join(
        f"| [`{verb.name}`](man/prune-cli-{verb.name}.1) | {verb.summary} |\n" for verb in all_verbs
    )
    return f"| verb | does |\n|---|---|\n{rows}"


# --- pages, in the order of man-pages(7) ------------------------------------------------------------


def page(verb: Verb, all_verbs: Iterable[Verb]) -> str:
    """The manual page of a verb, in man(7)."""
    name = f"prune-cli-{verb.name}"
    return "\n".join(
        [
            *_title(name, verb.summary),
            ".SH SYNOPSIS",
            _usage(verb.usage),
            ".SH DESCRIPTION",
            _paragraphs((verb.summary, *verb.description)),
            *(_metrics() if verb.name == "score" else ()),
            ".SH OPTIONS",
            *(
                line
                for title, options in verb.groups().items()
                for line in (f".SS {_escaped(title)}", *_options(options))
            ),
            *_terms({"\\fB\\-h\\fP, \\fB\\-\\-help\\fP": "Show the options on one screen."}.items()),
            ".SH EXIT STATUS",
            "0 on success; prune-cli(1) lists the others.",
            ".SH NOTES",
            _text(verb.cost),
            ".SH EXAMPLES",
            "\n.PP\n".join(_example(text, command) for text, command in verb.examples),
            *_see_also(
                ["prune-cli", *(f"prune-cli-{other.name}" for other in all_verbs if other is not verb)]
            ),
            "",
        ]
    )


def overview_page(all_verbs: list[Verb]) -> str:
    """prune-cli(1): everything that the verbs share."""
    return "\n".join(
        [
            *_title("prune-cli", "prune pretraining corpora for language models"),
            ".SH SYNOPSIS",
            _usage("prune-cli VERB [OPTION]... [FILE]..."),
            ".SH DESCRIPTION",
            _paragraphs(overview.DESCRIPTION),
            *_terms((f"{_bold(f'prune-cli-{verb.name}')}(1)", verb.summary) for verb in all_verbs),
            ".SS Streams",
            _paragraphs(overview.STREAMS),
            ".SS Records",
            _paragraphs(overview.RECORDS),
            ".SS Parquet",
            _paragraphs(overview.PARQUET),
            ".SS Object storage",
            _paragraphs(overview.REMOTE),
            ".SS Datasets",
            _paragraphs(overview.DATASETS),
            ".SS Engines",
            _paragraphs(overview.ENGINES),
            ".SS Messages",
            _paragraphs(overview.MESSAGES),
            ".SH EXIT STATUS",
            *_terms((_bold(str(status)), text) for status, text in sorted(overview.STATUSES.items())),
            ".PP",
            _text(overview.BY_SIGNAL),
            ".SH ENVIRONMENT",
            *_terms((_bold(name), text) for name, text in overview.ENVIRONMENT.items()),
            ".SH RELIABILITY",
            "Each promise, and the test in the source that checks it.",
            ".ad l",
            *(line for promise, test in PROMISES.items() for line in _promise(promise, test)),
            ".ad b",
            ".SH EXAMPLES",
            _example(
                "Score a corpus, rank it, keep its middle half, train on it, and compare the result:",
                PIPELINE,
            ),
            *_see_also([*(f"prune-cli-{verb.name}" for verb in all_verbs), "zstd", "jq", "sort"]),
            "",
        ]
    )


def _title(name: str, summary: str) -> Iterator[str]:
    yield f'.\\" {completions.GENERATED}'
    yield f'.TH {_escaped(name.upper())} 1 {DATE} "prune\\-cli {__version__}" "User Commands"'
    yield from (".SH NAME", f"{_escaped(name)} \\- {_escaped(_lowered(summary))}")


def _lowered(summary: str) -> str:
    """A summary for the NAME section, which has neither a capital nor a full stop."""
    return summary[0].lower() + summary[1:].replace("`", "").rstrip(".")


def _usage(usage: str) -> str:
    """Literal words in bold, placeholders in italics."""
    words = re.sub(r"\b[A-Z]+\b", r"\\fI\g<0>\\fP", _escaped(usage))
    return re.sub(r"^[^ ]+( [a-z]+)?", r"\\fB\g<0>\\fP", words)


def _options(options: Iterable[OptionSpec]) -> Iterator[str]:
    return _terms((_spellings(option), _explained(option)) for option in options)


def _spellings(option: OptionSpec) -> str:
    names = ", ".join(_bold(name) for name in (*option.names, option.negation) if name)
    return f"{names} \\fI{_escaped(option.metavar)}\\fP" if option.metavar else names


def _explained(option: OptionSpec) -> str:
    sentences = [option.help]
    if option.default:
        sentences.append(f"The default is {option.default}.")
    if option.variable:
        sentences.append(f"The environment variable {option.variable} sets it for every run.")
    return " ".join(sentences)


def _metrics() -> Iterator[str]:
    """The list of metrics, from the docstrings of their files."""
    yield ".SS Metrics"
    loaded = [metrics.load(name) for name in metrics.names()]
    yield from _terms((_bold(metric.name), f"{metric.description} {ENDS[metric.easy]}") for metric in loaded)


def _example(text: str, command: str) -> str:
    return "\n".join([_text(text), ".PP", ".in +4n", ".EX", _escaped(command), ".EE", ".in"])


def _promise(promise: str, test: str) -> Iterator[str]:
    place = re.sub(r"[/_]|::", r"\g<0>\\:", _escaped(test))  # a line may break after these
    yield from (".IP \\(bu 3", _text(promise), ".br", f"\\fI{place}\\fP")


def _see_also(names: Iterable[str]) -> Iterator[str]:
    yield from (
        ".SH SEE ALSO",
        ",\n".join(f".BR {_escaped(name)} (1)" for name in names),
    )


# --- roff ------------------------------------------------------------------------------------------------


def _terms(terms: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Terms, in roff, each with its explanation."""
    for term, text in terms:
        yield from (".TP", term, _text(text))


def _paragraphs(texts: Iterable[str]) -> str:
    return "\n.PP\n".join(map(_text, texts))


def _text(text: str) -> str:
    """Prose: each sentence on a line of its own, `code` in bold."""
    parts = [_bold(part) if index % 2 else _escaped(part) for index, part in enumerate(text.split("`"))]
    return re.sub(r"(?<=[\w)][.?:]) (?=[A-Z\\])", "\n", "".join(parts))


def _bold(text: str) -> str:
    return f"\\fB{_escaped(text)}\\fP"


def _escaped(text: str) -> str:
    """Text that roff leaves as it is; a hyphen becomes a minus, which can be copied."""
    return text.translate(ESCAPES)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
