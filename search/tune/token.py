"""The token of a cluster that asks for one. Ray reads it; here it is said in one line when it is not the right one."""

from __future__ import annotations

import grpc
from ray.exceptions import AuthenticationError

from evaluation.errors import InputError
from search.tune.ray_internals import ask_head, show_token

PROBE_S = 5.0


def refused(address: str) -> InputError:
    """What to say where the cluster at `address` lets nobody in without its token."""
    return InputError(
        f"--address {address}: the cluster asks for a token and takes none from here; expected the token of "
        "the cluster's head in ~/.ray/auth_token or RAY_AUTH_TOKEN (`ray get-auth-token` on the head prints it)"
    )


def require_token(address: str, head: str) -> None:
    """Ask the head at `head`, as HOST:PORT, whether it lets this process in.

    The token that is here is shown to a head that asks for one, and to no other: a driver that shows one to a cluster
    without tokens has its actors ended. Ray itself asks for 20 seconds, prints a line each time and then says only that
    it failed to connect. Whatever else is wrong with the head is left to Ray.

    Raises:
        InputError: it does not, as `refused` says it.
    """
    if _turned_away(head):
        show_token()
        if _turned_away(head):
            raise refused(address)


def _turned_away(head: str) -> bool:
    try:
        ask_head(head, PROBE_S)
    except AuthenticationError:  # there is no token to show
        return True
    except grpc.RpcError as error:
        return bool(error.code() == grpc.StatusCode.UNAUTHENTICATED)
    return False
