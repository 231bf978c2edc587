from pathlib import Path

import numpy as np
import pytest
import soundfile

from mrkd_ray.common.errors import UserError
from mrkd_ray.datasets.checking.scan import scan_file
from mrkd_ray.datasets.opening import open_dataset
from mrkd_ray.datasets.splits import make_splits
from tests.conftest import SHARED

DATA = SHARED / "data"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ["a.wav", "b.wav", "audio/c.wav", "deep/d.wav"]:
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "set" / name, np.full(10, 0.1), 8000)
    return tmp_path / "set"


def write(root: Path, *lines: str, name: str = "meta.csv", encoding: str = "utf-8") -> Path:
    (root / name).write_text("\n".join(lines) + "\n", encoding=encoding)
    return root / name


def refused(path: Path) -> str:
    with pytest.raises(UserError) as error:
        open_dataset(path, path.parent / "cache")
    return str(error.value)


def test_every_column_is_read(root: Path) -> None:
    write(
        root,
        "filename,fold,label,esc10,group,verified",
        "b.wav,2, 1 ,x,g1,0",
        "c.wav,1.0,two,x,,1",
        "deep/d.wav,2,1,x,g1,",
        "",
    )
    dataset = open_dataset(root, root)
    assert dataset.name == "set"
    assert [
        (c.clip_id, c.path, c.label, c.fold, c.group, c.verified, c.split) for c in dataset.clips
    ] == [
        ("b.wav", root / "b.wav", "1", 2, "g1", False, None),
        ("c.wav", root / "audio/c.wav", "two", 1, None, True, None),
        ("deep/d.wav", root / "deep/d.wav", "1", 2, "g1", True, None),
    ]
    assert dataset.classes == ("1", "two")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_any_csv_with_other_column_names(root: Path, separator: str) -> None:
    lines = ["fname,category,manually_verified", "a.wav,dog,0", "b.wav,cat,1"]
    file = write(
        root,
        *(line.replace(",", separator) for line in lines),
        name="other.CSV",
        encoding="utf-8-sig",
    )
    dataset = open_dataset(file, root)
    assert dataset.name == "other"
    assert dataset.root == root
    assert [(c.clip_id, c.label, c.verified) for c in dataset.clips] == [
        ("a.wav", "dog", False),
        ("b.wav", "cat", True),
    ]


def test_the_line_that_tells_excel_the_separator_is_no_header(root: Path) -> None:
    file = write(root, "sep=;", "filename;label", "a.wav;dog", "b.wav;cat, big")
    assert [clip.label for clip in open_dataset(file, root).clips] == ["dog", "cat, big"]
    write(root, "sep=;", "filename;label", "a.wav;dog;1", "b.wav;cat")
    assert "too many values (1): 3." in refused(file)


def test_meta_csv_goes_before_class_folders(root: Path) -> None:
    write(root, "filename,label", "a.wav,x", "b.wav,y")
    assert [c.label for c in open_dataset(root, root).clips] == ["x", "y"]


def test_split_spellings_and_validation(root: Path) -> None:
    rows = ["a.wav,x,Training", "b.wav,y,VAL", "c.wav,x,train"]
    write(root, "filename,label,split", *rows)
    assert [c.split for c in open_dataset(root, root).clips] == ["train", "test", "train"]
    write(root, "filename,label,split", *rows, "deep/d.wav,y,evaluation")
    dataset = open_dataset(root, root)
    assert [(c.clip_id, c.split) for c in dataset.clips] == [
        ("a.wav", "train"),
        ("c.wav", "train"),
        ("deep/d.wav", "test"),
    ]
    assert dataset.notes == ("1 validation clips are left out: there are test clips too.",)


def test_an_empty_column_counts_as_absent(root: Path) -> None:
    write(root, "filename,label,fold,split", "a.wav,x,1,", "b.wav,y,2,")
    assert [(c.fold, c.split) for c in open_dataset(root, root).clips] == [(1, None), (2, None)]


def test_all_that_is_wrong_comes_at_once(root: Path) -> None:
    file = write(
        root,
        "filename,label,fold,verified",
        "a.wav,,1,1",
        "b.wav,x,1.5,1",
        ",x,2,maybe",
        "./b.wav,y,-1,1",
        "c.wav,y,,1",
    )
    message = refused(root)
    assert message.startswith(f"{file}: ")
    assert "clips without a label (1): a.wav." in message
    assert (
        "folds that are no whole number from 0 up (2): '1.5' of b.wav, '-1' of ./b.wav." in message
    )
    assert "rows without a filename (1): line 4." in message
    assert "verified is neither 0 nor 1 (1): 'maybe' of line 4." in message
    assert "filenames that occur twice (1): ./b.wav." in message
    assert "clips without a fold (1): c.wav." in message


def test_no_audio_at_all_says_where_it_was_looked_for(root: Path) -> None:
    write(root, "filename,label", *(f"gone{i}.wav,x" for i in range(12)))
    message = refused(root)
    assert "audio files that do not exist, all (12): gone0.wav" in message
    assert "gone10.wav, gone11.wav." in message
    assert "audio/" in message


def test_a_few_missing_files_are_left_to_the_check(root: Path) -> None:
    write(root, "filename,label", "a.wav,x", "gone.wav,y", "b.wav,y")
    dataset = open_dataset(root, root)
    assert [clip.path.is_file() for clip in dataset.clips] == [True, False, True]
    assert scan_file(dataset.clips[1].path).problem == "unreadable"


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["filename,label,fold,split", "a.wav,x,1,train"], "both a fold and a split"),
        (["filename,label,split", "a.wav,x,dev"], "unknown splits (1): 'dev' of a.wav"),
        (["filename,label,split", "a.wav,x,train", "b.wav,y,"], "clips without a split (1): b.wav"),
        (["filename,label", "a.wav,x,y"], "lines with too many values (1): 2"),
        (["filename,kind", "a.wav,x"], "no column label (or class, category, labels)"),
        (["name,label", "a.wav,x"], "its columns are: name, label"),
        (["filename,label"], "has no rows"),
        ([""], "its columns are: none"),
    ],
)
def test_a_bad_file_says_what_to_mend(root: Path, lines: list[str], reason: str) -> None:
    write(root, *lines)
    message = refused(root)
    assert reason in message
    assert str(root / "meta.csv") in message


def test_a_file_in_another_encoding_is_refused(root: Path) -> None:
    write(root, "filename,label", "a.wav,Gerät", encoding="latin-1")
    assert "UTF-8" in refused(root)


@pytest.mark.parametrize(("name", "clips", "classes"), [("esc10", 400, 10), ("esc50", 2000, 50)])
def test_the_shared_data_sets_work_as_they_are(
    tmp_path: Path, name: str, clips: int, classes: int
) -> None:
    if not (DATA / name).is_dir():
        pytest.skip(f"shared data set {name} is not here")
    dataset = open_dataset(DATA / name, tmp_path)
    assert (dataset.name, len(dataset.clips), len(dataset.classes)) == (name, clips, classes)
    assert {c.fold for c in dataset.clips} == {1, 2, 3, 4, 5}


def test_a_column_labels_makes_it_multi_label(root: Path) -> None:
    rows = ['a.wav,"dog, bark"', "b.wav,dog", 'deep/d.wav,"cat,,cat"']
    write(root, "fname,labels", *rows)
    dataset = open_dataset(root, root)
    assert dataset.multi_label
    assert [c.labels for c in dataset.clips] == [("bark", "dog"), ("dog",), ("cat",)]
    assert dataset.classes == ("bark", "cat", "dog")
    assert dataset.labels.tolist() == [[1, 0, 1], [0, 0, 1], [0, 1, 0]]
    write(root, "fname,label", *rows)  # the same values, but one label each
    single = open_dataset(root, root)
    assert not single.multi_label
    assert single.classes == ("cat,,cat", "dog", "dog, bark")


def test_one_label_a_clip_is_multi_label_where_the_column_says_so(root: Path) -> None:
    write(root, "filename,label", "a.wav,x", "b.wav,y")
    single = open_dataset(root, root)
    write(root, "filename,labels", "a.wav,x", "b.wav,y")
    multi = open_dataset(root, root)
    assert multi.multi_label
    assert multi.fingerprint != single.fingerprint


def test_labels_are_refused_beside_label_and_where_empty(root: Path) -> None:
    write(root, "filename,class,labels", "a.wav,x,x", "b.wav,y,y")
    assert "both a column class and a column labels" in refused(root)
    for empty, header in {
        "labels": "filename,class,labels",
        "class": "filename,labels,class",
    }.items():
        write(root, header, "a.wav,x,", "b.wav,y,")
        dataset = open_dataset(root, root)
        assert (dataset.classes, dataset.multi_label) == (("x", "y"), empty == "class")
    write(root, "filename,labels", 'a.wav,","', "b.wav,y")
    assert "clips without a label (1): a.wav." in refused(root)


def notes(root: Path) -> str:
    return "\n".join(open_dataset(root, root).notes)


@pytest.mark.parametrize("columns", ["start,x", "t_min,from", "onset,x"])
def test_half_of_where_a_sound_is_is_refused(root: Path, columns: str) -> None:
    write(root, f"filename,{columns},label", "a.wav,2,4,x", "b.wav,0,2,y", "b.wav,2,4,x")
    assert "Name one of them start and one end" in refused(root)


@pytest.mark.parametrize("columns", ["start_ms,end_ms", "start frame,end frame"])
def test_times_that_are_not_in_seconds_are_refused(root: Path, columns: str) -> None:
    write(root, f"filename,{columns},label", "a.wav,2,4,x", "b.wav,0,2,y")
    assert f"the columns {columns.replace(',', ', ')} say where" in refused(root)


@pytest.fixture
def long(root: Path) -> Path:
    """Two recordings of 10 s in place of short ones."""
    rng = np.random.default_rng(3)
    for name in ("a.wav", "b.wav"):
        soundfile.write(root / name, rng.uniform(-0.5, 0.5, 80_000), 8000)
    return root


@pytest.mark.parametrize(
    "columns", ["start,end", "onset,offset", "Begin Time (s),End Time (s)", "t_min,t_max"]
)
def test_rows_with_start_and_end_are_events(long: Path, columns: str) -> None:
    write(long, f"filename,{columns},label", "a.wav,2,4,x", "b.wav,0.1,0.3,y", "b.wav,9.9,10.05,x")
    dataset = open_dataset(long, long / "cache")
    assert [(c.clip_id, c.label, c.group, c.stretch) for c in dataset.clips] == [
        ("a.wav@2-4", "x", "a.wav", (2.0, 4.0)),
        ("b.wav@0.1-0.3", "y", "b.wav", (0.0, 1.5)),
        ("b.wav@9.9-10", "x", "b.wav", (8.5, 10.0)),
    ]
    assert not dataset.multi_label


def test_times_that_cannot_be_are_refused_with_their_lines(long: Path) -> None:
    write(
        long,
        "filename,start,end,label",
        "a.wav,2,1,x",
        "a.wav,9,11,x",
        "a.wav,12,13,x",
        "b.wav,,3,y",
        'b.wav,"1,5",3,y',
        "b.wav,-1,3,y",
        "b.wav,nan,3,y",
    )
    message = refused(long)
    assert "end before they begin (1): 2 to 1 of line 2." in message
    assert (
        "beyond the recording's end (2): 9 to 11 s of line 3, but a.wav has 10 s, 12 to 13 s of "
        "line 4, but a.wav has 10 s. Times are seconds from the beginning of the file."
    ) in message
    assert (
        "times that are no seconds (4): '' of line 5, '1,5' of line 6, '-1' of line 7, 'nan' of "
        "line 8. Write seconds"
    ) in message


def test_a_recording_is_of_one_group_and_on_one_side(long: Path) -> None:
    write(long, "filename,start,end,label,group", "a.wav,2,4,x,g", "a.wav,4,5,x,h", "b.wav,2,4,y,g")
    assert "recordings of several groups (1): a.wav." in refused(long)
    rows = ("a.wav,2,4,x,1", "a.wav,5,7,y,2", "b.wav,2,4,x,2", "b.wav,5,7,y,2")
    write(long, "filename,start,end,label,fold", *rows)
    dataset = open_dataset(long, long / "cache")
    with pytest.raises(UserError, match=r"1 groups stand in more than one fold.*a\.wav"):
        make_splits(dataset, "all", seed=0)


def test_some_recordings_of_events_that_are_missing_are_left_to_the_check(long: Path) -> None:
    write(long, "filename,start,end,label", "a.wav,2,4,x", "gone.wav,2,4,y")
    clips = open_dataset(long, long / "cache").clips
    assert [scan_file(clip.path, clip.stretch).detail for clip in clips] == [
        "",
        "No such file or directory",
    ]
    write(long, "filename,start,end,label", "gone.wav,2,4,x")
    assert "audio files that do not exist, all (1): gone.wav@2-4." in refused(long)


def test_columns_that_are_not_used_are_named(root: Path) -> None:
    write(root, "filename,label,class,Author,start,note", "a.wav,x,x,me,,", "b.wav,y,y,,,")
    assert "columns that are not used (2): class, author." in notes(root)


def test_the_index_that_pandas_writes_is_named(root: Path) -> None:
    write(root, ",filename,label", "0,a.wav,x", "1,b.wav,y")
    assert "columns that are not used (1): one without a name." in notes(root)


def test_two_columns_of_one_name_are_refused(root: Path) -> None:
    write(root, "filename,label,Label", "a.wav,x,y")
    assert "two columns are called label" in refused(root)


@pytest.mark.parametrize(
    "cells",
    [
        ("a;b", "b", "a;c"),
        ("a|b", "b", " a | c "),
        ("\"['a', 'b']\"", "['b']", "\"['a', 'c']\""),
        ('"[""a"", ""b""]"', '"[""b""]"', '"(""a"", ""c"",)"'),
        ('"[a, b]"', "[b]", '"{c, a}"'),
        ("['a', 'b']".join('""'), "b", "a,c".join('""')),
        ('"a,b"', "b", '"[""c"", ""a""]"'),
    ],
)
def test_several_labels_in_a_cell(root: Path, cells: tuple[str, ...]) -> None:
    rows = (f"{name},{c}" for name, c in zip(("a.wav", "b.wav", "c.wav"), cells, strict=True))
    write(root, "filename,labels", *rows)
    assert [c.labels for c in open_dataset(root, root).clips] == [("a", "b"), ("b",), ("a", "c")]


@pytest.mark.parametrize("cell", ['"[""Child, kid"", ""Music""]"', '"""Child, kid"", Music"'])
def test_a_class_may_hold_a_comma(root: Path, cell: str) -> None:
    write(root, "filename,labels", f"a.wav,{cell}", "b.wav,Music")
    assert open_dataset(root, root).classes == ("Child, kid", "Music")


def test_a_comma_that_may_belong_to_a_class_is_named(root: Path) -> None:
    rows = ['a.wav,"Child, kid"', "b.wav,Music", 'c.wav,"Child, kid,Music"', "deep/d.wav,Bark"]
    write(root, "filename,labels", *rows)
    assert "never occur without each other (1 pairs): 'Child, kid'." in notes(root)
    assert '["a, b", "c"]' in notes(root)
    write(root, "filename,labels", *rows, 'e.wav,"kid, Music"')  # now they do
    assert "without each other" not in notes(root)
    write(root, "filename,labels", *(row.replace(", ", ",") for row in rows))  # as in FSD50K
    assert "without each other" not in notes(root)


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (("a b", "a", "b"), "made of other labels (1): 'a b'. Put ',' between"),
        (("a/b", "a", "b"), "made of other labels (1): 'a/b'. Put ',' between"),
        (("a;b", '"a,b"', "b"), "both , and ; stand between labels"),
        (("['a' 'b']", "a", "b"), "a list without commas or quotes between its labels"),
        (("[a b]", '"[a, c]"', "b"), "a list without commas or quotes between its labels"),
        (('"""a,b"', "a", "b"), "quotes that do not close"),
    ],
)
def test_labels_that_are_half_understood_are_refused(
    root: Path, cells: tuple[str, ...], reason: str
) -> None:
    rows = (f"{name},{c}" for name, c in zip(("a.wav", "b.wav", "c.wav"), cells, strict=True))
    write(root, "filename,labels", *rows)
    assert reason in refused(root)


def test_a_list_is_no_label(root: Path) -> None:
    write(root, "filename,label", "a.wav,['x']", "b.wav,y")
    assert "lists in the column label (1): \"['x']\" of a.wav." in refused(root)
    write(root, "filename,label", "a.wav,x", "b.wav,y", "c.wav,x;y")
    assert "made of other labels (1): 'x;y'. Call the column labels" in refused(root)
    write(root, "filename,label", "a.wav,x", "b.wav,y", "c.wav,x+y")
    assert "made of other labels (1): 'x+y': classes of their own" in notes(root)


@pytest.mark.parametrize("separator", [",", "\t"])
@pytest.mark.parametrize(
    "wrong",
    [
        ['b.wav,"x', "c.wav,x", 'deep/d.wav,"y', "e.wav,y"],
        ['b.wav,"x', "c.wav,x", "deep/d.wav,y"],  # to the end of the file
        ['b.wav,"x', "c.wav,x", 'deep/d.wav,y"'],  # a whole value, by the letter
        ['"b.wav,x', 'c.wav",x', "deep/d.wav,y"],
        ['b.wav,"x"y', "c.wav,x"],
    ],
)
def test_a_quote_that_is_not_closed_swallows_no_rows(
    root: Path, separator: str, wrong: list[str]
) -> None:
    lines = [line.replace(",", separator) for line in ["filename,label", "a.wav,x", *wrong]]
    write(root, *lines)
    assert "line 3" in refused(root)


@pytest.mark.parametrize("column", ["label", "labels"])
def test_brackets_and_apostrophes_may_belong_to_a_class(root: Path, column: str) -> None:
    write(root, f"filename,{column}", "a.wav,(other)", "b.wav,[noise]", "c.wav,dog's")
    assert open_dataset(root, root).classes == ("(other)", "[noise]", "dog's")
    write(root, "filename,labels", "a.wav,dog's;cat's", "b.wav,hen's")
    assert open_dataset(root, root).classes == ("cat's", "dog's", "hen's")


def test_labels_that_may_be_several_are_named(root: Path) -> None:
    write(root, "filename,label", 'a.wav,"x, y"', "b.wav,z;w")
    assert "labels with , ; or | in them (2): 'x, y', 'z;w': a class each" in notes(root)
    write(root, "filename,labels", "a.wav,x y", "b.wav,y z")
    assert "no clip has several labels, but labels hold blanks" in notes(root)
    write(root, "filename,labels", "a.wav,x y", 'b.wav,"y z,w"')
    assert "no clip has several" not in notes(root)


def test_a_quote_in_a_column_that_is_not_used_swallows_no_rows(root: Path) -> None:
    file = write(root, "filename,label,note", 'a.wav,x,"long', "b.wav,y,", 'c.wav,x,end"')
    assert f"{file}: not usable as a list of clips: line 2: a quote is not closed" in refused(root)
    write(root, "filename,label,note", 'a.wav,x,"two', 'lines, in all"', "b.wav,y,")
    assert len(open_dataset(root, root).clips) == 2


def test_control_characters_are_refused(root: Path) -> None:
    write(root, "filename,label", 'a.wav,"x', 'y"', "b.wav,z\x1b[2J")
    message = refused(root)
    assert "control characters in label (2): line 2: 'x\\ny', line 4: 'z\\x1b[2J'." in message


def found(root: Path) -> list[str]:
    return [c.path.relative_to(root).as_posix() for c in open_dataset(root, root).clips]


def test_names_that_are_equal_but_for_their_spelling_are_found(root: Path) -> None:
    (root / "a.wav").rename(root / "caf\u00e9.wav")
    write(root, "filename,label", "audio\\c.wav,x", "Deep/D.WAV,y", "cafe\u0301.wav,x", "b.wav,y")
    assert found(root) == ["audio/c.wav", "deep/d.wav", "caf\u00e9.wav", "b.wav"]
    assert "with backslashes, taken for folders (1): audio\\c.wav = audio/c.wav." in notes(root)
    assert "differ from the files in case or Unicode form (2): Deep/D.WAV = deep" in notes(root)
    assert open_dataset(root, root).clips[0].clip_id == "audio\\c.wav"


def test_of_several_names_alike_none_is_taken(root: Path) -> None:
    (root / "b.wav").rename(root / "A.wav")
    write(root, "filename,label", "A.WAV,x", "c.wav,y")
    assert [clip.path.is_file() for clip in open_dataset(root, root).clips] == [False, True]
    write(root, "filename,label", "a.wav,x", "A.wav,y")
    assert found(root) == ["a.wav", "A.wav"]


def test_two_spellings_of_one_file_occur_twice(root: Path) -> None:
    write(root, "filename,label", "deep/d.wav,x", "deep\\d.wav,y")
    assert "filenames that occur twice (1): deep\\d.wav." in refused(root)


def test_fsd50k_as_it_is_released(root: Path) -> None:
    (root / "audio").rename(root / "FSD50K.dev_audio")
    truth = root / "FSD50K.ground_truth"
    truth.mkdir()
    for folder in (root, truth):
        write(folder, "fname,labels,split", "c,x,train", "c2,y,val", name="dev.csv")
        soundfile.write(root / "FSD50K.dev_audio/c2.wav", np.full(10, 0.1), 8000)
        dataset = open_dataset(folder / "dev.csv", root)
        assert [c.path.name for c in dataset.clips] == ["c.wav", "c2.wav"]
        assert [c.clip_id for c in dataset.clips] == ["c", "c2"]
        assert "filenames without an ending, taken for those of recordings (2)" in dataset.notes[0]
    (root / "FSD50K.dev_audio/c.flac").touch()  # which of the two is meant?
    assert not open_dataset(truth / "dev.csv", root).clips[0].path.is_file()


def test_where_no_file_is_there_the_names_are_looked_at(root: Path) -> None:
    write(root, "filename,label", "D:\\my data\\d.wav,x", "D:\\x.wav,y")
    message = refused(root)
    assert f"2 are Windows paths: write them relative to {root}, with /." in message
    assert f"d.wav lies in {root}/deep." in message
    write(root, "filename,label", "one,x", f"{300 * 'two'},y")
    assert "2 names have no ending such as .wav." in refused(root)


def test_recordings_that_no_row_lists_are_named(root: Path) -> None:
    write(root, "filename,label", "a.wav,x", "c.wav,y")
    assert notes(root) == "recordings beside the listed ones that no row lists (1): b.wav."


def test_a_folder_of_the_lists_name_is_looked_in(root: Path) -> None:
    (root / "audio").rename(root / "train_curated")
    file = write(root, "fname,labels", "c.wav,x", "a.wav,y", name="train_curated.csv")
    assert [c.path.parent.name for c in open_dataset(file, root).clips] == ["train_curated", "set"]
