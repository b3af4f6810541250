"""The token of a cluster that asks for one. Ray reads it; here it is said in one line when it is not the right one."""

from __future__ import annotations

import grpc
from ray.exceptions import AuthenticationError

from evaluation.errors import InputError
from search.tune.ray_internals import ask_head

PROBE_S = 5.0


def refused(address: str) -> InputError:
    """What to say where the cluster at `address` lets nobody in without its token."""
    return InputError(
        f"--address {address}: the cluster asks for a token and takes none from here; expected the token of "
        "the cluster's head in ~/.ray/auth_token or RAY_AUTH_TOKEN (`ray get-auth-token` on the head prints it)"
    )


def require_token(address: str, head: str) -> None:
    """Ask the head at `head`, as HOST:PORT, whether it lets this process in.

    Ray itself asks for 20 seconds, prints a line each time and then says only that it failed to connect. Whatever else
    is wrong with the head is left to Ray.

    Raises:
        InputError: it does not, as `refused` says it.
    """
    try:
        ask_head(head, PROBE_S)
    except AuthenticationError:  # there is no token to show
        raise refused(address) from None
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNAUTHENTICATED:
            raise refused(address) from None
