"""A vCenter's answers in a test's own words, and a session that gives them.

What the test endpoint does not do is said this way: answers in parts, properties that are
withheld, raw mappings in virtual mode under a snapshot, names that two datacenters share.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar, cast
from xml.etree.ElementTree import Element, fromstring

from pyVmomi import vim

from stillframe.drivers.vsphere_session import ServiceContent, Session

T = TypeVar("T")
XMLNS = 'xmlns="urn:vim25" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'


def xml(text: str) -> Element:
    """An element of a vCenter's answer."""
    head, _, tail = text.partition(">")
    slash = "/" if head.endswith("/") else ""
    return fromstring(f"{head.rstrip('/')} {XMLNS}{slash}>{tail}")  # noqa: S314  our own text


def an_object(object_type: str, moid: str, more: str = "", **values: str) -> str:
    """One ``objects`` entry; values are XML, keys with __ for dots."""
    sets = "".join(
        f"<propSet><name>{name.replace('__', '.')}</name><val>{value}</val></propSet>"
        for name, value in values.items()
    )
    return f'<objects><obj type="{object_type}">{moid}</obj>{sets}{more}</objects>'


class Scripted:
    """A session and its stub: answers come from a function of the request."""

    system_id = "vc"
    content = ServiceContent("vc", "8.0", "group-d1", "collector", "views", "tasks", "sessions")

    def __init__(self, answer: Callable[[str], str | Exception]) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.logins = 1

    def post(self, body: str) -> Element:
        self.asked.append(body)
        answer = self.answer(body)
        if isinstance(answer, Exception):
            raise answer
        return xml(f"<Response><returnval>{answer}</returnval></Response>")

    def call(self, function: Callable[[Any], T]) -> T:
        try:
            return function(self)
        except vim.fault.NotAuthenticated:
            self.logins += 1
            return function(self)


def as_session(scripted: Scripted) -> Session:
    """For the type checker."""
    return cast("Session", scripted)


def ids_in(body: str) -> list[str]:
    """The objects that a request asks for."""
    return re.findall(r'<obj type="VirtualMachine">([^<]*)</obj>', body)
