"""Write man/, shell/completions/ and the README's table from what is declared: `python -m prune_cli.help.manual`; `--check` compares."""

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from .. import metrics
from ..cli import app
from ..version import __version__
from . import completions, overview
from .promises import PROMISES
from .screen import PIPELINE
from .spec import Option, Verb, verbs

ROOT = Path(__file__).resolve().parent.parent.parent
DATE = "2026-11-24"  # of the last change to what the pages say; without one, readers warn
TABLE = re.compile(r"(?<=<!-- verbs -->\n).*?(?=<!-- /verbs -->)", re.DOTALL)
ENDS = {"low": "Low scores are easy.", "high": "High scores are easy.", None: "Neither end is the easy one."}
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
    """Every document that is made from the declarations, by its place, with what it has to say."""
    known = verbs(app)
    pages = {f"prune-cli-{verb.name}.1": page(verb, known) for verb in known} | {
        "prune-cli.1": overview_page(known)
    }
    readme = ROOT / "README.md"
    return (
        {ROOT / "man" / name: text for name, text in pages.items()}
        | {ROOT / "shell" / "completions" / name: text for name, text in completions.scripts(known).items()}
        | {readme: TABLE.sub(lambda _: table(known), readme.read_text(encoding="utf-8"))}
    )


def main(arguments: list[str]) -> int:
    """Write the documents, or with --check name those that are not up to date; 1 if there are any."""
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


def table(known: Iterable[Verb]) -> str:
    """The verbs as a table in Markdown."""
    rows = "".join(
        f"| [`{verb.name}`](man/prune-cli-{verb.name}.1) | {verb.summary} | {verb.cost} |\n" for verb in known
    )
    return f"| verb | does | costs |\n|---|---|---|\n{rows}"


# --- pages, in the order of man-pages(7) ----------------------------------------------------------------------------------------


def page(verb: Verb, known: Iterable[Verb]) -> str:
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
            "0 where all is done; prune-cli(1) has the others.",
            ".SH NOTES",
            _text(verb.cost),
            ".SH EXAMPLES",
            "\n.PP\n".join(_example(told, command) for told, command in verb.examples),
            *_see_also(["prune-cli", *(f"prune-cli-{other.name}" for other in known if other is not verb)]),
            "",
        ]
    )


def overview_page(known: list[Verb]) -> str:
    """prune-cli(1): what all verbs have in common."""
    return "\n".join(
        [
            *_title("prune-cli", "prune pretraining corpora for language models"),
            ".SH SYNOPSIS",
            _usage("prune-cli VERB [OPTION]... [FILE]..."),
            ".SH DESCRIPTION",
            _paragraphs(overview.DESCRIPTION),
            *_terms((f"{_bold(f'prune-cli-{verb.name}')}(1)", verb.summary) for verb in known),
            ".SS Streams",
            _paragraphs(overview.STREAMS),
            ".SS Records",
            _paragraphs(overview.RECORDS),
            ".SS Messages",
            _paragraphs(overview.MESSAGES),
            ".SH EXIT STATUS",
            *_terms((_bold(str(status)), text) for status, text in sorted(overview.STATUSES.items())),
            ".PP",
            _text(overview.BY_SIGNAL),
            ".SH ENVIRONMENT",
            *_terms((_bold(name), text) for name, text in overview.ENVIRONMENT.items()),
            ".SH RELIABILITY",
            "What is promised, and the test that holds it, in the source.",
            ".ad l",
            *(line for promise, test in PROMISES.items() for line in _promise(promise, test)),
            ".ad b",
            ".SH EXAMPLES",
            _example(
                "Score a corpus, rank it, keep its middle half, train on it, and see if that was better:",
                PIPELINE,
            ),
            *_see_also([*(f"prune-cli-{verb.name}" for verb in known), "zstd", "jq", "sort"]),
            "",
        ]
    )


def _title(name: str, summary: str) -> Iterator[str]:
    yield '.\\" Generated by python -m prune_cli.help.manual from the declarations of the verbs; changes here are lost.'
    yield f'.TH {_escaped(name.upper())} 1 {DATE} "prune\\-cli {__version__}" "User Commands"'
    yield from (".SH NAME", f"{_escaped(name)} \\- {_escaped(_lowered(summary))}")


def _lowered(summary: str) -> str:
    """The description of a page has neither a capital nor a full stop."""
    return summary[0].lower() + summary[1:].replace("`", "").rstrip(".")


def _usage(usage: str) -> str:
    """What is typed as it stands in bold, what stands for something else in italics."""
    words = re.sub(r"\b[A-Z]+\b", r"\\fI\g<0>\\fP", _escaped(usage))
    return re.sub(r"^[^ ]+( [a-z]+)?", r"\\fB\g<0>\\fP", words)


def _options(options: Iterable[Option]) -> Iterator[str]:
    return _terms((_spellings(option), _told(option)) for option in options)


def _spellings(option: Option) -> str:
    names = ", ".join(_bold(name) for name in (*option.names, option.negation) if name)
    return f"{names} \\fI{_escaped(option.metavar)}\\fP" if option.metavar else names


def _told(option: Option) -> str:
    found = [option.help]
    if option.default:
        found.append(f"The default is {option.default}.")
    if option.variable:
        found.append(f"{option.variable} in the environment says so for every run.")
    return " ".join(found)


def _metrics() -> Iterator[str]:
    """What a record can be scored by, from the files of the metrics."""
    yield ".SS Metrics"
    loaded = [metrics.load(name) for name in metrics.names()]
    yield from _terms((_bold(one.name), f"{one.description} {ENDS[one.easy]}") for one in loaded)


def _example(told: str, command: str) -> str:
    return "\n".join([_text(told), ".PP", ".in +4n", ".EX", _escaped(command), ".EE", ".in"])


def _promise(promise: str, test: str) -> Iterator[str]:
    place = re.sub(r"[/_]|::", r"\g<0>\\:", _escaped(test))  # where a line may be broken
    yield from (".IP \\(bu 3", _text(promise), ".br", f"\\fI{place}\\fP")


def _see_also(names: Iterable[str]) -> Iterator[str]:
    yield from (
        ".SH SEE ALSO",
        ",\n".join(f".BR {_escaped(name)} (1)" for name in names).replace("(1),", "(1),"),
    )


# --- roff -------------------------------------------------------------------------------------------------------------------------


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
