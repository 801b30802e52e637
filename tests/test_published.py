"""The papers' own numbers: as the papers printed them, digit for digit, and what their arithmetic says."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaderboards import layouts, published
from leaderboards.papers import LAYOUTS
from leaderboards.published import DICE_TALK, EAT_FACE, Value
from leaderboards.results import ResultError

VALUES = published.load()
PAPERS = Path(__file__).resolve().parents[2] / "shared" / "papers"
SIZES = {  # values of each table: rows times columns, less the empty cells
    (DICE_TALK, "Table 1"): 12 * 13,
    (DICE_TALK, "Table 2"): 12 * 5,
    (DICE_TALK, "Table 3"): 5 * 4,
    (DICE_TALK, "Table 4"): 5 * 4,
    (DICE_TALK, "Table 5"): 3 * 4,
    (EAT_FACE, "Table I"): 12 * 8 + 6,
    (EAT_FACE, "Table II"): 9,
    (EAT_FACE, "Table III"): 6 * 4,
    (EAT_FACE, "Table IV"): 4 * 6,
}


def text_of(name: str) -> str:
    found = list(PAPERS.glob(name))
    if not found:
        pytest.skip(f"the paper's text {name} is not on this machine (../shared/papers)")
    return found[0].read_text(encoding="utf-8")


def lines_after(text: str, start: str, count: int) -> list[str]:
    return text[text.index(start) :].splitlines()[1 : count + 1]


def printed(name: str) -> list[list[str]]:
    grid = layouts.fill(LAYOUTS[name], VALUES, {})
    return [[h.label for h in grid.headings], *grid.texts()[1:]]


def test_every_cell_of_every_table_is_there() -> None:
    counts = Counter((value.source, value.table) for value in VALUES)
    assert {key: count for key, count in counts.items() if key[1].startswith("Table")} == SIZES
    assert {value.conditioning for value in VALUES} == {"one-shot", "unknown"}


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_dice_talk_is_printed_digit_for_digit(number: int) -> None:
    text = text_of("001_*.txt")
    table = printed(f"dice-talk-table-{number}")
    start = f"Table {number}. "
    body = lines_after(text, start, len(table) + (number == 1))[number == 1 :]  # the first has a line of groups
    said = [line.replace("\\downarrow", " ↓").replace("\\uparrow", " ↑") for line in body]
    said = [re.sub(r"w/o \S*subscript.*(?= 0\.8502)", "w/o L_cls", line) for line in said]  # a formula in the text
    assert [" ".join(line) for line in table] == said
    caption = text[text.index(start) :].splitlines()[0]
    assert caption.startswith(f"{start}{LAYOUTS[f'dice-talk-table-{number}'].caption}")


def test_dice_talk_groups_as_printed() -> None:
    text = text_of("001_*.txt")
    grid = layouts.fill(LAYOUTS["dice-talk-table-1"], VALUES, {})
    assert (
        " ".join(dict.fromkeys(filter(None, (h.group for h in grid.headings)))) == lines_after(text, "Table 1. ", 1)[0]
    )
    assert [len(block) for block in grid.blocks] == [3, 2, 7]
    assert [len(block) for block in layouts.fill(LAYOUTS["dice-talk-table-2"], VALUES, {}).blocks] == [7, 3, 2]


def fields(lines: Sequence[str]) -> list[list[str]]:
    return [line.replace("\t1", "\t✓").split("\t") for line in lines]


def without_spaces(table: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[cell.replace(" ", "") for cell in line] for line in table]


def test_eat_face_table_1_is_printed_digit_for_digit() -> None:
    lines = text_of("002_*.txt").splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith("Dataset\tMethod\tw/Emo."))
    table = printed("eat-face-table-1")
    said = [line.split("\t") for line in lines[start + 2 : start + 14]]
    for line in said:
        line[2] = line[2].replace("1", "✓")
    said = [[line[0] or said[at // 6 * 6][0], *line[1:]] for at, line in enumerate(said)]  # the dataset is named once
    assert table[1:] == said
    assert without_spaces([table[0][3:]])[0] == [cell.replace(" ", "") for cell in lines[start + 1].split("\t") if cell]
    groups = dict.fromkeys(h.group for h in layouts.fill(LAYOUTS["eat-face-table-1"], VALUES, {}).headings if h.group)
    assert list(groups) == [cell for cell in lines[start].split("\t")[3:] if cell]


def test_eat_face_table_2_is_printed_digit_for_digit() -> None:
    lines = text_of("002_*.txt").splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith("Emotion Type\t"))
    table = printed("eat-face-table-2")
    assert table[0] == lines[start].split("\t")
    said = [line.split("\t") for line in lines[start + 1 : start + 5]]
    assert [[line[0], line[1], line[3]] for line in table[1:5]] == [[line[0], line[1], line[3]] for line in said]
    assert [line[2] for line in table[2:5]] == [line[2] for line in said[1:]]  # "Happy" is misread in the text
    assert table[5] == ["Average Emo-Acc.", "74.57%", "", ""]
    assert lines[start + 5].split("\t")[2] == "74.57"  # its % is misread


@pytest.mark.parametrize(("name", "start"), [("eat-face-table-3", "Method\tEmo.↑"), ("eat-face-table-4", "\tDM\tEVE")])
def test_eat_face_tables_3_and_4_are_printed_digit_for_digit(name: str, start: str) -> None:
    lines = text_of("002_*.txt").splitlines()
    at = next(at for at, line in enumerate(lines) if line.startswith(start))
    table = printed(name)
    said = [line.split("\t") for line in lines[at : at + len(table)]]
    if name == "eat-face-table-4":
        said[0][0] = "Method"  # of the line above
        said = [said[0], *([line[0], *(cell.replace("1", "✓") for cell in line[1:5]), *line[5:]] for line in said[1:])]
    assert without_spaces(table) == without_spaces([[cell for cell in line if cell] for line in said])


@pytest.mark.parametrize(("paper", "source"), [("001_*.txt", DICE_TALK), ("002_*.txt", EAT_FACE)])
def test_numbers_of_the_text_are_in_the_text(paper: str, source: str) -> None:
    text = text_of(paper)
    claims = [value for value in VALUES if value.source == source and value.table.startswith("Section")]
    assert claims
    assert [value.value for value in claims if value.value not in text] == []
    assert source.partition("arXiv:2504.18087 ")[2] or source in text


def test_the_papers_arithmetic_finds_no_slip_of_ours_and_the_one_of_theirs() -> None:
    findings = published.check(VALUES)
    scores = [finding for finding in findings if finding.what.endswith(": Emo-Score")]
    assert len(scores) == 29  # 28, and Table 4's last row, which is one of Table 1's
    told = [finding.what for finding in findings]
    for what in ("improvement of Emotion", "mean Emo-Acc.", "Neutral of Ours-V", "average Tend. of Table IV"):
        assert [text for text in told if what in text], what
    cuts = {f.what.split()[5]: f.printed for f in findings if f.what.startswith("mean reduction of FID over")}
    assert list(cuts.values()) == ["59.54%", "88.21%", "45.71%", "91.14%", "63.96%"]
    [slip] = [finding for finding in findings if not finding.consistent]
    assert (slip.table, slip.printed, slip.computed) == ("Section IV-B", "91.14%", "91.05%")
    assert "EAMM" in str(slip)
    assert "inconsistent in the source" in str(slip)


SCORED = [value for value in VALUES if value.metric in ("Emo-Score", "Neutral", "Non-neutral")]


@given(st.sampled_from(SCORED), st.integers(2, 4), st.integers(1, 9))
def test_a_wrong_digit_in_any_emo_score_is_found(value: Value, place: int, by: int) -> None:
    """The last digit of an input is worth less than the rounding; any digit before it shows."""
    digits = list(value.value)
    digits[place] = str((int(digits[place]) + by) % 10)
    slipped = [replace(value, value="".join(digits)) if other is value else other for other in VALUES]
    found = [finding for finding in published.check(slipped) if not finding.consistent]
    assert any(finding.what.startswith(f"{value.method}, {value.group}") for finding in found)


@pytest.mark.parametrize(
    ("right", "wrong", "of"),
    [("3.7768", "3.7678", "improvement"), ("82.51%", "85.21%", "mean Emo-Acc."), ("9.9181", "9.9811", "reduction")],
)
def test_two_digits_in_the_wrong_order_are_found(right: str, wrong: str, of: str) -> None:
    slipped = [replace(value, value=wrong) if value.value == right else value for value in VALUES]
    before = {finding.what for finding in published.check(VALUES) if not finding.consistent}
    after = {finding.what for finding in published.check(slipped) if not finding.consistent}
    assert [what for what in after - before if of in what]


HEADER = "source,table,group,method,metric,family,value,conditioning,note\n"
LINE = "P,Table 1,MEAD,A,FVD,fvd,1.50,unknown,\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the first line must be source,table"),
        (HEADER.replace("note", "notes") + LINE, "the first line must be source,table"),
        (HEADER + "P,Table 1\n", "line 2 has 2 fields; expected 9"),
        (HEADER + LINE + LINE.replace("1.50", "1.60"), "line 3: A, FVD is given twice"),
        (HEADER + LINE.replace("1.50", "1.5.0"), "line 2: '1.5.0' is no number"),
        (HEADER + LINE.replace("1.50", ""), "line 2: value is empty"),
        (HEADER + LINE.replace("unknown", "maybe"), "conditioning 'maybe'"),
        (HEADER + '"P' + LINE, "not a readable file"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ResultError, match=re.escape(message)) as raised:
        published.read(path)
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


def test_a_file_of_another_encoding_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(HEADER.encode() + LINE.replace("A", "\xe9").encode("latin-1"))
    with pytest.raises(ResultError, match="not a readable file"):
        published.read(path)
