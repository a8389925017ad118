"""GLUE's own files: the layout of every task is read, quotes are literal, and a bad line is named."""

import pytest

from prune_cli.errors import DataError, NoInputError, UsageError
from prune_cli.stages.eval.glue import tasks

from .conftest import SHARED, shared
from .glue_examples import lay

PARSES = (
    "index\tpromptID\tpairID\tgenre\t"
    "sentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse"
)
LAYOUTS = {  # folder, first line and an example as in GLUE's files, its texts and label
    "cola": ("CoLA", "", "gj04\t0\t*\tThey drank the pub.", ("They drank the pub.",), 0),
    "sst2": ("SST-2", "sentence\tlabel", "it 's charming \t1", ("it 's charming ",), 1),
    "mrpc": (
        "MRPC",
        "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String",
        '1\t0\t1\t"A" b\tc "d',
        ('"A" b', 'c "d'),
        1,
    ),
    "stsb": (
        "STS-B",
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
        "0\tmain-captions\tMSRvid\t2012test\t0001\tnone\tnone\tA plane.\tAn air plane.\t3.800",
        ("A plane.", "An air plane."),
        3.8,
    ),
    "qqp": (
        "QQP",
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
        "5\t6\t7\tWhy?\tHow?\t0",
        ("Why?", "How?"),
        0,
    ),
    "mnli": (
        "MNLI",
        f"{PARSES}\tsentence1\tsentence2\tlabel1\tgold_label",
        "0\t1\t1n\tslate\t( a )\t( b )\t(R a)\t(R b)\ta\tb\tneutral\tcontradiction",
        ("a", "b"),
        2,
    ),
    "qnli": ("QNLI", "index\tquestion\tsentence\tlabel", "0\tWhen?\tNow.\tentailment", ("When?", "Now."), 0),
    "rte": ("RTE", "index\tsentence1\tsentence2\tlabel", "0\tA.\tB.\tnot_entailment", ("A.", "B."), 1),
    "wnli": ("WNLI", "index\tsentence1\tsentence2\tlabel", "0\tA.\tB.\t1", ("A.", "B."), 1),
}


def refuse(error):
    raise error


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_read(name, tmp_path):
    folder, first, example, texts, label = LAYOUTS[name]
    held_out = tasks.TASKS[name].held_out
    lay(tmp_path / folder, first, example, parts=("train", *held_out))
    assert tasks.folders(str(tmp_path)) == {name: str(tmp_path / folder)}
    data = tasks.read(str(tmp_path / folder), name, refuse)
    assert data.train.texts == [texts]
    assert data.train.labels.tolist() == [label]
    assert {
        part: (some.texts, some.labels.tolist()) for part, some in data.held_out.items()
    } == dict.fromkeys(held_out, ([texts], [label]))


def test_mrpc_from_microsoft_is_split_by_its_list_of_pairs(tmp_path):
    rows = ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\r", "1\t10\t11\ta\tb\r", "0\t12\t13\tc\td\r"]
    (tmp_path / "msr_paraphrase_train.txt").write_text("\ufeff" + "\n".join(rows) + "\n")
    (tmp_path / "dev_ids.tsv").write_text("12\t13\n")
    data = tasks.read(str(tmp_path), "mrpc", refuse)
    assert (data.train.texts, data.held_out["dev"].texts) == ([("a", "b")], [("c", "d")])


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("0\tA.\tB.", "train.tsv:3: has 3 columns, not 4"),
        ("0\tA.\tB.\tC.\tentailment", "train.tsv:3: has 5 columns, not 4"),
        ("0\tA.\tB.\tmaybe", "train.tsv:3: label is 'maybe', not one of entailment, not_entailment"),
    ],
)
def test_a_bad_line_is_named_and_can_be_skipped(line, fault, tmp_path):
    folder = lay(tmp_path / "rte", "index\tsentence1\tsentence2\tlabel", "0\tA.\tB.\tentailment", line)
    with pytest.raises(DataError, match=fault):
        tasks.read(folder, "rte", refuse)
    faults = list[DataError]()
    assert len(tasks.read(folder, "rte", faults.append).train.texts) == 1
    assert len(faults) == 2, "one in train.tsv, one in dev.tsv"


def test_files_of_another_kind_are_refused(tmp_path):
    with pytest.raises(DataError, match="there is no column 'sentence1', only text, label"):
        tasks.read(lay(tmp_path / "a", "text\tlabel", "x\t1"), "wnli", refuse)
    with pytest.raises(DataError, match="score is 'nan', not a number"):
        tasks.read(lay(tmp_path / "b", "sentence1\tsentence2\tscore", "x\ty\tnan"), "stsb", refuse)
    with pytest.raises(DataError, match="holds no example"):
        tasks.read(lay(tmp_path / "c", "sentence\tlabel"), "sst2", refuse)
    (tmp_path / "c" / "train.tsv").write_bytes(b"sentence\tlabel\ncaf\xe9\t1\n")
    with pytest.raises(DataError, match=r"train.tsv:2: is not UTF-8 at byte 3"):
        tasks.read(str(tmp_path / "c"), "sst2", refuse)


def test_missing_files_and_tasks_are_errors(tmp_path):
    with pytest.raises(NoInputError, match="no such file"):
        tasks.folders(str(tmp_path / "none"))
    with pytest.raises(NoInputError, match="holds no task of GLUE"):
        tasks.folders(str(tmp_path))
    (tmp_path / "rte").mkdir()
    with pytest.raises(NoInputError, match=r"train\.tsv"):
        tasks.read(str(tmp_path / "rte"), "rte", refuse)
    with pytest.raises(UsageError, match="choose from cola,sst2"):
        tasks.named("rte,boolq")
    assert tasks.named("SST-2, rte,sst2") == ["sst2", "rte"]


def test_the_hash_is_of_the_bytes(tmp_path):
    lay(tmp_path / "wnli", "sentence1\tsentence2\tlabel", "x\ty\t1")
    before = tasks.read(str(tmp_path / "wnli"), "wnli", refuse).hash
    assert tasks.read(str(tmp_path / "wnli"), "wnli", refuse).hash == before
    lay(tmp_path / "wnli", "sentence1\tsentence2\tlabel", "x\ty\t0")
    assert tasks.read(str(tmp_path / "wnli"), "wnli", refuse).hash != before


@shared
def test_the_real_files_have_the_sizes_that_glue_publishes():
    sizes = {
        "cola": (8551, 1043),
        "sst2": (67349, 872),
        "mrpc": (3668, 408),
        "rte": (2490, 277),
        "wnli": (635, 71),
    }
    read = {}
    for name, folder in tasks.folders(str(SHARED / "data" / "glue")).items():
        data = tasks.read(folder, name, refuse)
        read[name] = (len(data.train.texts), len(data.held_out["dev"].texts))
    assert read == sizes
