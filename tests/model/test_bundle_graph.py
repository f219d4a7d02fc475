"""The graph of a bundle: data elsewhere, tensors of a wrong size and foreign operators are found wherever they are."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from lesion.core.errors import BundleError
from lesion.model.bundle_files import check_content


def weights() -> TensorProto:
    return numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(2, 3), "weights")


def model(*nodes: NodeProto, tensors: tuple[TensorProto, ...] = ()) -> ModelProto:
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])
    identity = helper.make_node("Identity", ["weights"], ["y"])
    graph = helper.make_graph([*nodes, identity], "graph", [], [output], [weights(), *tensors])
    return helper.make_model(graph)


def elsewhere(place: str = "../outside.bin") -> TensorProto:
    tensor = TensorProto(dims=[2, 3], data_type=1, name="other", data_location=TensorProto.EXTERNAL)
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", place
    return tensor


def short() -> TensorProto:
    return TensorProto(dims=[1000, 1000], data_type=1, name="other", raw_data=b"0123")


def in_a_constant(tensor: TensorProto) -> ModelProto:
    return model(helper.make_node("Constant", [], ["c"], value=tensor))


def in_a_branch(tensor: TensorProto) -> ModelProto:
    out = helper.make_tensor_value_info("o", TensorProto.FLOAT, [2, 3])
    branch = helper.make_graph([helper.make_node("Constant", [], ["o"], value=tensor)], "branch", [], [out])
    return model(helper.make_node("If", ["condition"], ["o"], then_branch=branch, else_branch=branch))


def in_a_function(tensor: TensorProto) -> ModelProto:
    made = model()
    node = helper.make_node("Constant", [], ["o"], value=tensor)
    made.functions.append(helper.make_function("", "F", [], ["o"], [node], made.opset_import))
    return made


def in_an_initializer(tensor: TensorProto) -> ModelProto:
    return model(tensors=(tensor,))


def in_a_sparse_initializer(tensor: TensorProto) -> ModelProto:
    made = model()
    made.graph.sparse_initializer.add().values.CopyFrom(tensor)
    return made


PLACES = (in_an_initializer, in_a_constant, in_a_branch, in_a_function, in_a_sparse_initializer)


def check(content: bytes, folder: Path) -> None:
    (folder / "model.onnx").write_bytes(content)
    check_content(folder / "model.onnx", "model.onnx")


def refusal(content: bytes, folder: Path) -> BundleError:
    with pytest.raises(BundleError) as caught:
        check(content, folder)
    return caught.value


@pytest.mark.parametrize("place", PLACES)
def test_data_elsewhere_is_refused_wherever_the_tensor_is(
    place: Callable[[TensorProto], ModelProto], tmp_path: Path
) -> None:
    check(place(weights()).SerializeToString(), tmp_path)
    for outside in ("../outside.bin", "/etc/passwd", "*/_ORT_MEM_ADDR_/*"):
        assert refusal(place(elsewhere(outside)).SerializeToString(), tmp_path).code == "bundle_external_data"


def test_a_length_of_two_bytes_hides_nothing(tmp_path: Path) -> None:
    content = in_an_initializer(elsewhere("x" * 40)).SerializeToString()
    assert content.count(b"\n\x08location") == 1
    for part in (elsewhere("x" * 40).external_data[0].SerializeToString(),):
        longer = part.replace(b"\n\x08location", b"\n\x88\x00location")
        tensor = b"\x6a" + bytes([len(longer)]) + longer + b"\x70\x01"  # external_data and data_location
        graph = b"\x2a" + bytes([len(tensor)]) + tensor
        assert refusal(b"\x3a" + bytes([len(graph)]) + graph, tmp_path).code == "bundle_external_data"


@pytest.mark.parametrize("place", PLACES)
def test_a_tensor_of_another_size_than_its_shape_is_refused(
    place: Callable[[TensorProto], ModelProto], tmp_path: Path
) -> None:
    error = refusal(place(short()).SerializeToString(), tmp_path)
    assert error.code == "bundle_file_invalid"
    assert "a tensor has 4 bytes instead of 4000000" in error.message


def test_operators_of_others_are_refused(tmp_path: Path) -> None:
    error = refusal(model(helper.make_node("Run", [], ["r"], domain="com.evil")).SerializeToString(), tmp_path)
    assert error.code == "bundle_file_invalid"
    assert "operators of b'com.evil'" in error.message


def test_graphs_within_graphs_without_end_are_refused(tmp_path: Path) -> None:
    content = b""
    for _ in range(60):  # an attribute with a graph with a node with an attribute, and so on
        for tag in (0x32, 0x2A, 0x0A):
            content = bytes([tag]) + length(len(content)) + content
    assert "nested" in refusal(b"\x3a" + length(len(content)) + content, tmp_path).message


def length(size: int) -> bytes:
    number = b""
    while size > 0x7F:
        number, size = number + bytes([size & 0x7F | 0x80]), size >> 7
    return number + bytes([size])


@pytest.mark.parametrize("content", [b"\x3a\x7fabc", b"text that is no graph", b"\x3a\x02\x28\x01"])
def test_what_is_no_graph_is_refused(content: bytes, tmp_path: Path) -> None:
    assert refusal(content, tmp_path).code == "bundle_file_invalid"
