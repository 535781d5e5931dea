"""An exported file is the model it came from, or is not there."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from hrseg.commands import export as export_command
from hrseg.errors import ConfigError, HrsegError
from hrseg.export import export, formats, int8, runner
from hrseg.export import exporting as command
from hrseg.inference import Inference, forward
from hrseg.task import Task

pytest.importorskip("onnxruntime")


def metadata_inside(path, format):
    if format == "onnx":
        import onnx

        return {p.key: p.value for p in onnx.load(path).metadata_props}[formats.METADATA]
    if format == "openvino":
        return (
            formats.import_optional("openvino", "openvino")
            .Core()
            .read_model(path)
            .get_rt_info([formats.METADATA])
            .value
        )
    files = {f"{formats.METADATA}.json": ""}
    load = torch.export.load if format == "torch.export" else torch.jit.load
    load(str(path), **{"extra_files" if format == "torch.export" else "_extra_files": files})
    return files[f"{formats.METADATA}.json"]


@pytest.mark.parametrize("format", [f if f != "openvino" else pytest.param(f, marks=pytest.mark.long)
                                    for f in formats.FORMATS])  # fmt: skip
def test_a_file_of_any_format_takes_any_size_and_says_what_it_is(loaded, tmp_path, format):
    if format in ("openvino", "tensorrt"):
        pytest.importorskip(format)
    model = loaded(multiple=32)
    out = tmp_path / f"model{formats.FORMATS[format].ending}"
    done = export(model, out, format, dynamic=True)
    assert (
        done.verification.agreement > 0.9999
        and done.verification.logit_difference < 1e-5
        and len(done.verification.sizes) == 3
    )
    image = torch.randint(0, 256, (2, 3, 75, 141), dtype=torch.uint8)  # a number and a size of none of them
    with torch.inference_mode():
        found = runner(out, format)(image)
        wanted = forward(model.model, (image / 255 - 0.5) / 0.25)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    inside, beside = json.loads(metadata_inside(out, format)), json.loads((tmp_path / f"{out.name}.json").read_text())
    assert inside == {key: value for key, value in beside.items() if key != "proof"}
    assert inside["classes"] == ["ground", "box", "disc"] and inside["palette"][1] == [220, 40, 40]
    assert inside["normalisation"]["mean"] == [0.5] * 3 and inside["input"]["type"] == "uint8"
    assert inside["size"] == {"fixed": None, "least": 64, "padded_inside_to_multiple_of": 32}


@pytest.mark.parametrize(("task", "shape"), [("multiclass", (1, 64, 96)), ("binary", (1, 64, 96)),
                                             ("multilabel", (1, 3, 64, 96))])  # fmt: skip
def test_labels_come_in_bytes_in_every_task(loaded, tmp_path, task, shape):
    model = loaded(Task(task), channels=4, highest=65535.0)
    export(model, tmp_path / "m.pt2", "torch.export", argmax=True)
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 65536, (1, 4, 64, 96), dtype=np.uint16))
    labels = runner(tmp_path / "m.pt2", "torch.export")(image)
    wanted = Inference(model.space.task).labels(model.model((image.float() / 65535 - 0.5) / 0.25))
    assert labels.dtype == torch.uint8 and labels.shape == shape and torch.equal(labels, wanted)


def test_a_file_that_answers_otherwise_is_refused_and_the_older_one_stays(loaded, tmp_path, monkeypatch):
    def write_another(module, example, path, dynamic, metadata):
        with torch.no_grad():
            module.model.segmentation_head.conv.bias[0] += 0.01
        formats.FORMATS["torch.export"].write(module, example, path, dynamic, metadata)

    another = formats.FORMATS["torch.export"]._replace(write=write_another)
    monkeypatch.setitem(command.FORMATS, "another", another)
    (tmp_path / "m.pt2").write_text("older")
    (tmp_path / "m.pt2.json").write_text('{"input": {}, "output": {}, "proof": {}}')
    with pytest.raises(HrsegError, match=r"logit difference 0\.01.*agreement 9\d\.\d+ %.*fp32 needs 99\.99 %"):
        export(loaded(), tmp_path / "m.pt2", "another")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.pt2", "m.pt2.json"]
    assert (tmp_path / "m.pt2").read_text() == "older"


@pytest.mark.long
def test_half_precision_is_inside_its_own_bound(loaded, tmp_path):
    done = export(loaded(), tmp_path / "m.onnx", "onnx", precision="fp16", normalised=True)
    assert done.verification.agreement >= 0.999 and 0 < done.verification.logit_difference < 0.01
    session = formats.import_optional("onnxruntime", "export").InferenceSession(tmp_path / "m.onnx")
    assert session.get_inputs()[0].type == "tensor(float)" and session.get_inputs()[0].shape == [1, 3, 64, 96]


@pytest.mark.parametrize(("words", "said"), [
    ({"format": "onnx", "precision": "bf16"}, "no bf16"),
    ({"format": "torchscript", "precision": "int8"}, "no int8"),
    ({"format": "openvino"}, "ends in .xml"),
    ({"format": "onnx", "dynamic": True, "size": (32, 64)}, "at least 64"),
])  # fmt: skip
def test_what_cannot_be_is_said_before_any_work(loaded, tmp_path, words, said):
    with pytest.raises(ConfigError, match=said):
        export(loaded(), tmp_path / ("m.pt" if words["format"] == "torchscript" else "m.onnx"), **words)
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_int8_is_explicit_symmetric_and_costs_what_it_says(loaded, tmp_path, shapes, monkeypatch):
    import onnx

    model = loaded(root=shapes)
    monkeypatch.setattr(int8, "MOST_COST", 1.0)
    done = export(model, tmp_path / "m.onnx", "onnx", precision="int8", dynamic=True)
    graph = onnx.load(tmp_path / "m.onnx").graph
    kinds = [node.op_type for node in graph.node]
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    quantised = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert convolutions and kinds.count("QuantizeLinear") >= 4
    assert all(values[node.input[2]].dtype == np.int8 and not values[node.input[2]].any() for node in quantised)
    assert all(len(node.input) < 3 or node.input[2] in values for node in convolutions)  # biases as they were
    assert json.loads(metadata_inside(tmp_path / "m.onnx", "onnx"))["precision"] == "int8"
    assert 0 <= done.int8_cost.int8 <= 1 and done.verification.agreement < 1
    monkeypatch.setattr(int8, "MOST_COST", -1.0)
    with pytest.raises(HrsegError, match="points lost"):
        export(model, tmp_path / "other.onnx", "onnx", precision="int8")
    assert not (tmp_path / "other.onnx").exists()


def test_the_formats_in_the_help_are_those_of_the_code():
    assert (*formats.FORMATS, "hub") == export_command.FORMATS
