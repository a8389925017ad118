"""The house has floors: imports point down, siblings do not import each other, every package has one home."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT

PACKAGE = ROOT / "prune_cli"
FLOORS = [
    "version errors sizes terminal charts reference __init__",
    "settings",
    "storage",
    "stream formats",
    "records",
    "statistics metrics models texts",
    "training",
    "stages engines",
    "commands",
    "cli __main__ api help",
]
SIBLINGS = ("commands", "stages", "metrics")  # rooms whose files, or folders, stand side by side
SHARED_ROOMS = {
    "stages.ranking_check",
    "stages.joining",
    "stages.measured_cut",
    "stages.score_file",
    "stages.streams",
    "stages.input_digests",
    "stages.datasets",
    "stages.ranked_parts",
    "stages.divided",
    "stages.score.windows",
    "commands.options",
    "commands.conflicts",
}
HOMES = {
    "typer": ("cli", "commands", "help.spec", "help.screen"),
    "rich": ("terminal",),
    "obstore": ("storage.objects.client",),
    "boto3": ("storage.objects.credentials",),
    "botocore": ("storage.objects.credentials",),
    "orjson": ("stream", "records", "storage", "stages", "training"),
    "msgspec": ("stream", "records"),
    "zstandard": ("stream", "records"),
    "ray": ("engines.ray",),
    "altair": ("stages.report.page.charts", "stages.report.page.forests"),
    "vl_convert": ("stages.report.page",),
    "jinja2": ("stages.report.page.render",),
    "pyarrow": ("formats.parquet_json", "formats.parquet_rows", "formats.parquet_texts"),
    "kenlm": ("models.ngram",),
    "sentencepiece": ("models.ngram",),
    "fasttext": ("texts.classifier",),
    "transformers": ("models", "training.model"),
    "tokenizers": ("models",),
    "safetensors": ("models", "training.model"),
    "huggingface_hub": ("models", "storage.remote.hub"),
    "torch": ("models", "training", "metrics", "stages.eval"),
}
FILES = sorted(PACKAGE.rglob("*.py"))


def name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def floor(module: str) -> int:
    room = module.split(".")[0]
    return next(height for height, rooms in enumerate(FLOORS) if room in rooms.split())


def imports(path: Path) -> set[str]:
    """Everything a file imports, our own modules as `.name`."""
    found, here = (
        set(),
        [*name(path).split("."), ""]
        if path.stem == "__init__" and path.parent != PACKAGE
        else name(path).split("."),
    )
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module))
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level]
            for alias in node.names:
                module = ".".join([*base, *([node.module] if node.module else [])])
                child = f"{module}.{alias.name}".lstrip(".")
                is_file = (PACKAGE / child.replace(".", "/")).with_suffix(".py").exists() or (
                    PACKAGE / child.replace(".", "/")
                ).is_dir()
                found.add("." + (child if is_file else module or "__init__"))
    return found


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_point_down(path):
    module = name(path) or "__init__"
    room = module.split(".")[0]
    for imported in (each[1:] for each in imports(path) if each.startswith(".")):
        is_door = (module, imported) == ("__init__", "api")  # which is opened when somebody comes
        assert is_door or floor(imported) <= floor(module), f"{module} reaches up to {imported}"
        is_same_verb = imported.split(".")[:2] == module.split(".")[:2]
        if imported.split(".")[0] == room and room in SIBLINGS and not is_same_verb:
            assert imported in {*SHARED_ROOMS, room, module}, f"{module} imports its sibling {imported}"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_every_package_has_one_home(path):
    module = name(path) or "__init__"
    for imported in (each.split(".")[0] for each in imports(path) if not each.startswith(".")):
        homes = HOMES.get(imported)
        if homes is not None:
            assert any(module == home or module.startswith(home + ".") for home in homes), (
                f"{module} imports {imported}"
            )
        else:
            assert imported in sys.stdlib_module_names | {"numpy"}, f"{imported} has no home in the list"


def test_the_house_has_no_circles():
    """Within a room files may lean on each other, but not in a circle."""
    below = {
        name(path) or "__init__": {each[1:] for each in imports(path) if each.startswith(".")}
        for path in FILES
    }

    walked = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " → ".join((*path, module))
        if module in walked:
            return
        for imported in below.get(module, ()):
            if imported != "__init__":
                walk(imported, (*path, module))
        walked.add(module)

    for module in below:
        walk(module, ())


@pytest.mark.parametrize("verb", ["slice", "rank"])
def test_help_loads_nothing_heavy(verb):
    heavy = (
        "torch",
        "transformers",
        "numpy",
        "rich",
        "pydantic",
        "msgspec",
        "orjson",
        "zstandard",
        "pyarrow",
    )
    script = (
        "import sys; from prune_cli import cli; status = cli.run(sys.argv[1:]);"
        f"print(status, [name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, verb, "--help"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.stderr == "0 []\n"
    assert "usage: prune-cli" in done.stdout


def test_no_reader_that_hides_truncation_is_used():
    """zstandard's stream readers end a truncated file without an error, and some stop after the first
    frame.
    """
    for path in FILES:
        calls = {
            node.func.attr
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        }
        assert not calls & {"stream_reader", "read_to_iter", "copy_stream"}, path
        assert "zstandard.open" not in path.read_text()


# Names that lead to a descriptor or to the system's record of a file. `storage/` alone knows them.
DESCRIPTORS = {
    "descriptor",
    "fileno",
    "fstat",
    "lseek",
    "pread",
    "preadv",
    "pwrite",
    "ftruncate",
    "fsync",
    "realpath",
}
SYSTEM_CALLS = DESCRIPTORS | {
    "open",
    "read",
    "write",
    "close",
    "stat",
    "lstat",
    "dup",
    "dup2",
    "isatty",
    "pipe",
}
BELOW_STORAGE = ("storage", "terminal")  # a terminal is written to as it is, with no storage in between


@pytest.mark.parametrize("path", FILES, ids=name)
def test_only_storage_knows_descriptors(path):
    module = name(path) or "__init__"
    if module.split(".")[0] in BELOW_STORAGE:
        return
    assert not imports(path) & {"fcntl", "stat", "mmap"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            is_os = isinstance(node.value, ast.Name) and node.value.id == "os"
            forbidden = SYSTEM_CALLS if is_os else DESCRIPTORS
            assert node.attr not in forbidden, f"{module}:{node.lineno} uses {ast.unparse(node)}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not node.args:
            # `path.stat()`; the verb of that name takes arguments
            assert node.func.attr not in {"stat", "lstat"}, f"{module}:{node.lineno} asks for a file's status"
