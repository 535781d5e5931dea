"""Files of strangers: what they hold is read, what they would do is not done."""

from __future__ import annotations

import argparse
import os
import pickle
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from hrseg import weights
from hrseg.errors import WeightsError
from hrseg.weights import foreign_pickles as pickles
from tests.weights.made import built, official


class Evil:
    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def write_torch(content, path):
    torch.save(content, path)


def write_legacy(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def write_plain(content, path):
    path.write_bytes(pickle.dumps({**content, "weight": np.ones(3, np.float32)}))


@pytest.mark.parametrize("write", [write_torch, write_legacy, write_plain])
def test_a_pickle_that_would_run_a_command_is_refused_and_runs_nothing(tmp_path, write):
    done = tmp_path / "done"
    write({"weight": torch.ones(3), "harm": Evil(done)}, tmp_path / "file.pth")
    with pytest.raises(WeightsError, match=r"names 'posix\.system'.*nothing was executed"):
        weights.read_checkpoint(tmp_path / "file.pth")
    assert not done.exists()
    pickle.loads(pickle.dumps(Evil(done)))
    assert done.exists()  # it would have been


class Indirect:
    """Reaches a function by getattr, as mmengine's buffers reach their own methods."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return getattr, (Path("/"), "joinpath"), {"x": 1}


def test_getattr_in_a_pickle_gives_nothing_to_call(tmp_path):
    torch.save({"weight": torch.ones(3), "buffer": Indirect(tmp_path)}, tmp_path / "file.pth")
    checkpoint = weights.read_checkpoint(tmp_path / "file.pth")
    assert list(checkpoint.tensors) == ["weight"]


def test_a_whole_pickled_model_is_refused_with_a_way_out(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "file.pth")
    with pytest.raises(
        WeightsError, match=r"torch\.nn\.modules\.linear\.Linear.*save the model's state_dict\(\) alone"
    ):
        weights.read_checkpoint(tmp_path / "file.pth")


@pytest.fixture
def mmengine(monkeypatch):
    """The class that mmsegmentation 1.x leaves in its files, under its own name while the file is written."""
    name = "mmengine.logging.history_buffer"

    class HistoryBuffer:
        def __init__(self):
            self._log_history = np.array([0.5, 0.25])
            self.methods = {"mean": HistoryBuffer.mean}

        def mean(self):
            return self._log_history.mean()

    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = name, "HistoryBuffer"
    HistoryBuffer.mean.__module__, HistoryBuffer.mean.__qualname__ = name, "HistoryBuffer.mean"
    module = types.ModuleType(name)
    module.HistoryBuffer = HistoryBuffer
    with monkeypatch.context() as patch:
        for parent in ("mmengine", "mmengine.logging"):
            patch.setitem(sys.modules, parent, types.ModuleType(parent))
        patch.setitem(sys.modules, name, module)
        yield HistoryBuffer


@pytest.mark.parametrize("write", [write_torch, write_legacy])
def test_what_other_toolkits_leave_beside_the_weights_does_not_hinder(tmp_path, mmengine, write):
    model = built("hrnetv2")
    state = torch.load(official(model, tmp_path), weights_only=True)
    content = {
        "meta": {"seed": np.int64(3), "args": argparse.Namespace(lr=np.float64(0.1)), "when": {1, 2}},
        "message_hub": {"log_scalars": {"train/loss": mmengine()}},
        "best_mIoU": np.float64(0.8),
        "curve": np.arange(6, dtype=np.float32).reshape(2, 3),
        "state_dict": state,
    }
    write(content, tmp_path / "file.pth")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "file.pth", weights_only=True)
    for name in [n for n in sys.modules if n.startswith("mmengine")]:
        del sys.modules[name]
    checkpoint = weights.read_checkpoint(tmp_path / "file.pth")
    assert checkpoint.beside["best_mIoU"] == 0.8
    assert checkpoint.beside["curve"][1].tolist() == [3, 4, 5]
    for name, tensor in state.items():
        assert checkpoint.tensors[name].equal(tensor), name
    assert weights.inspect(tmp_path / "file.pth").report.fits


def test_views_types_and_shared_storages_are_read_as_torch_reads_them(tmp_path):
    base = torch.arange(24, dtype=torch.float16).reshape(4, 6)
    tensors = {
        "view": base[1:, ::2],
        "transposed": base.T,
        "bfloat16": torch.ones(3, dtype=torch.bfloat16),
        "parameter": torch.nn.Parameter(torch.ones(2, 2)),
        "scalar": torch.tensor(7),
        "empty": torch.empty(0, 3),
        "bool": torch.tensor([True, False]),
    }
    for write in (write_torch, write_legacy):
        write({**tensors, "numpy": np.float64(1)}, tmp_path / "file.pth")
        read = weights.read_checkpoint(tmp_path / "file.pth").tensors
        for name, tensor in tensors.items():
            assert read[name].equal(tensor.detach()), name
            assert read[name].dtype == tensor.dtype


@pytest.mark.parametrize("write", [write_torch, write_legacy, write_plain])
def test_a_file_cut_short_is_an_error_at_every_length(tmp_path, write):
    write({"weight": torch.arange(100.0), "numpy": np.float64(1)}, tmp_path / "file.pth")
    whole = (tmp_path / "file.pth").read_bytes()
    for length in range(0, len(whole) - 1, max(1, len(whole) // 40)):
        (tmp_path / "file.pth").write_bytes(whole[:length])
        with pytest.raises(WeightsError):
            weights.read_checkpoint(tmp_path / "file.pth")


def test_a_pickle_of_parts_without_end_is_given_up(tmp_path, monkeypatch):
    # Each "]" is a list of its own: ten megabytes of them took one and a half gigabytes.
    monkeypatch.setattr(pickles, "MOST_INSTRUCTIONS", 1000)
    (tmp_path / "file.pth").write_bytes(b"\x80\x02" + b"]" * 2000)
    with pytest.raises(WeightsError, match="more than 1,000 parts"):
        weights.read_checkpoint(tmp_path / "file.pth")


def test_dictionaries_that_share_each_other_are_made_once(tmp_path):
    value: dict = {"weight": 1}
    for _ in range(60):  # 2^60 ways down to the 1
        value = {"a": value, "b": value}
    (tmp_path / "file.pdparams").write_bytes(pickle.dumps({**value, "c": np.zeros(2)}, 2))
    with pytest.raises(WeightsError, match="are nested without end"):
        weights.read_checkpoint(tmp_path / "file.pdparams")


def test_an_archive_that_unpacks_to_far_more_than_it_is_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "file.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        archive.writestr("archive/data/0", bytes(50_000_000))
    with pytest.raises(WeightsError, match="unpacks to 48 MiB"):
        weights.read_checkpoint(tmp_path / "file.pth")
