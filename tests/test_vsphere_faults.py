"""What each vSphere fault means for the caller: did it happen?"""

from __future__ import annotations

from xml.etree.ElementTree import fromstring

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyVmomi import VmomiSupport, vim, vmodl

from stillframe.drivers.errors import (
    BusyError,
    DidNotHappenError,
    DriverError,
    NeverWillError,
    NotFoundError,
    PoolFullError,
    QuiesceFailedError,
    QuiesceTimeoutError,
    UnknownOutcomeError,
)
from stillframe.drivers.vsphere_faults import (
    CONSOLIDATE,
    CREATE,
    REMOVE,
    RULES,
    Fault,
    ended,
    from_exception,
    from_task,
    refused,
)


def fault(name: str, message: str = "") -> Fault:
    """A fault as a task ends with it."""
    return from_task(
        fromstring(  # noqa: S314  our own text
            '<val xmlns="urn:vim25" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
            f'<fault xsi:type="{name}"/><localizedMessage>{message}</localizedMessage></val>'
        )
    )


@pytest.mark.parametrize("name", RULES)
def test_every_rule_is_about_a_fault_that_there_is(name: str) -> None:
    assert issubclass(VmomiSupport.GetWsdlType("urn:vim25", name), vmodl.MethodFault)


@pytest.mark.parametrize(
    ("name", "create", "remove"),
    [
        ("ApplicationQuiesceFault", QuiesceFailedError, UnknownOutcomeError),
        ("FilesystemQuiesceFault", QuiesceFailedError, UnknownOutcomeError),
        ("Timedout", QuiesceTimeoutError, UnknownOutcomeError),
        ("TaskInProgress", BusyError, BusyError),
        ("FileLocked", BusyError, UnknownOutcomeError),
        ("ManagedObjectNotFound", NotFoundError, NotFoundError),
        ("NoDiskSpace", PoolFullError, UnknownOutcomeError),
        ("TooManySnapshotLevels", NeverWillError, NeverWillError),
        ("NotSupported", NeverWillError, NeverWillError),
        ("NoPermission", NeverWillError, NeverWillError),
        ("InvalidPowerState", DidNotHappenError, DidNotHappenError),
        ("HostNotConnected", UnknownOutcomeError, UnknownOutcomeError),
        ("HostCommunication", UnknownOutcomeError, UnknownOutcomeError),
        ("SystemError", UnknownOutcomeError, UnknownOutcomeError),
        ("GenericVmConfigFault", UnknownOutcomeError, UnknownOutcomeError),
        ("RequestCanceled", UnknownOutcomeError, UnknownOutcomeError),
        # A more general fault decides where the special one has no rule:
        ("NotEnoughLicenses", NeverWillError, NeverWillError),
        ("LicenseExpired", NeverWillError, NeverWillError),
        ("PasswordExpired", NeverWillError, NeverWillError),
        ("FaultOfTheNextVersion", UnknownOutcomeError, UnknownOutcomeError),
    ],
)
def test_the_fault_of_a_task(
    name: str, create: type[DriverError], remove: type[DriverError]
) -> None:
    assert type(ended(CREATE, "vc/vm-1", fault(name), quiesce=True)) is create
    assert type(ended(REMOVE, "vc/vm-1", fault(name))) is remove


def test_a_time_limit_is_the_guests_only_when_it_was_to_be_quiesced() -> None:
    assert type(ended(CREATE, "vm", fault("Timedout"))) is UnknownOutcomeError
    assert type(ended(CREATE, "vm", fault("FilesystemQuiesceFault"))) is UnknownOutcomeError


@given(st.sampled_from([*RULES, "SystemError", "HostCommunication", "NewFault"]))
def test_what_the_call_itself_raises_has_never_happened(name: str) -> None:
    for operation in (CREATE, REMOVE, CONSOLIDATE):
        error = refused(operation, "vc/vm-1", fault(name))
        assert isinstance(error, DidNotHappenError | NeverWillError)
        assert not isinstance(error, UnknownOutcomeError)


@given(st.sampled_from([*RULES, "SystemError", "NewFault"]), st.text(max_size=20))
def test_an_error_says_what_on_which_vm_and_what_vsphere_said(name: str, message: str) -> None:
    error = ended(CREATE, "vc/vm-1", Fault((name,), message), quiesce=True)
    assert name in str(error)
    assert message in str(error)
    assert "vc/vm-1" in str(error)
    assert (error.operation, error.subject) == (CREATE, "vc/vm-1")


def test_every_fault_that_a_user_can_do_something_about_says_what() -> None:
    silent = {name for name, rule in RULES.items() if not rule.advice}
    assert silent == {"ManagedObjectNotFound", "NotFound", "InvalidName", "InvalidArgument"}


def test_a_missing_privilege_is_named() -> None:
    raised = vim.fault.NoPermission(
        msg="Permission to perform this operation was denied.",
        privilegeId="VirtualMachine.State.CreateSnapshot",
    )
    error = refused(CREATE, "vc/vm-1", from_exception(raised))
    assert isinstance(error, NeverWillError)
    assert "VirtualMachine.State.CreateSnapshot" in error.reason
    assert "operation was denied (NoPermission)" in error.reason


def test_what_lies_under_a_general_message_is_told_too() -> None:
    element = fromstring(  # noqa: S314  our own text
        '<val xmlns="urn:vim25" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
        '<fault xsi:type="GenericVmConfigFault"><faultMessage><key>k</key>'
        "<message>The disk chain is corrupt.</message></faultMessage></fault>"
        "<localizedMessage>An error occurred.</localizedMessage></val>"
    )
    assert from_task(element).message == "An error occurred; The disk chain is corrupt"


def test_a_busy_vm_says_when_to_come_back() -> None:
    error = ended(CREATE, "vm", fault("TaskInProgress"))
    assert isinstance(error, BusyError)
    assert error.retry_after_s
