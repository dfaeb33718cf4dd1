"""gRPC's own Python packages: health, and calls by what reflection tells, with no file of ours."""

import os

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

HOST = os.environ["SCORE_URL"].removeprefix("http://")
INFERENCE = "inference.GRPCInferenceService"


@pytest.fixture
def channel():
    with grpc.insecure_channel(HOST) as channel:
        yield channel


@pytest.fixture
def pool(channel):
    return DescriptorPool(ProtoReflectionDescriptorDatabase(channel))


def infer(channel, pool, a, b, shape=None, **options):
    method = pool.FindServiceByName(INFERENCE).methods_by_name["ModelInfer"]
    request = GetMessageClass(method.input_type)(model_name="score")
    for name, values in (("a", a), ("b", b)):
        tensor = request.inputs.add(name=name, datatype="FP64", shape=shape or [len(values)])
        tensor.contents.fp64_contents.extend(values)
    call = channel.unary_unary(
        f"/{INFERENCE}/ModelInfer",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    return call(request, **options)


def test_reflection_lists_what_there_is(channel):
    services = set(ProtoReflectionDescriptorDatabase(channel).get_services())
    assert {INFERENCE, "grpc.health.v1.Health"} <= services


def test_a_call_by_what_reflection_tells(channel, pool):
    answer = infer(channel, pool, [1.0, 2.0], [0.5, 0.0])
    assert answer.outputs[0].datatype == "FP64"
    assert memoryview(answer.raw_output_contents[0]).cast("d").tolist() == [2.5, 4.0]


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_messages_may_be_compressed(channel, pool, compression):
    answer = infer(channel, pool, [1.0] * 5000, [0.5] * 5000, compression=compression)
    assert memoryview(answer.raw_output_contents[0]).cast("d").tolist() == [2.5] * 5000


def test_more_than_the_default_limit_of_other_servers(channel, pool):
    count = 400_000
    with grpc.insecure_channel(HOST, options=[("grpc.max_receive_message_length", -1)]) as channel:
        answer = infer(channel, pool, [1.0] * count, [0.5] * count)
    assert memoryview(answer.raw_output_contents[0]).cast("d").tolist() == [2.5] * count


def test_errors_have_details(channel, pool):
    with pytest.raises(grpc.RpcError) as raised:
        infer(channel, pool, [1.0], [0.5], shape=[3])
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert rpc_status.from_call(raised.value).code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


def test_health(channel):
    health = health_pb2_grpc.HealthStub(channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    for service in ("", INFERENCE):
        assert health.Check(health_pb2.HealthCheckRequest(service=service)).status == serving
    assert next(health.Watch(health_pb2.HealthCheckRequest())).status == serving
    with pytest.raises(grpc.RpcError) as raised:
        health.Check(health_pb2.HealthCheckRequest(service="nobody"))
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND
