"""Checkpoints are whole or absent, and reading one runs no code."""

import os
import pickle
import zipfile
from pathlib import Path
from random import Random

import pytest
import torch

from lamina.errors import FileError, TrainingError
from lamina.training.checkpoints import (
    BEST,
    LAST,
    AtomicCheckpointIO,
    read_checkpoint,
    read_latest,
)

CONTENT = {
    "run": {"best_dice": 0.5},
    "state_dict": {"weight": torch.arange(1000.0)},
    "optimizer_states": [],
}


def save(path, content=CONTENT):
    AtomicCheckpointIO().save_checkpoint(content, path)
    return path


def test_a_checkpoint_comes_back_as_it_went(tmp_path):
    content = read_checkpoint(save(tmp_path / "new" / LAST))
    assert content["run"] == CONTENT["run"]
    assert torch.equal(content["state_dict"]["weight"], CONTENT["state_dict"]["weight"])


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.6, 0.9, 0.99])
def test_a_truncated_checkpoint_is_refused(tmp_path, share):
    path = save(tmp_path / LAST)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(TrainingError, match=r"last\.ckpt: damaged .*goes on from best\.ckpt"):
        read_checkpoint(path)


@pytest.mark.parametrize("start", [b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x04}q\x00", b"."])
def test_garbage_is_refused(tmp_path, start):
    path = tmp_path / LAST
    path.write_bytes(start + Random(0).randbytes(1000))
    with pytest.raises(TrainingError, match=r"last\.ckpt: damaged or not a checkpoint of Lamina"):
        read_checkpoint(path)


def test_a_damaged_pickle_in_a_whole_zip_is_an_error_of_ours_whatever_the_damage(tmp_path):
    path, refused = save(tmp_path / LAST), 0
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (name,) = (name for name in members if name.endswith("data.pkl"))
    for place in range(0, len(members[name]), 3):
        damaged = bytearray(members[name])
        damaged[place] ^= 0x15
        with zipfile.ZipFile(path, "w") as archive:
            for member, content in (members | {name: bytes(damaged)}).items():
                archive.writestr(member, content)
        try:
            read_checkpoint(path)
        except TrainingError:
            refused += 1
    assert refused > 50


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_never_run(tmp_path, zipped):
    path, fuse = tmp_path / LAST, tmp_path / "exploded"
    content = CONTENT | {"extra": Bomb(fuse)}
    if zipped:
        torch.save(content, path)
        assert zipfile.is_zipfile(path)
    else:
        path.write_bytes(pickle.dumps(content | {"state_dict": {}}))
    with pytest.raises(TrainingError, match=r"last\.ckpt: damaged or not a checkpoint"):
        read_checkpoint(path)
    assert not fuse.exists()
    pickle.loads(pickle.dumps(Bomb(fuse)))
    assert fuse.exists()  # the bomb was a real one


@pytest.mark.parametrize("content", [[1, 2], {"weights": torch.zeros(2)}, {"run": {}}])
def test_a_file_of_somebody_elses_is_refused(tmp_path, content):
    with pytest.raises(TrainingError, match="not a checkpoint of Lamina"):
        read_checkpoint(save(tmp_path / LAST, content))


def test_a_missing_checkpoint_is_said_to_be_missing(tmp_path):
    with pytest.raises(TrainingError, match="there is no checkpoint yet"):
        read_checkpoint(tmp_path / BEST)


def test_the_latest_is_the_last_else_the_best_else_none(tmp_path):
    assert read_latest(tmp_path) is None
    save(tmp_path / BEST, CONTENT | {"run": {"from": "best"}})
    assert read_latest(tmp_path)["run"] == {"from": "best"}
    save(tmp_path / LAST, CONTENT | {"run": {"from": "last"}})
    assert read_latest(tmp_path)["run"] == {"from": "last"}


def test_a_damaged_last_checkpoint_is_not_passed_over_in_silence(tmp_path):
    save(tmp_path / BEST)
    (tmp_path / LAST).write_bytes(b"half")
    with pytest.raises(TrainingError, match=r"last\.ckpt: damaged"):
        read_latest(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_write_that_fails_leaves_the_earlier_checkpoint(tmp_path, monkeypatch):
    path, write = save(tmp_path / LAST), torch.save

    def full(content, part):
        part.symlink_to("/dev/full")
        write(content, part)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(FileError, match=r"last\.ckpt: cannot be written: .*only part"):
        save(path, CONTENT | {"run": {}})
    assert read_checkpoint(path)["run"] == CONTENT["run"]
    assert [p.name for p in tmp_path.iterdir()] == [LAST]
