"""Which command lines does a grid come to, and which of them need the outputs of which others?

A grid is a list of steps. A step makes files out of files with one command line; it is named after the first
of its outputs. All paths are relative to the folder of the grid.
"""

import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prune_cli.training.recipe import PRESETS

AGREEMENT = "python3 -m shell.paper_grid.results --agreement"

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Step:
    """A command line that makes `outputs` out of `needs`, the outputs of other steps.

    `{lr}` in the command stands for the learning rate that the sweep chose. `tokens` are trained on, or
    scored; `flops` and `disk` (bytes) are estimates for --plan.
    """

    outputs: tuple[str, ...]
    command: str
    needs: tuple[str, ...] = ()
    tokens: float = 0
    flops: float = 0
    disk: float = 0

    @property
    def name(self) -> str:
        """The first output, which stands for the step."""
        return self.outputs[0]

    @property
    def kind(self) -> str:
        """The folder of its outputs: references, scored, ranked, cuts, runs, results, ..."""
        return self.name.partition("/")[0] if "/" in self.name else "files"


@dataclass(frozen=True)
class Arm:
    """What a model is trained on: everything, or a part of a ranking, as in `clean-middle-50`."""

    name: str
    score: str = ""
    part: str = ""
    percent: str = ""

    def cut(self, seed: int) -> str:
        """The name of the data for a seed. Each seed of a random arm draws another part of the pool, so that
        the intervals contain the luck of the draw.
        """
        return f"{self.name}-seed{seed}" if self.part == "random" else self.name


def arm(name: str) -> Arm:
    """The arm of a name: `all`, `random-50` or SCORE-PART-PERCENT. Exits on any other."""
    if name == "all":
        return Arm(name)
    if match := re.fullmatch(r"random-(\d+)", name):
        return Arm(name, part="random", percent=match[1])
    if match := re.fullmatch(r"(.+)-(bottom|middle|top)-(\d+)", name):
        return Arm(name, *match.groups())
    sys.exit(f"paper-grid: no arm is called {name}; name all, random-50 or SCORE-middle-50")


def expanded(names: Iterable[str]) -> list[str]:
    """The names with each {a,b} replaced by a, then by b, as a shell does."""
    done: list[str] = []
    for name in names:
        if match := re.search(r"\{([^{}]*)\}", name):
            choices = match[1].split(",")
            done += expanded(name[: match.start()] + choice + name[match.end() :] for choice in choices)
        else:
            done.append(name)
    return list(dict.fromkeys(done))


@dataclass(frozen=True)
class Grid:
    """A configuration, and the steps that it comes to. `data` replaces {data} in the commands of [files]."""

    config: Config
    data: Path = Path()
    arms: Sequence[Arm] = field(default=(), init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "arms", [arm(name) for name in expanded(self.config["runs"]["arms"])])

    # --- The steps, in the order in which they are started ---

    def steps(self) -> list[Step]:
        """All steps in the order in which they are started: the sweep, the arms as they are listed, and the
        rest, each right after what it needs. So the first arms do not wait for the references of the last.
        """
        wanted = [*self._sweep(), *self._runs(), *self._comparisons(), *self._agreements(), *self._glue()]
        wanted += self._report()
        by_output = {step.name: step for step in (*self._files(), *self._references(), *self._rankings())}
        by_output |= {step.name: step for step in wanted}
        ordered: dict[str, Step] = {}
        for step in wanted:
            _add(step, by_output, ordered)
        return list(ordered.values())

    def _files(self) -> Iterator[Step]:
        for name, command in self.config["files"].items():
            filled = command.replace("{data}", shlex.quote(str(self.data))).replace("{out}", f"{name}.new")
            needs = [
                other
                for other in self.config["files"]
                if re.search(rf"(?<![\w/-]){re.escape(other)}", command)
            ]
            yield Step((name,), f"{filled} && mv {name}.new {name}", tuple(needs))
        if "preset" not in self.config["model"]:
            lines = [f"{key} = {value}" for key, value in self.config["model"].items()]
            words = " ".join(shlex.quote(line) for line in lines)
            yield Step(
                ("model.toml",), f"printf '%s\\n' {words} > model.toml.new && mv model.toml.new model.toml"
            )

    def _references(self) -> Iterator[Step]:
        for name, reference in self.config["references"].items():
            for seed in _seeds(reference.get("seeds", 1)):
                options = (
                    ["--save-at " + ",".join(map(str, reference["save_at"]))]
                    if "save_at" in reference
                    else []
                )
                options.append(reference.get("options", ""))
                yield self._train(
                    f"references/{name}-{seed}", reference["data"], reference["steps"], seed, options
                )

    def _train(self, output: str, data: str, steps: int, seed: int, options: Sequence[str]) -> Step:
        tokenizer, needs = self._tokenizer(output)
        words = [
            self.config["runs"].get("train", "prune-cli train"),
            self._model(),
            tokenizer,
            f"--steps {steps} --seed {seed} --data-seed {seed}",
            *options,
            self.config["runs"].get("options", ""),
            f"--resume -o {output} {data}",
        ]
        tokens = steps * self.batch_tokens()
        # AdamW's two moments are beside the weights of the two checkpoints that a run can resume from.
        return Step(
            (output,),
            " ".join(filter(None, words)),
            tuple(filter(None, (data, self._shape_file(), needs))),
            tokens=tokens,
            flops=6 * self.parameters() * tokens,
            disk=4 * self.parameters(),
        )

    def _tokenizer(self, output: str) -> tuple[str, str]:
        """The option for the tokenizer, and the step that it needs. All models share the tokenizer that the
        first reference trains, so that perplexities compare, unless [tokenizer] names one.
        """
        tokenizer = self.config["tokenizer"]
        if "path" in tokenizer:
            return f"--tokenizer {shlex.quote(str(self.data / tokenizer['path']))}", ""
        first = f"references/{next(iter(self.config['references']))}-1"
        if output == first:
            return f"--train-tokenizer {tokenizer['vocabulary']}", ""
        return f"--tokenizer {first}", first

    def _model(self) -> str:
        model = self.config["model"]
        return f"--preset {model['preset']}" if "preset" in model else "--config model.toml"

    def _shape_file(self) -> str:
        return "" if "preset" in self.config["model"] else "model.toml"

    def _rankings(self) -> Iterator[Step]:
        for name, score in self.config["scores"].items():
            models = [model for entry in score["references"] for model in self._models(entry)]
            words = [
                f"prune-cli score -m {score['metric']}",
                *(f"--model {model}" for model in models),
                score.get("options", ""),
                f"--resume -o scored/{name}.jsonl.zst {self.pool}",
            ]
            tokens = self.config["plan"]["pool_tokens"] * max(1, len(models))
            yield Step(
                (f"scored/{name}.jsonl.zst",),
                " ".join(filter(None, words)),
                (
                    self.pool,
                    *(model.partition("/step-")[0] for model in models if model.startswith("references/")),
                ),
                tokens=tokens,
                flops=2 * self.parameters() * tokens,
                disk=4 * self.config["plan"]["pool_tokens"],
            )
            unit = self.config["runs"].get("by", "tokens")
            ranked = f"ranked/{name}.jsonl.zst"
            command = (
                f"prune-cli rank --by {unit} -k {score['metric']} -f -o {ranked} scored/{name}.jsonl.zst"
            )
            disk = 4 * self.config["plan"]["pool_tokens"]
            yield Step((ranked,), command, (f"scored/{name}.jsonl.zst",), disk=disk)

    def _models(self, entry: str) -> list[str]:
        """The directories of a reference, one for each seed: `crawl`, or after some steps `crawl@1000`.

        An entry with a slash is the directory of a model of the user's.
        """
        if "/" in entry:
            return [shlex.quote(entry.replace("{data}", str(self.data)))]
        name, _, step = entry.partition("@")
        if name not in self.config["references"]:
            sys.exit(f"paper-grid: a score uses the reference {name}, which is not in [references]")
        seeds = _seeds(self.config["references"][name].get("seeds", 1))
        return [f"references/{name}-{seed}" + (f"/step-{step}" if step else "") for seed in seeds]

    def _agreements(self) -> Iterator[Step]:
        for name, against in self.config.get("agreements", []):
            output = f"agreements/{name}-{against}.json"
            files = (f"ranked/{name}.jsonl.zst", f"ranked/{against}.jsonl.zst")
            yield Step((output,), f"{AGREEMENT} {' '.join(files)} -o {output}", files)

    def _sweep(self) -> Iterator[Step]:
        """The runs that choose the learning rate, on one arm, with a seed that no other run has."""
        if sweep := self.config.get("sweep"):
            for lr in sweep["lr"]:
                yield from self._run(f"sweep-{lr:g}", arm(sweep["arm"]), 0, f"--lr {lr:g}", [sweep["test"]])

    def _runs(self) -> Iterator[Step]:
        # The seeds of an arm follow each other: it is compared when it has all of them.
        lr = "--lr {lr}" if "sweep" in self.config else ""
        for each in self.arms:
            for seed in _seeds(self.config["runs"]["seeds"]):
                yield from self._run(
                    f"{each.name}-{seed}", each, seed, lr, list(self.config["tests"].values())
                )

    def _run(self, name: str, each: Arm, seed: int, lr: str, tests: Sequence[str]) -> Iterator[Step]:
        cut = self._cut(each, seed)
        data = cut.name if cut else self.pool
        yield from [cut] if cut else []
        options = [lr, self.config["runs"].get("arm_options", "")]
        train = self._train(f"runs/{name}", data, self.config["runs"]["steps"], seed, options)
        sweep = (
            tuple(f"results/sweep-{rate:g}.jsonl" for rate in self.config["sweep"]["lr"])
            if "{lr}" in lr
            else ()
        )
        yield Step(
            train.outputs, train.command, (*train.needs, *sweep), train.tokens, train.flops, train.disk
        )
        documents = f"documents/{name}.jsonl.zst"
        sets = " ".join(f"--data {test}" for test in tests)
        command = f"prune-cli eval runs/{name} {sets} --per-document {documents} --resume"
        tokens = self.config["plan"]["test_tokens"]
        yield Step(
            (f"results/{name}.jsonl", documents),
            f"{command} -o results/{name}.jsonl",
            (f"runs/{name}", *tests),
            tokens=tokens,
            flops=2 * self.parameters() * tokens,
        )

    def _cut(self, each: Arm, seed: int) -> Step | None:
        if not each.part:
            return None
        output = f"cuts/{each.cut(seed)}.jsonl.zst"
        # Any ranking will do for a random arm: it says how many tokens a document has.
        ranked = f"ranked/{each.score or next(iter(self.config['scores']))}.jsonl.zst"
        if each.score and each.score not in self.config["scores"]:
            sys.exit(f"paper-grid: the arm {each.name} uses a score that is not in [scores]")
        group = self.config["runs"].get("group_by", "")
        words = [
            f"prune-cli slice --keep {each.part} --frac {int(each.percent) / 100:g}",
            f"--seed {seed}" if each.part == "random" else "",
            f"--group-by {group}" if group else "",
            f"--summary cuts/{each.cut(seed)}.json -f -o {output} {ranked}",
        ]
        outputs = (output, f"cuts/{each.cut(seed)}.json")
        disk = 4 * self.config["plan"]["pool_tokens"] * int(each.percent) / 100
        return Step(outputs, " ".join(filter(None, words)), (ranked,), disk=disk)

    def _comparisons(self) -> Iterator[Step]:
        for one, other in self.pairs():
            output = f"comparisons/{one}-vs-{other}.jsonl"
            sides = [
                [f"documents/{name}-{seed}.jsonl.zst" for seed in _seeds(self.config["runs"]["seeds"])]
                for name in (one, other)
            ]
            against = " ".join(f"--against {path}" for path in sides[1])
            command = f"prune-cli eval {' '.join(sides[0])} {against} -f -o {output}"
            results = [
                f"results/{name}-{seed}.jsonl"
                for name in (one, other)
                for seed in _seeds(self.config["runs"]["seeds"])
            ]
            yield Step((output,), command, tuple(results))

    def _glue(self) -> Iterator[Step]:
        if glue := self.config.get("glue"):
            directory = shlex.quote(str(self.data / glue["directory"]))
            options = f"--tasks {glue['tasks']} --seeds {glue['seeds']} {glue.get('options', '')}".strip()
            for name in glue["arms"]:
                for seed in _seeds(self.config["runs"]["seeds"]):
                    run, output = f"runs/{name}-{seed}", f"glue/{name}-{seed}.jsonl"
                    command = f"prune-cli eval --glue {directory} {options} --resume -o {output} {run}"
                    yield Step((output,), command, (run,))

    def _report(self) -> Iterator[Step]:
        """One page: all comparisons, and the first cut of a score with the documents at its edges."""
        compared = [f"comparisons/{one}-vs-{other}.jsonl" for one, other in self.pairs()]
        cut = next((each for each in self.arms if each.score and each.part == "middle"), None)
        if not compared or cut is None:
            return
        part, ranked = f"cuts/{cut.cut(1)}.jsonl.zst", f"ranked/{cut.score}.jsonl.zst"
        results = " ".join(f"--results {path}" for path in compared)
        command = f"prune-cli report --slice {part} {results} -f -o report.html {ranked}"
        yield Step(("report.html",), command, (part, ranked, *compared))

    # --- Numbers ---

    @property
    def pool(self) -> str:
        """The file that is pruned."""
        pool: str = self.config["runs"]["pool"]
        return pool

    def pairs(self) -> list[tuple[str, str]]:
        """The arms that are compared: each with its baseline, and those of the hypotheses."""
        names = [each.name for each in self.arms]
        pairs = [(name, self.baseline(name)) for name in names if self.baseline(name)]
        for hypothesis in self.config.get("hypotheses", []):
            pairs += [(one, other) for one, other in hypothesis.get("pairs", [])]
            pairs += [(one, other) for one, other in hypothesis.get("as", [])]
        if missing := {name for pair in pairs for name in pair} - {*names}:
            sys.exit(f"paper-grid: a hypothesis uses the arm {min(missing)}, which is not in `arms`")
        return list(dict.fromkeys(pairs))

    def baseline(self, name: str) -> str:
        """The random arm of the same size; for the others the first random arm. Empty for that one."""
        random = [each for each in self.arms if each.part == "random"]
        same = [each.name for each in random if each.percent == arm(name).percent and each.name != name]
        first = random[0].name if random else ""
        return same[0] if same else first * (first != name)

    @property
    def shape(self) -> Mapping[str, float]:
        """The keys of a preset: layers, width, heads, context, ..."""
        model = self.config["model"]
        return {**PRESETS.get(model.get("preset", ""), {}), **model}

    def parameters(self) -> float:
        """Of a GPT-2: 12 width² a layer, and the embeddings of tokens and positions."""
        shape = self.shape
        vocabulary = self.config["tokenizer"].get("vocabulary") or shape["vocabulary"]
        embeddings = (vocabulary + shape["context"]) * shape["width"]
        return 12 * shape["layers"] * shape["width"] ** 2 + embeddings

    def batch_tokens(self) -> float:
        """Tokens of a step. An option of [runs] may differ from the preset, so [plan] may say it."""
        return float(self.config["plan"].get("batch_tokens", self.shape["batch_tokens"]))


def _add(step: Step, by_output: Mapping[str, Step], ordered: dict[str, Step]) -> None:
    """Add a step to those that are ordered, behind its needs."""
    for need in step.needs:
        if need in by_output and need not in ordered:
            _add(by_output[need], by_output, ordered)
    ordered[step.name] = step


def _seeds(count: int) -> range:
    return range(1, count + 1)
