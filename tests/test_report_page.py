"""The page of `report` in a real browser: drawn, quiet, searchable, harmless, accessible, small.

The browser is the system's Chromium; without it, or without axe-core, the tests that need it skip.
"""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import lines, status_of

pytest.importorskip("altair")
playwright = pytest.importorskip("playwright.sync_api")

CHROMIUM = shutil.which("chromium")
AXE = Path(sys.prefix) / "servers/node/node_modules/axe-core/axe.min.js"
HOSTILE = (
    "<script>document.title = 'pwned'</script>",
    "</script><script>document.title = 'pwned'</script><!-- <script>",
    "<img src=x onerror=\"document.title = 'pwned'\"> <a href=\"javascript:document.title='pwned'\">x</a>",
    "\u202eright to left override\u202c \u2066isolate",
    "x" * 1_000_000,
    "\u2028 \u2029 \\u003c/script\\u003e ]]> {{ 7 * 7 }} ${7 * 7}",
)


def corpus() -> list[dict]:
    """Web text, mail and code whose scores differ, with hostile texts among them."""
    records = []
    for index in range(600):
        source = ("web", "mail", "code")[index % 3]
        score = 10 * 1.01 ** (index * 7919 % 600) * (1 + index % 3)
        text = f"The document number {index} of {source} has a text of its own."
        record = {"id": f"doc-{index}", "text": text, "source": source, "perplexity": score}
        records.append({**record, "el2n": score % 97 / 97, "n_scored": 10 + index % 90})
    for index, text in enumerate(HOSTILE):
        hostile = {"id": f"hostile-{index} <b>", "text": text, "source": "<i>evil</i>", "el2n": 0.5}
        records.append({**hostile, "perplexity": 1.0 + index, "n_scored": 12})
    return records


RESULTS = [
    {"result": "likelihood", "model": "run", "data": "test", "group": None, "documents": 200}
    | {"perplexity": 31.2, "perplexity_interval": [30.0, 32.5], "bits_per_byte": 1.31},
    {"result": "comparison", "model": ["a", "b"], "against": ["c", "d"], "data": "test", "documents": 200}
    | {"effect": -0.0097, "effect_interval": [-0.014, -0.005], "p": 0.001, "includes_training_noise": True},
    {"result": "comparison", "model": "run", "against": "base", "data": "test", "documents": 200}
    | {"effect": 0.002, "effect_interval": [-0.01, 0.013], "p": 0.7, "includes_training_noise": False},
    {"result": "task comparison", "model": "run", "against": "base", "task": "quiz", "metric": "acc"}
    | {"higher_is_better": True, "documents": 60, "value": 0.5, "against_value": 0.35, "p": 0.04}
    | {"delta": 0.15, "delta_interval": [0.03, 0.27], "filter": "none"},
]


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """A page with everything on it: a ranking, a slice, two runs and their comparison."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "corpus.jsonl").write_bytes(lines(corpus()))
    (folder / "results.jsonl").write_bytes(lines(RESULTS))
    for name, steps in (("run", 300), ("base", 20)):
        (folder / name).mkdir()
        metrics = [
            {"step": step, "tokens": 512 * step, "loss": 9.0 / step**0.3, "lr": 1e-3, "passes": step / 100}
            | {"tokens_per_second": 1e4}
            for step in range(1, steps + 1)
        ]
        (folder / name / "metrics.jsonl").write_bytes(
            lines([*metrics[:-1], {**metrics[-1], "held_out_loss": 3.1}])
        )
    at = {each: str(folder / each) for each in ("corpus.jsonl", "ranked.zst", "middle.zst", "report.html")}
    ranking = ("rank", "-k", "perplexity", "--by", "tokens", at["corpus.jsonl"], "-o", at["ranked.zst"])
    assert status_of(*ranking) == 0
    middle = ("slice", "--keep", "middle", "--frac", "0.5", at["ranked.zst"], "-o", at["middle.zst"])
    assert status_of(*middle) == 0
    subjects = ("--run", folder / "run", "--run", folder / "base", "--results", folder / "results.jsonl")
    cut = ("--slice", at["middle.zst"], at["ranked.zst"])
    assert status_of("report", *subjects, *cut, "-o", at["report.html"]) == 0
    return Path(at["report.html"])


def test_the_page_is_small_and_names_no_address_to_load(page):
    html = page.read_text("utf-8")
    assert len(html.encode()) < 3_000_000
    markup = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", markup)
    assert html.index("Content-Security-Policy") < html.index("<style")


def test_without_documents_the_page_has_no_text(streams_of_page):
    html = streams_of_page
    assert "has a text of its own" not in html


@pytest.fixture
def streams_of_page(page, tmp_path) -> str:
    target = tmp_path / "bare.html"
    assert status_of("report", "--documents", "0", page.parent / "ranked.zst", "-o", target) == 0
    return target.read_text()


def test_without_its_packages_the_verb_says_what_to_install(here, page, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("prune_cli.stages.report.page")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "altair", None)
    done = here("report", page.parent / "ranked.zst", status=78)
    assert b"pip install 'prune-cli[report]'" in done.stderr
    assert done.stderr.count(b"\n") == 1


# --- In the browser ---


@pytest.fixture(scope="module")
def browser() -> Iterator:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as running:
        # Its sandbox refuses to start for root, which tests in a container are run as.
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        started = running.chromium.launch(executable_path=CHROMIUM, args=options)
        yield started
        started.close()


class Opened:
    """A page that is open and drawn, and what it said and asked for."""

    def __init__(self, browser, path: Path, **settings) -> None:
        self.said: list[str] = []
        self.requests: list[str] = []
        self.view = browser.new_page(**settings)
        self.view.on("console", lambda message: self.said.append(message.text))
        self.view.on("pageerror", lambda error: self.said.append(str(error)))
        self.view.on("dialog", lambda dialog: self.said.append(dialog.message))
        self.view.on("request", lambda request: self.requests.append(request.url))
        self.view.goto(path.as_uri())
        self.view.wait_for_selector("body[data-ready=yes]", timeout=120_000)


@pytest.fixture(scope="module")
def opened(browser, page) -> Opened:
    return Opened(browser, page, viewport={"width": 1100, "height": 900})


def test_nothing_is_said_and_nothing_is_asked_of_anybody(opened, page):
    assert opened.requests == [page.as_uri()]
    assert not opened.said


def test_charts_are_drawn(opened):
    marks = opened.view.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll('.drawing')]
            .filter((each) => each.offsetParent)
            .map((each) => [each.id, each.querySelectorAll(
                '.mark-rect path, .mark-symbol path, .mark-line path').length]))"""
    )
    assert {name.split("-")[0] for name in marks} == {
        *("whole", "groups", "composition", "length", "scatter", "overlap", "training", "forest", "tasks")
    }
    assert all(marks.values()), marks
    # A point for each record of the sample, a bar for each source.
    assert marks["scatter-0"] == len(corpus())
    assert marks["composition-0"] == 4


def test_the_other_axis_is_drawn_when_it_is_chosen(opened):
    view = opened.view
    assert not view.locator("#whole-0-0-linear").is_visible()
    view.check("input[value=linear]")
    view.wait_for_selector("#whole-0-0-linear .mark-rect path")
    assert not view.locator("#whole-0-0-logarithmic").is_visible()
    view.check("input[value=logarithmic]")
    assert view.locator("#whole-0-0-logarithmic").is_visible()


def test_a_bar_tells_its_quantiles(opened):
    bar = opened.view.locator("#whole-0-0-logarithmic .mark-rect path").nth(3)
    bar.hover()
    tip = opened.view.wait_for_selector("#vg-tooltip-element.visible")
    assert re.search(r"quantiles:?\s*0\.\d+ to 0\.\d+", tip.inner_text())


def test_search_filters_documents(opened):
    view = opened.view
    shown = view.locator("#documents details:visible")
    assert shown.count() == 20
    view.fill("#search", "of code has")
    view.click(".more")
    assert view.inner_text("#matches").split(" of ")[0] == str(shown.count())
    assert all("of code has" in text for text in shown.all_inner_texts())
    view.fill("#search", "")
    view.select_option("#group", "mail")
    assert all("mail" in text for text in shown.all_inner_texts())
    view.select_option("#group", "")


def test_hostile_documents_do_nothing_and_are_shown_whole(opened):
    view = opened.view
    view.fill("#search", "hostile-")
    # One document may be shown for several places.
    view.select_option("#place", "lowest")
    shown = view.locator("#documents details:visible")
    assert shown.count() == len(HOSTILE)
    for index in range(len(HOSTILE)):
        shown.nth(index).locator("summary").click()
        # The text is put there when the document is opened, a moment later.
        shown.nth(index).locator("pre").wait_for()
    texts = view.evaluate("[...document.querySelectorAll('#documents pre')].map((each) => each.textContent)")
    assert set(texts) == {text[:8_000] for text in HOSTILE}
    assert view.title() == "What was pruned"
    elements = ", ".join(f"#documents {name}" for name in ("img", "script", "a", "b", "i"))
    assert view.locator(elements).count() == 0
    # A megabyte without a space does not widen the page.
    assert view.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert not opened.said
    view.fill("#search", "")
    view.select_option("#place", "")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_barrier_is_found_by_axe(scheme, browser, page):
    if not AXE.is_file():
        pytest.skip("axe-core is not installed")
    opened = Opened(browser, page, color_scheme=scheme, bypass_csp=True)
    opened.view.add_script_tag(path=str(AXE))
    # What is drawn has a description instead; to look at each of its marks takes minutes.
    found = opened.view.evaluate("axe.run({exclude: ['.drawing svg g']})")
    serious = [each for each in found["violations"] if each["impact"] in ("serious", "critical")]
    assert not [(each["id"], each["nodes"][0]["html"][:200]) for each in serious], json.dumps(serious)[:2000]
    opened.view.close()


def test_a_narrow_screen_is_not_scrolled_sideways(browser, page):
    opened = Opened(browser, page, viewport={"width": 380, "height": 800})
    assert opened.view.evaluate("document.documentElement.scrollWidth <= innerWidth")
    opened.view.close()
