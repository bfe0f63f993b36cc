"""Tables of metrics in files, as several programs write them."""

import numpy as np
import pytest
from monai.handlers.utils import write_metrics_reports

from medcalib.compare.raw_tables import case_ids, is_pooled, read_raw_table
from medcalib.errors import UserError


def read(folder, text, name="mean_dice", encoding="utf-8"):
    path = folder / f"{name}_raw.csv"
    path.write_text(text, encoding=encoding)
    return read_raw_table(path)


def test_of_a_header_that_repeats_mean_the_first_counts(tmp_path):
    short = read(tmp_path, "filename,a,b,mean,mean,mean\nx.nii.gz,0.1,0.3,0.2\ny,0.5,0.7,0.6\n")
    assert short.columns.tolist() == ["a", "b", "mean"]
    assert short.index.tolist() == ["x", "y"]
    np.testing.assert_array_equal(short, [[0.1, 0.3, 0.2], [0.5, 0.7, 0.6]])
    full = read(tmp_path, "filename,a,b,mean,mean\nx,0.1,0.3,0.2,9\ny,0.5,0.7,0.6,9\n")
    np.testing.assert_array_equal(full, short)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_delimiters_and_encodings(tmp_path, delimiter, encoding):
    table = read(tmp_path, "filename,Köln,mean\n007,0.5,0.5\nNA,nan,nan\n".replace(",", delimiter), encoding=encoding)
    assert table.index.tolist() == ["007", "NA"]
    assert table.columns.tolist() == ["Köln", "mean"]
    np.testing.assert_array_equal(table["mean"], [0.5, np.nan])


def test_what_monai_writes_is_read(tmp_path):
    """MetricsSaver's function itself."""
    details = {"mean_dice": np.array([[0.5, 0.7], [np.nan, 0.9]])}
    images = ["/data/a.nii.gz", "/data/b.nii.gz"]
    write_metrics_reports(tmp_path, images, {"mean_dice": 0.7}, details, None, deli=",")
    table = read_raw_table(tmp_path / "mean_dice_raw.csv")
    assert table.index.tolist() == ["a", "b"]
    np.testing.assert_allclose(table, [[0.5, 0.7, 0.6], [np.nan, 0.9, 0.9]])


def test_without_a_mean_it_is_that_of_the_classes(tmp_path):
    table = read(tmp_path, "case,a,b\nx,0.2,0.4\ny,,0.5\nz,,\n")
    np.testing.assert_allclose(table["mean"], [0.3, 0.5, np.nan])


def test_what_is_infinite_is_no_value(tmp_path):
    table = read(tmp_path, "case,a,b\nx,inf,1\ny,2,-inf\n", "mhd")
    np.testing.assert_array_equal(table, [[np.nan, 1, 1], [2, np.nan, 2]])


def test_values_of_all_cases_together_are_pooled(tmp_path):
    published = read(tmp_path, "filename,a,mean,mean\npatient101_frame01.nii.gz,0.1,0.1\n", "micro_ace")
    assert is_pooled(published)
    assert published.loc["dataset", "a"] == 0.1
    assert is_pooled(read(tmp_path, "filename,mean\ndataset,0.1\n", "auc"))
    assert not is_pooled(read(tmp_path, "filename,mean\nx,0.1\n", "nll"))


def test_names_are_shortened_only_where_they_stay_apart():
    assert case_ids(["p101_frame01.nii.gz", "p102"]) == ["p101_frame01", "p102"]
    assert case_ids(["C:\\data\\a.PNG", "C:\\data\\b.v2.npz"]) == ["a", "b.v2"]
    assert case_ids(["1/image.nii", "2/image.nii"]) == ["1/image", "2/image"]
    assert case_ids(["1.5", "2.5"]) == ["1.5", "2.5"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no values: its first column must be the case"),
        ("filename,a,mean\n", "has no values"),
        ("filename\nx\n", "has no values"),
        ("filename,mean\nx,high\n", "holds something else than numbers .*high"),
        ("filename,mean\nx.nii,0.1\nx.nii.gz,0.2\n", "has two rows for case x"),
        ("filename,mean\nx,0.1,0.2,0.3\n", "is no table of a metric|has more"),
        ("filename,a,mean\nx,0.1,0.2\ny,0.1\n", "breaks off in the row of y"),
        ("a,b\0c\n\x01,\x02", "mean_dice_raw.csv"),
    ],
)
def test_other_files_are_named(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path, text)
    assert "mean_dice_raw.csv" in str(error.value)
    assert "\n" not in str(error.value)
