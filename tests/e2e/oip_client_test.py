"""tritonclient, as it comes from PyPI, against a real server."""
import os
import queue

import numpy as np
import pytest
import tritonclient.grpc as triton
from esper_serve import Head, LocalServer, PolicySpec
from tritonclient.utils import InferenceServerException

MODEL = "gridworld"
WIDTH = 3


@pytest.fixture(scope="module")
def address():
    spec = PolicySpec(
        name=MODEL, observation=[("state", WIDTH)],
        heads=[Head("move", 4), Head("speed", 2)], hidden_dim=32,
        mask_optional=True)
    binary = os.environ.get("ESPER_SERVER", "bazel-bin/server/esper_server")
    with LocalServer(binary, spec) as server:
        yield server


@pytest.fixture
def client(address):
    with triton.InferenceServerClient(str(address)) as connected:
        yield connected


def observations(rows=1, seed=0):
    values = np.random.default_rng(seed).normal(size=(rows, WIDTH))
    tensor = triton.InferInput("observations", [rows, WIDTH], "FP32")
    tensor.set_data_from_numpy(values.astype(np.float32))
    return [tensor]


def step_of(result):
    return result.get_response().parameters["step"].int64_param


def test_health_and_metadata(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, "1")
    assert not client.is_model_ready(MODEL, "2")
    assert not client.is_model_ready("other")
    assert "sequence" in client.get_server_metadata().extensions
    model = client.get_model_metadata(MODEL)
    assert model.versions == ["1"]
    inputs = {i.name: (i.datatype, list(i.shape)) for i in model.inputs}
    assert inputs["observations"] == ("FP32", [-1, WIDTH])
    assert [o.name for o in model.outputs] == ["actions", "log_probs", "values"]


def test_a_sequence_is_an_episode(client):
    def play(sequence, seed):
        played = []
        for step in range(4):
            result = client.infer(
                MODEL, observations(seed=step), sequence_id=sequence,
                sequence_start=step == 0, sequence_end=step == 3,
                parameters={"seed": seed} if step == 0 else None)
            assert step_of(result) == step
            assert result.get_response().model_version == "1"
            assert result.as_numpy("actions").shape == (1, 2)
            assert result.as_numpy("actions").dtype == np.uint8
            assert (result.as_numpy("log_probs") <= 0).all()
            assert result.as_numpy("values").shape == (1,)
            played.append(result)
        return played

    first, again = play(1001, 5), play("by name", 5)
    for one, other in zip(first, again):
        for output in ("actions", "log_probs", "values"):
            np.testing.assert_array_equal(one.as_numpy(output),
                                          other.as_numpy(output))
    # The state is carried: the same observation gives another value later.
    with pytest.raises(InferenceServerException, match="not open"):
        client.infer(MODEL, observations(), sequence_id=1001)


def test_rows_and_requested_outputs(client):
    result = client.infer(
        MODEL, observations(rows=5), sequence_id=7, sequence_start=True,
        sequence_end=True, outputs=[triton.InferRequestedOutput("values")],
        request_id="mine")
    assert result.as_numpy("values").shape == (5,)
    assert result.as_numpy("actions") is None
    assert result.get_response().id == "mine"


def test_a_request_sent_again_advances_again(client):
    client.infer(MODEL, observations(), sequence_id=8, sequence_start=True)
    steps = [
        step_of(client.infer(MODEL, observations(), sequence_id=8))
        for _ in range(2)
    ]
    assert steps == [1, 2]


def test_refusals_name_what_is_wrong(client):
    wide = triton.InferInput("observations", [1, 9], "FP32")
    wide.set_data_from_numpy(np.zeros((1, 9), np.float32))
    nan = triton.InferInput("observations", [1, WIDTH], "FP32")
    nan.set_data_from_numpy(np.full((1, WIDTH), np.nan, np.float32))
    start = dict(sequence_id=9, sequence_start=True)
    for inputs, arguments, words in (
        (observations(), {}, "sequence_id"),
        ([wide], start, "observations"),
        ([nan], start, "observations"),
        (observations(), dict(start, priority=1), "priority"),
        (observations(), dict(start, model_version="4"), "Version 4"),
    ):
        with pytest.raises(InferenceServerException, match=words) as refused:
            client.infer(MODEL, inputs, **arguments)
        assert refused.value.status() in ("StatusCode.INVALID_ARGUMENT",
                                          "StatusCode.FAILED_PRECONDITION")
    with pytest.raises(InferenceServerException, match="no model"):
        client.infer("other", observations(), **start)


def test_a_stream_of_two_sequences(client):
    answers = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put(
        (result, error)))
    for step in range(6):
        for sequence in (21, 22):
            client.async_stream_infer(
                MODEL, observations(seed=step), sequence_id=sequence,
                sequence_start=step == 0, sequence_end=step == 5,
                request_id=str(sequence))
    client.async_stream_infer(MODEL, observations(), sequence_id=23,
                              request_id="23")
    steps = {"21": [], "22": []}
    refusals = []
    for _ in range(13):
        result, error = answers.get(timeout=60)
        if error is not None:
            refusals.append(str(error))
        else:
            steps[result.get_response().id].append(step_of(result))
    client.stop_stream()
    assert steps == {"21": list(range(6)), "22": list(range(6))}
    assert len(refusals) == 1 and "not open" in refusals[0]
