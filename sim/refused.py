"""What an event loop can do that a simulated one must not.

A thread, a socket, a child process or a signal brings the machine's own timing into a run, and a
run that they touch cannot be repeated. Each of these calls is refused where it is made, instead of
failing later in a way that names neither the call nor the reason.
"""

from __future__ import annotations

from typing import Any

from .env import SimForbiddenError

_SOCKETS = "put the connection behind a driver and give the run a simulated one"
_THREADS = "do the work in a coroutine, or before the run"
_PROCESSES = "put the child process behind a driver and give the run a simulated one"
_SIGNALS = "schedule the event on the virtual clock"


def _refusal(call: str, advice: str) -> Any:
    def refuse(*_args: object, **_options: object) -> None:
        raise SimForbiddenError(f"{call} is refused on a simulated event loop", advice)

    refuse.__name__ = refuse.__qualname__ = call
    refuse.__doc__ = "Refused with SimForbiddenError."
    return refuse


class RefusedCalls:
    """Every call of an event loop that reaches outside the simulation, refused."""

    run_in_executor: Any = _refusal("run_in_executor (a thread)", _THREADS)
    set_default_executor: Any = _refusal("set_default_executor (threads)", _THREADS)

    getaddrinfo: Any = _refusal("getaddrinfo (the network)", _SOCKETS)
    getnameinfo: Any = _refusal("getnameinfo (the network)", _SOCKETS)
    create_connection: Any = _refusal("create_connection (a socket)", _SOCKETS)
    create_server: Any = _refusal("create_server (a socket)", _SOCKETS)
    create_unix_connection: Any = _refusal("create_unix_connection (a socket)", _SOCKETS)
    create_unix_server: Any = _refusal("create_unix_server (a socket)", _SOCKETS)
    create_datagram_endpoint: Any = _refusal("create_datagram_endpoint (a socket)", _SOCKETS)
    connect_accepted_socket: Any = _refusal("connect_accepted_socket (a socket)", _SOCKETS)
    start_tls: Any = _refusal("start_tls (a socket)", _SOCKETS)
    sendfile: Any = _refusal("sendfile (a socket)", _SOCKETS)
    sock_recv: Any = _refusal("sock_recv (a socket)", _SOCKETS)
    sock_recv_into: Any = _refusal("sock_recv_into (a socket)", _SOCKETS)
    sock_recvfrom: Any = _refusal("sock_recvfrom (a socket)", _SOCKETS)
    sock_recvfrom_into: Any = _refusal("sock_recvfrom_into (a socket)", _SOCKETS)
    sock_sendall: Any = _refusal("sock_sendall (a socket)", _SOCKETS)
    sock_sendto: Any = _refusal("sock_sendto (a socket)", _SOCKETS)
    sock_sendfile: Any = _refusal("sock_sendfile (a socket)", _SOCKETS)
    sock_connect: Any = _refusal("sock_connect (a socket)", _SOCKETS)
    sock_accept: Any = _refusal("sock_accept (a socket)", _SOCKETS)
    add_reader: Any = _refusal("add_reader (a file descriptor)", _SOCKETS)
    remove_reader: Any = _refusal("remove_reader (a file descriptor)", _SOCKETS)
    add_writer: Any = _refusal("add_writer (a file descriptor)", _SOCKETS)
    remove_writer: Any = _refusal("remove_writer (a file descriptor)", _SOCKETS)
    connect_read_pipe: Any = _refusal("connect_read_pipe (a pipe)", _SOCKETS)
    connect_write_pipe: Any = _refusal("connect_write_pipe (a pipe)", _SOCKETS)

    subprocess_exec: Any = _refusal("subprocess_exec (a child process)", _PROCESSES)
    subprocess_shell: Any = _refusal("subprocess_shell (a child process)", _PROCESSES)

    add_signal_handler: Any = _refusal("add_signal_handler (signals)", _SIGNALS)
    remove_signal_handler: Any = _refusal("remove_signal_handler (signals)", _SIGNALS)
