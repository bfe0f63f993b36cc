"""The file beside the weights that says what they saw."""

import pytest
from ignite.engine import Engine

from medcalib.errors import UserError
from medcalib.handlers.training_record import (
    RECORD,
    TrainingRecord,
    TrainingRecordHandler,
    read_record,
    write_record,
)

CASES = {"training": [{"case": "a", "image": "01", "label": None}], "validation": []}


def test_a_record_is_read_as_it_was_written(tmp_path):
    record = TrainingRecord(CASES, {"num_bins": 20, "map": {"1": 2}}, {"bundle": "b", "weights_digest": "0"}, 7, True)
    write_record(tmp_path / "models", record)
    assert read_record(tmp_path / "models") == record
    assert [path.name for path in (tmp_path / "models").iterdir()] == [RECORD]


def test_no_record_and_one_of_an_earlier_version_say_nothing(tmp_path):
    assert read_record(tmp_path) is None
    (tmp_path / RECORD).write_text('{"seed": 1}')
    assert read_record(tmp_path) is None


@pytest.mark.parametrize("word", ["format", "digest", "cases", "settings", "num_bins", "20", "01", "starts_from"])
def test_a_flipped_bit_is_noticed(tmp_path, word):
    write_record(tmp_path, TrainingRecord(CASES, {"num_bins": 20}))
    content = bytearray((tmp_path / RECORD).read_bytes())
    content[content.index(word.encode())] ^= 1
    (tmp_path / RECORD).write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        read_record(tmp_path)


@pytest.mark.parametrize("content", ["[" * 100_000, "[1]", '{"digest": "0"}', '{"format": 2, "digest": "0"}', "", "{"])
def test_damage_is_one_sentence(tmp_path, content):
    (tmp_path / RECORD).write_text(content)
    with pytest.raises(UserError, match=r"training\.json is damaged \([a-zA-Z ]{12}[^\n]*\); put back a copy of it, "):
        read_record(tmp_path)


def started(folder, training, epoch=0):
    trainer = Engine(lambda _engine, _batch: None)
    trainer.state.epoch = epoch
    TrainingRecordHandler(folder, training, [])(trainer)
    return read_record(folder)


def test_a_training_without_a_record_gets_one_of_its_cases(tmp_path):
    assert [case["case"] for case in started(tmp_path, [{"case": "a", "image": "x"}]).cases["training"]] == ["a"]
    # that of a start which was never trained is replaced, that of the whole settings is kept
    assert [case["case"] for case in started(tmp_path, [{"case": "b", "image": "x"}]).cases["training"]] == ["b"]
    write_record(tmp_path, TrainingRecord(CASES, {"num_bins": 20}))
    assert started(tmp_path, [{"case": "a", "image": "x"}]).settings == {"num_bins": 20}


def test_a_training_that_goes_on_gets_none_afterwards(tmp_path):
    assert started(tmp_path, [{"case": "a", "image": "x"}], epoch=1) is None
