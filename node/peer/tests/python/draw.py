"""Uses a peer as a Python program would: nothing but what grpcio-tools generates.

Every assertion is one of the contract in proto/client/v1/client.proto.
"""

import sys

import grpc
import health_pb2
import health_pb2_grpc
from client.v1 import client_pb2 as wire
from client.v1 import client_pb2_grpc as stubs

JOB = "01K9ZJ4Q4Y8V0N5T2M7R3X6B1C"


def submission(job_id):
    cat = wire.TextToImage(prompt="a cat on a blue background", seed=7)
    return wire.SubmitRequest(job_id=job_id, tenant="python", text_to_image=cat)


def refusal(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    raise AssertionError("the call was not refused")


def main(address):
    with grpc.insecure_channel(address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        told = health.Check(health_pb2.HealthCheckRequest(), timeout=30)
        assert told.status == health_pb2.HealthCheckResponse.SERVING, told

        atelier = stubs.AtelierStub(channel)
        accepted = atelier.Submit(submission(JOB), timeout=30)
        assert accepted.job_id == JOB and not accepted.duplicate, accepted
        assert atelier.Submit(submission(JOB), timeout=30).duplicate

        phases = []
        for event in atelier.Watch(wire.WatchRequest(job_id=JOB), timeout=30):
            phases.append(event.job.phase)
        assert phases[-1] == wire.PHASE_SUCCEEDED, phases

        job = atelier.GetJob(wire.GetJobRequest(job_id=JOB), timeout=30)
        assert job.tenant == "python" and job.text_to_image.seed == 7, job
        for artifact in job.artifacts:
            request = wire.GetArtifactRequest(digest=artifact.digest)
            chunks = [chunk.data for chunk in atelier.GetArtifact(request, timeout=30)]
            assert len(b"".join(chunks)) == artifact.bytes, artifact
        assert len(job.artifacts) == 1, job

        listed = atelier.ListJobs(wire.ListJobsRequest(limit=10), timeout=30)
        assert [one.job_id for one in listed.jobs] == [JOB], listed
        status = atelier.Status(wire.StatusRequest(), timeout=30)
        assert status.node == 1 and status.leader == 1, status
        members = atelier.ListMembers(wire.ListMembersRequest(), timeout=30).members
        assert [member.node for member in members] == [1], members

        over = wire.CancelJobRequest(job_id=JOB)
        assert refusal(lambda: atelier.CancelJob(over, timeout=30)) == grpc.StatusCode.FAILED_PRECONDITION
        unknown = wire.GetJobRequest(job_id=JOB[:-1] + "D")
        assert refusal(lambda: atelier.GetJob(unknown, timeout=30)) == grpc.StatusCode.NOT_FOUND
        wrong = wire.SubmitRequest(text_to_image=wire.TextToImage(prompt="a cat", width=1000))
        assert refusal(lambda: atelier.Submit(wrong, timeout=30)) == grpc.StatusCode.INVALID_ARGUMENT
    print("done")


main(sys.argv[1])
