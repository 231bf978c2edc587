"""What Ray raises, as one sentence; see `common.failures`."""

from __future__ import annotations

import ray

from mrkd_ray.common import failures

_GO_ON = "Nothing up to the last finished cycle is lost: the same command with --resume goes on"


def cause(error: BaseException) -> BaseException:
    """Return what went wrong in a task or an actor's method, without Ray's traceback around it."""
    if isinstance(error, ray.exceptions.RayTaskError) and error.cause is not None:
        return cause(error.cause)
    return error


def sentence(error: BaseException) -> str | None:
    """Return what to tell people of an error, None where it is a bug."""
    error = cause(error)
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return (
            "Ray ended a process, since the machine's memory was nearly full. Run fewer branches "
            f"at once (--cpus-per-branch), or take a machine with more. {_GO_ON}"
        )
    if isinstance(error, ray.exceptions.ObjectStoreFullError):
        return f"Ray's object store is full: free memory in /dev/shm. {_GO_ON}"
    if isinstance(error, ray.exceptions.RayActorError | ray.exceptions.WorkerCrashedError):
        return f"a process of Ray died, or its node. {_GO_ON}"
    if isinstance(error, ray.exceptions.ObjectLostError | ray.exceptions.NodeDiedError):
        return f"a node of the cluster was lost. {_GO_ON}"
    if isinstance(error, ray.exceptions.RpcError | ray.exceptions.RaySystemError):
        return f"Ray does not answer any more. {_GO_ON}"
    return failures.sentence(error)
