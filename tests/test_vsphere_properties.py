"""Reading properties: answers in parts, objects that are gone, properties that are withheld."""

from __future__ import annotations

import re
from typing import cast

import pytest
from pyVmomi import vim, vmodl
from support_scripted import Scripted, an_object, as_session, ids_in

from stillframe.drivers.vsphere_devices import Luns
from stillframe.drivers.vsphere_location import Locator
from stillframe.drivers.vsphere_properties import Wanted, read_objects

WANTED = [Wanted("VirtualMachine", ("name",))]


def test_an_answer_in_parts_is_read_to_its_end() -> None:
    def answer(body: str) -> str:
        if "<token>one</token>" in body:
            return "<token>two</token>" + an_object("VirtualMachine", "vm-2", name="b")
        if "<token>two</token>" in body:
            return an_object("VirtualMachine", "vm-3", name="c")
        return "<token>one</token>" + an_object("VirtualMachine", "vm-1", name="a")

    scripted = Scripted(answer)
    found = read_objects(as_session(scripted), WANTED, ["vm-1", "vm-2", "vm-3"])
    assert [one.text("name") for one in found] == ["a", "b", "c"]
    assert [re.match(r"<(\w+)", body)[1] for body in scripted.asked] == [  # type: ignore[index]
        "RetrievePropertiesEx",
        "ContinueRetrievePropertiesEx",
        "ContinueRetrievePropertiesEx",
    ]


@pytest.mark.parametrize("named", [True, False])
def test_objects_that_are_gone_do_not_fail_the_others(named: bool) -> None:
    gone = {"vm-3", "vm-7", "vm-8"}

    def answer(body: str) -> str | Exception:
        asked = ids_in(body)
        missing = next((one for one in asked if one in gone), None)
        if missing is not None:
            ref = vim.VirtualMachine(missing if named else "other")
            return cast("Exception", vmodl.fault.ManagedObjectNotFound(obj=ref))
        return "".join(an_object("VirtualMachine", one, name=one) for one in asked)

    ids = [f"vm-{n}" for n in range(1, 11)]
    found = read_objects(as_session(Scripted(answer)), WANTED, ids)
    assert [one.id for one in found] == [one for one in ids if one not in gone]


def test_nothing_is_asked_about_nothing() -> None:
    scripted = Scripted(lambda body: "")
    assert read_objects(as_session(scripted), WANTED, []) == []
    assert scripted.asked == []


def test_many_objects_are_asked_for_in_batches() -> None:
    def answer(body: str) -> str:
        return "".join(an_object("VirtualMachine", one, name=one) for one in ids_in(body))

    scripted = Scripted(answer)
    ids = [f"vm-{n}" for n in range(25)]
    found = read_objects(as_session(scripted), WANTED, ids, batch=10)
    assert [one.id for one in found] == ids
    assert [len(ids_in(body)) for body in scripted.asked] == [10, 10, 5]


def withheld(fault: str) -> str:
    """A property that the answer says it keeps back."""
    return (
        "<missingSet><path>snapshot</path><fault>"
        f'<fault xsi:type="{fault}"/><localizedMessage/></fault></missingSet>'
    )


def test_a_withheld_property_is_not_taken_for_unset() -> None:
    found = read_objects(
        as_session(
            Scripted(lambda _: an_object("VirtualMachine", "vm-1", withheld("NoPermission")))
        ),
        WANTED,
        ["vm-1"],
    )
    with pytest.raises(vim.fault.NoPermission):
        found[0].check()
    locator = Locator(
        as_session(
            Scripted(lambda _: an_object("VirtualMachine", "vm-1", withheld("SystemError")))
        ),
        Luns(),
    )
    with pytest.raises(vmodl.fault.SystemError):
        locator.read(["vm-1"])


def test_an_expired_session_that_shows_in_what_is_withheld_is_renewed() -> None:
    def answer(body: str) -> str:
        late = withheld("NotAuthenticated") if scripted.logins == 1 else ""
        return an_object("VirtualMachine", "vm-1", late)

    scripted = Scripted(answer)
    (found,) = read_objects(as_session(scripted), WANTED, ["vm-1"])
    assert scripted.logins == 2
    assert found.withheld == ()


def test_identifiers_are_text_and_nothing_else() -> None:
    scripted = Scripted(lambda _: "")
    read_objects(as_session(scripted), WANTED, ["vm-1</obj><x>&"])
    assert "vm-1&lt;/obj&gt;&lt;x&gt;&amp;" in scripted.asked[0]
