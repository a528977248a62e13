"""A logged-in session with one vCenter; logs in again when the session has expired.

Everything here blocks and is called from the driver's own threads.

Nothing is ever repeated but what is known to have had no effect: reads, and calls that the vCenter
refused because the session was not (any longer) valid.
"""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Callable
from typing import NamedTuple, TypeVar
from xml.etree.ElementTree import Element

from .errors import DidNotHappenError, NeverWillError
from .vsphere_settings import Credentials, VsphereSettings
from .vsphere_wire import (
    LOST_ANSWER,
    MethodFault,
    NotSentError,
    Stub,
    child,
    probe_version,
    text,
    vim,
)

T = TypeVar("T")


class ServiceContent(NamedTuple):
    """What a vCenter says about itself, and the identifiers of its managers."""

    name: str
    version: str
    root_folder: str
    property_collector: str
    view_manager: str
    task_manager: str
    session_manager: str


class Session:
    """One session of one user.

    Parameters
    ----------
    system_id:
        The vCenter's identifier in the estate.
    context:
        How the server has to prove who it is.
    """

    def __init__(
        self,
        system_id: str,
        settings: VsphereSettings,
        credentials: Credentials,
        context: ssl.SSLContext,
    ) -> None:
        self.system_id = system_id
        self.subject = f"{system_id} ({settings.host}:{settings.port})"
        self._settings = settings
        self._credentials = credentials
        self._context = context
        self._login_lock = threading.Lock()
        self._logins = 0
        self._stub: Stub | None = None
        self._content: ServiceContent | None = None

    @property
    def stub(self) -> Stub:
        """The connection; only after :meth:`open`."""
        assert self._stub is not None, "the session is open"  # noqa: S101
        return self._stub

    @property
    def content(self) -> ServiceContent:
        """What the vCenter said when the session was opened."""
        assert self._content is not None, "the session is open"  # noqa: S101
        return self._content

    @property
    def logins(self) -> int:
        """How often it has logged in."""
        return self._logins

    def open(self) -> None:
        """Connect and log in; takes at most the time limits of the settings.

        Raises
        ------
        DidNotHappenError
            The server cannot be reached or does not answer.
        NeverWillError
            The server cannot prove who it is, is no vCenter, or refuses the user.
        """
        settings = self._settings
        try:
            version = probe_version(
                settings.host, settings.port, self._context, settings.connect_timeout
            )
            self._stub = Stub(
                settings.host,
                settings.port,
                version,
                self._context,
                pool_size=settings.pool_size,
                connect_timeout_s=settings.connect_timeout,
                call_timeout_s=settings.call_timeout,
            )
            self._content = _content(self._stub)
            self._login()
        except ssl.SSLCertVerificationError as error:
            reason = f"the server's certificate is not accepted: {error.verify_message}"
            advice = "give the certificate of the CA that signed it as ca_file"
            raise NeverWillError("connect", self.subject, reason, advice) from error
        except ssl.SSLError as error:
            reason = f"no TLS connection: {error.reason or error}"
            raise NeverWillError("connect", self.subject, reason, "check host and port") from error
        except TimeoutError as error:
            reason = "the server does not answer"
            raise DidNotHappenError(
                "connect", self.subject, reason, "check host, port and firewall"
            ) from error
        except (NotSentError, OSError) as error:
            reason = f"it cannot be reached: {error}"
            advice = "check host, port and network"
            raise DidNotHappenError("connect", self.subject, reason, advice) from error
        except http.client.HTTPException as error:
            raise NeverWillError(
                "connect", self.subject, str(error) or "the answer is not HTTP", "check host, port"
            ) from error
        except vim.fault.InvalidLogin as error:
            reason = f"user {self._credentials.user} is refused"
            advice = "check the user and the password, and that the account is not locked"
            raise NeverWillError("login", self.subject, reason, advice) from error
        except MethodFault as error:
            raise NeverWillError("login", self.subject, str(error.msg)) from error
        except LOST_ANSWER as error:
            raise NeverWillError(
                "connect", self.subject, "its answer is not that of a vCenter", "check host, port"
            ) from error

    def _login(self) -> None:
        stub = self.stub
        stub.cookie = ""  # an old one would have the login refused
        manager = vim.SessionManager(self.content.session_manager, stub)
        manager.Login(self._credentials.user, self._credentials.password, None)
        self._logins += 1

    def _login_again(self, seen: int) -> None:
        """Log in, unless another thread has done so since ``seen`` logins.

        Raises
        ------
        NotSentError
            The login was not answered; the call that needed it had no effect.
        """
        with self._login_lock:
            if self._logins != seen:
                return
            try:
                self._login()
            except MethodFault:
                raise
            except LOST_ANSWER as error:
                reason = f"the session has expired, and a new login got no answer: {error}"
                raise NotSentError(reason) from error

    def call(self, function: Callable[[Stub], T]) -> T:
        """One call; repeated once if it was refused for want of a valid session.

        Raises
        ------
        MethodFault
            The vCenter refused the call.
        NotSentError
            The call had no effect, because it was not sent or not accepted.
        OSError, http.client.HTTPException, and the others in LOST_ANSWER
            The call was sent, and its outcome is unknown.
        """
        seen = self._logins
        try:
            return function(self.stub)
        except vim.fault.NotAuthenticated:
            self._login_again(seen)
            return function(self.stub)

    def post(self, body: str) -> Element:
        """Send a SOAP body and return the answer's element; raises what :meth:`call` raises."""
        return self.call(lambda stub: stub.post(body))

    def logout(self) -> None:
        """End the session on the server; whether it answers makes no difference to us."""
        manager = vim.SessionManager(self.content.session_manager, self.stub)
        try:
            manager.Logout()
        except (MethodFault, NotSentError, *LOST_ANSWER):
            return  # the server ends idle sessions by itself

    def abort(self) -> None:
        """Break off what is in flight; every later call fails."""
        if self._stub is not None:
            self._stub.abort()


def _content(stub: Stub) -> ServiceContent:
    answer = stub.post(
        '<RetrieveServiceContent xmlns="urn:vim25">'
        '<_this type="ServiceInstance">ServiceInstance</_this></RetrieveServiceContent>'
    )
    value = child(answer, "returnval")
    if not text(value, "propertyCollector"):
        raise http.client.HTTPException("it answers, but not as a vCenter does")
    return ServiceContent(
        name=text(value, "about/name"),
        version=text(value, "about/version"),
        root_folder=text(value, "rootFolder"),
        property_collector=text(value, "propertyCollector"),
        view_manager=text(value, "viewManager"),
        task_manager=text(value, "taskManager"),
        session_manager=text(value, "sessionManager"),
    )
