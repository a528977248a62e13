"""Reading properties of many objects with few requests (RetrievePropertiesEx).

Only named paths are read, never a whole ``config``. Answers that come in parts are read to the
end. An object that is gone when its turn comes is left out; by itself, a vCenter answers a list of
objects of which one is gone with a fault for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape, quoteattr

from .vsphere_session import Session
from .vsphere_wire import (
    LOST_ANSWER,
    MethodFault,
    NotSentError,
    Stub,
    child,
    children,
    kind,
    text,
    vim,
    vmodl,
)

BATCH = 100
"""Objects in one request, so that no answer is larger than a megabyte or two."""


class Found(NamedTuple):
    """One object and those of the wanted properties that are set."""

    type: str
    id: str
    values: Mapping[str, Element]
    withheld: tuple[tuple[str, str], ...] = ()
    """Properties that are there and cannot be read, each with the name of the fault."""

    def check(self) -> None:
        """Make sure that what is not in ``values`` is unset, rather than kept from this user.

        Raises
        ------
        MethodFault
            Something is withheld. To take it for unset could hide a snapshot.
        """
        for path, fault in self.withheld:
            message = f"{path} of {self.type} {self.id} cannot be read ({fault})"
            if fault == "NoPermission":
                raise vim.fault.NoPermission(msg=message, privilegeId="System.Read")
            raise vmodl.fault.SystemError(msg=message, reason=fault)

    def text(self, path: str) -> str:
        """A property that is a string, number or reference; empty if unset."""
        return text(self.values.get(path))


class Wanted(NamedTuple):
    """The properties to read of objects of one type."""

    type: str
    paths: tuple[str, ...]


class Step(NamedTuple):
    """From objects of ``type`` on to those that their property ``path`` names."""

    type: str
    path: str


def read_objects(
    session: Session,
    wanted: Sequence[Wanted],
    ids: Iterable[str],
    *,
    steps: Sequence[Step] = (),
    batch: int = BATCH,
) -> list[Found]:
    """The properties of these objects, and of those that ``steps`` lead to from them.

    Parameters
    ----------
    wanted:
        What to read; the first says of which type ``ids`` are.
    ids:
        The objects; those that do not exist (any more) are left out.
    steps:
        Each is followed from the objects of ``ids``.
    batch:
        Objects in one request.

    Raises
    ------
    MethodFault, NotSentError, OSError, http.client.HTTPException, ...
        As :meth:`Session.call`.
    """
    todo = list(dict.fromkeys(ids))
    found: list[Found] = []
    for start in range(0, len(todo), batch):
        found += _read_existing(session, wanted, todo[start : start + batch], steps)
    return found


def _read_existing(
    session: Session, wanted: Sequence[Wanted], ids: list[str], steps: Sequence[Step]
) -> list[Found]:
    """One batch; halved when one of its objects is gone, and it is not said which."""
    while ids:
        objects = [_object(wanted[0].type, one, steps) for one in ids]
        try:
            return list(_retrieve(session, wanted, objects))
        except vmodl.fault.ManagedObjectNotFound as fault:
            gone = getattr(fault.obj, "_moId", None)
        if gone in ids:
            ids = [one for one in ids if one != gone]
        elif len(ids) == 1:
            return []
        else:
            half = len(ids) // 2
            return [
                *_read_existing(session, wanted, ids[:half], steps),
                *_read_existing(session, wanted, ids[half:], steps),
            ]
    return []


def read_all(session: Session, wanted: Sequence[Wanted]) -> list[Found]:
    """These properties of all objects of these types that the vCenter holds."""
    with _view(session, [one.type for one in wanted]) as view:
        root = (
            f'<objectSet><obj type="ContainerView">{escape(view)}</obj><skip>true</skip>'
            + _selection(Step("ContainerView", "view"))
            + "</objectSet>"
        )
        return list(_retrieve(session, wanted, [root]))


def read_from(session: Session, root: Step, root_id: str, wanted: Wanted) -> list[Found]:
    """These properties of the objects that one property of one object names."""
    objects = (
        f"<objectSet><obj type={quoteattr(root.type)}>{escape(root_id)}</obj><skip>true</skip>"
        + _selection(root)
        + "</objectSet>"
    )
    return list(_retrieve(session, [wanted], [objects]))


@contextmanager
def _view(session: Session, types: Sequence[str]) -> Iterator[str]:
    names = "".join(f"<type>{escape(name)}</type>" for name in types)
    content = session.content
    answer = session.post(
        f'<CreateContainerView xmlns="urn:vim25"><_this type="ViewManager">'
        f'{escape(content.view_manager)}</_this><container type="Folder">'
        f"{escape(content.root_folder)}</container>{names}<recursive>true</recursive>"
        "</CreateContainerView>"
    )
    view = text(answer, "returnval")
    try:
        yield view
    finally:
        with suppress(MethodFault, NotSentError, *LOST_ANSWER):  # it ends with the session
            session.post(
                '<DestroyView xmlns="urn:vim25"><_this type="ContainerView">'
                f"{escape(view)}</_this></DestroyView>"
            )


def _object(object_type: str, object_id: str, steps: Sequence[Step]) -> str:
    selections = "".join(_selection(step) for step in steps)
    return (
        f"<objectSet><obj type={quoteattr(object_type)}>{escape(object_id)}</obj>"
        f"<skip>false</skip>{selections}</objectSet>"
    )


def _selection(step: Step) -> str:
    return (
        '<selectSet xsi:type="TraversalSpec">'
        f"<type>{step.type}</type><path>{step.path}</path><skip>false</skip></selectSet>"
    )


def _retrieve(
    session: Session, wanted: Sequence[Wanted], objects: Sequence[str]
) -> Iterator[Found]:
    properties = "".join(
        f"<propSet><type>{one.type}</type><all>false</all>"
        + "".join(f"<pathSet>{path}</pathSet>" for path in one.paths)
        + "</propSet>"
        for one in wanted
    )
    collector = (
        f'<_this type="PropertyCollector">{escape(session.content.property_collector)}</_this>'
    )
    answer = _answer(
        session,
        f'<RetrievePropertiesEx xmlns="urn:vim25">{collector}<specSet>{properties}'
        f"{''.join(objects)}</specSet><options/></RetrievePropertiesEx>",
    )
    while True:
        result = child(answer, "returnval")
        for one in children(result, "objects"):
            yield _found(one)
        token = text(result, "token")
        if not token:
            return
        answer = _answer(
            session,
            f'<ContinueRetrievePropertiesEx xmlns="urn:vim25">{collector}'
            f"<token>{escape(token)}</token></ContinueRetrievePropertiesEx>",
        )


def _answer(session: Session, body: str) -> Element:
    """The answer; a session that has expired may also show only in what is withheld."""

    def ask(stub: Stub) -> Element:
        answer = stub.post(body)
        for missing in children(answer, "returnval/objects/missingSet"):
            if kind(child(missing, "fault/fault")) == "NotAuthenticated":
                raise vim.fault.NotAuthenticated(msg="The session is not authenticated")
        return answer

    return session.call(ask)


def _found(element: Element) -> Found:
    reference = child(element, "obj")
    values = {}
    for one in children(element, "propSet"):
        value = child(one, "val")
        if value is not None:
            values[text(one, "name")] = value
    withheld = tuple(
        (text(one, "path"), kind(child(one, "fault/fault")))
        for one in children(element, "missingSet")
    )
    object_type = "" if reference is None else reference.get("type", "")
    return Found(object_type, text(reference), values, withheld)
