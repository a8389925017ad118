"""The house style, counted. `python -m tests.house` prints the counts of each file."""

from collections import Counter

from . import house
from .house import PACKAGE, File

PACKAGE_FILES = house.package_files()
ALL_FILES = house.all_files()
COMMANDS = [file for file in PACKAGE_FILES if file.path.parent == PACKAGE / "commands"]


def long_lines(files: list[File]) -> list[str]:
    return [f"{file.name}:{number}" for file in files for number in file.long_lines]


def test_no_line_of_the_package_is_over_110_columns():
    assert not long_lines(PACKAGE_FILES)


def test_no_line_of_the_tests_and_scripts_is_over_110_columns():
    assert not long_lines([file for file in ALL_FILES if file not in PACKAGE_FILES])


def test_no_conditional_expression_is_nested():
    assert not [f"{file.name}:{number}" for file in ALL_FILES for number in file.nested_conditionals]


def test_the_package_has_six_comments_a_hundred_lines_of_code():
    comments = sum(file.comments for file in PACKAGE_FILES)
    code = sum(file.code for file in PACKAGE_FILES)
    least = sorted(PACKAGE_FILES, key=lambda file: file.comments - 0.06 * file.code)[:20]
    assert 100 * comments / code >= 6, (
        f"{comments} comments, {code} lines of code; most are missing in\n"
        + "\n".join(f"{file.name}: {file.comments} comments, {file.code} lines of code" for file in least)
    )


def test_the_median_function_has_at_most_ten_lines():
    assert house.median_function(PACKAGE_FILES) <= 10


def test_no_file_is_over_400_lines():
    long = [file for file in ALL_FILES if file.lines > house.LINES_PER_FILE]
    assert not [f"{file.name}: {file.lines} lines" for file in long]


def test_no_folder_but_the_metrics_has_over_twelve_files():
    folders = Counter(file.path.parent for file in PACKAGE_FILES)
    assert not [
        f"{folder}: {count} files"
        for folder, count in folders.items()
        if count > house.FILES_PER_FOLDER and folder != PACKAGE / "metrics"
    ]


def test_the_commands_have_under_1100_lines():
    total = sum(file.lines for file in COMMANDS)
    assert total < 1100, [f"{file.name}: {file.lines} lines" for file in COMMANDS]


def test_a_command_has_one_late_import():
    assert not [f"{file.name}:{number}" for file in COMMANDS for number in file.late_imports[1:]]


def test_names_that_the_glossary_replaced_are_gone():
    modules = [
        file.name
        for file in PACKAGE_FILES
        if house.OLD_MODULES & {*file.path.relative_to(PACKAGE).with_suffix("").parts}
    ]
    identifiers = [
        f"{file.name}: {', '.join(sorted(file.identifiers & house.OLD_IDENTIFIERS))}"
        for file in PACKAGE_FILES
        if file.identifiers & house.OLD_IDENTIFIERS
    ]
    assert not modules + identifiers


def test_no_two_modules_define_a_public_class_of_the_same_name():
    homes: dict[str, list[str]] = {}
    for file in PACKAGE_FILES:
        for name in file.classes:
            homes.setdefault(name, []).append(file.name)
    assert not [f"{name}: {', '.join(files)}" for name, files in sorted(homes.items()) if len(files) > 1]
