"""The SOAP connection to one vCenter: pyvmomi's adapter, made to say whether a call was sent.

Three things are added to pyvmomi's adapter:

* A connection that could not be made is told from an answer that was lost. Only after the first is
  it certain that nothing happened.
* Bulk reads are parsed by ElementTree. pyvmomi builds typed objects, which takes several times as
  long and is what a large inventory's time goes into.
* Calls in flight can be broken off, so that closing a session takes bounded time.
"""

from __future__ import annotations

import http.client
import re
import selectors
import socket
import ssl
import threading
from collections.abc import Iterator
from functools import cache
from weakref import WeakSet
from xml.etree.ElementTree import Element, ParseError, fromstring
from xml.parsers.expat import ExpatError

from pyVmomi import SoapStubAdapter, VmomiSupport, vim, vmodl
from pyVmomi.SoapAdapter import SoapResponseDeserializer

MethodFault = vmodl.MethodFault

NS = "{urn:vim25}"
TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"
_ENVELOPE = (
    '<?xml version="1.0" encoding="UTF-8"?>'
    '<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" '
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
    "<soapenv:Body>{}</soapenv:Body></soapenv:Envelope>"
)
_BODY = "{http://schemas.xmlsoap.org/soap/envelope/}Body"
_IDLE_S = 60.0
"""Idle connections are dropped before a proxy in between forgets them without a word."""

LOST_ANSWER = (
    OSError,
    http.client.HTTPException,
    ExpatError,
    ParseError,
    # pyvmomi's deserialiser, on an answer that it does not understand:
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
)
"""What a call raises when it was sent and no usable answer came back."""


class NotSentError(Exception):
    """No connection could be made: the call has certainly not reached the server."""


class Stub(SoapStubAdapter):  # type: ignore[misc]  # pyvmomi is not typed
    """See the module docstring.

    Parameters
    ----------
    connect_timeout_s:
        Seconds to connect and shake hands.
    call_timeout_s:
        Seconds without a byte of answer before the call is given up.
    """

    def __init__(
        self,
        host: str,
        port: int,
        version: str,
        context: ssl.SSLContext,
        *,
        pool_size: int,
        connect_timeout_s: float,
        call_timeout_s: float,
    ) -> None:
        super().__init__(
            host=host,
            port=port,
            version=version,
            sslContext=context,
            poolSize=pool_size,
            httpConnectionTimeout=connect_timeout_s,
            connectionPoolTimeout=_IDLE_S,
        )
        self._call_timeout_s = call_timeout_s
        self._in_use: dict[int, http.client.HTTPConnection] = {}
        self._used: WeakSet[http.client.HTTPConnection] = WeakSet()
        self._aborted = False

    def GetConnection(self) -> http.client.HTTPConnection:  # noqa: N802  pyvmomi's name
        """A connected connection; an idle one that the server has closed meanwhile is replaced.

        A call on such a one would be lost, and whether it happened unknown.

        Raises
        ------
        NotSentError
            There is none to be had.
        """
        if self._aborted:
            raise NotSentError("the session is closed")
        try:
            connection: http.client.HTTPConnection = super().GetConnection()
            while connection in self._used and _is_closed(connection):
                connection.close()
                connection = super().GetConnection()
            if connection.sock is None:  # some versions of pyvmomi leave it to the request
                connection.connect()
        except (OSError, http.client.HTTPException) as error:
            raise NotSentError(str(error) or type(error).__name__) from error
        if connection.sock is not None:
            connection.sock.settimeout(self._call_timeout_s)
        self._in_use[threading.get_ident()] = connection
        return connection

    def ReturnConnection(self, conn: http.client.HTTPConnection) -> None:  # noqa: N802
        """Keep the connection, unless the server has closed it.

        A closed one would connect again in the middle of a call, and whether that call was sent
        could no longer be told.
        """
        self._in_use.pop(threading.get_ident(), None)
        if conn.sock is None:
            conn.close()
        else:
            self._used.add(conn)
            super().ReturnConnection(conn)

    def abort(self) -> None:
        """Break off what is in flight and refuse new calls."""
        self._aborted = True
        for connection in list(self._in_use.values()):
            if connection.sock is not None:
                # Not SSLSocket.shutdown: that takes the TLS object from under the reading thread.
                try:
                    socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)
                except OSError:
                    continue  # it has been closed meanwhile, which is what was wanted
        self.DropConnections()

    def post(self, body: str) -> Element:
        """Send a SOAP body; returns the first element of the answer's body.

        Raises
        ------
        MethodFault
            The server refused the call.
        NotSentError
            No connection could be made.
        OSError, http.client.HTTPException, ParseError
            The answer was lost or makes no sense.
        """
        connection = self.GetConnection()
        headers = {
            "Cookie": self.cookie,
            "SOAPAction": self.versionId,
            "Content-Type": "text/xml; charset=UTF-8",
        }
        try:
            connection.request("POST", self.path, _ENVELOPE.format(body).encode(), headers)
            response = connection.getresponse()
            data = response.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            self.DropConnections()
            raise
        self.ReturnConnection(connection)
        if response.status == 500:
            raise self._fault(data)
        if response.status != 200:
            raise http.client.HTTPException(f"{response.status} {response.reason}")
        found = fromstring(data).find(_BODY)  # noqa: S314  an authenticated server's answer
        if found is None or not len(found):
            raise http.client.HTTPException("the answer has no body")
        return found[0]

    def _fault(self, data: bytes) -> Exception:
        fault = SoapResponseDeserializer(self).Deserialize(data, object)
        if isinstance(fault, Exception):
            return fault
        return http.client.HTTPException("status 500 without a fault")


def _is_closed(connection: http.client.HTTPConnection) -> bool:
    """Whether the server has ended an idle connection: there is something to read, its end."""
    if connection.sock is None:
        return True
    with selectors.DefaultSelector() as selector:
        selector.register(connection.sock, selectors.EVENT_READ)
        return bool(selector.select(0))


@cache
def qualified(path: str) -> str:
    """A path of element names in vSphere's name space: ``a/b`` to ``{urn:vim25}a/{urn:vim25}b``."""
    return "/".join(NS + name for name in path.split("/"))


def child(element: Element | None, path: str) -> Element | None:
    """The first element at this path below; None if there is none."""
    return None if element is None else element.find(qualified(path))


def children(element: Element | None, path: str) -> Iterator[Element]:
    """All elements at this path below."""
    return iter(()) if element is None else element.iterfind(qualified(path))


def text(element: Element | None, path: str = "") -> str:
    """The text of the element at this path below (or of itself); empty if there is none."""
    found = element if not path else child(element, path)
    return "" if found is None or found.text is None else found.text


def flag(element: Element | None, path: str = "") -> bool:
    """Whether the text there says true."""
    return text(element, path) in ("true", "1")


def kind(element: Element | None) -> str:
    """The vSphere type that the element says it has, without a prefix."""
    return "" if element is None else element.get(TYPE, "").rpartition(":")[2]


def probe_version(host: str, port: int, context: ssl.SSLContext, timeout_s: float) -> str:
    """pyvmomi's name for the newest API that both sides speak.

    Asked for here because pyvmomi's own probe waits for a silent server for ever.

    Raises
    ------
    OSError, http.client.HTTPException
        The server cannot be reached, is not who it should be, or does not answer in time.
    """
    connection = http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
    try:
        connection.request("GET", "/sdk/vimServiceVersions.xml")
        response = connection.getresponse()
        data = response.read()
    finally:
        connection.close()
    offered = re.findall(r"<version>\s*([\w.]+)\s*</version>", data.decode("utf-8", "replace"))
    if response.status != 200 or not offered:
        raise http.client.HTTPException("it has no vSphere API here")
    known: list[str] = VmomiSupport.GetServiceVersions("vim25")  # newest first
    for version in known:
        if VmomiSupport.versionIdMap[version] in offered:
            return version
    raise http.client.HTTPException(f"it speaks no API that is known here, only {offered[0]}")


__all__ = [
    "LOST_ANSWER",
    "MethodFault",
    "NotSentError",
    "Stub",
    "child",
    "children",
    "flag",
    "kind",
    "probe_version",
    "qualified",
    "text",
    "vim",
    "vmodl",
]
