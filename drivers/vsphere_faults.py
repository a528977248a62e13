"""vSphere's faults, sorted by the question of the contract: did it happen?

A fault comes in one of two ways. Raised by the call, no task was made, so nothing happened. As the
error of a task that ran, it depends on the fault; where the table below does not know one, the
outcome is unknown until somebody has looked.

The table knows a fault by its name or by that of a more general one: the first of its ancestors
that is listed decides.
"""

from __future__ import annotations

from typing import NamedTuple
from xml.etree.ElementTree import Element

from pyVmomi import VmomiSupport

from .errors import (
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
from .vsphere_wire import MethodFault, child, children, kind, text

BUSY_RETRY_S = 5.0
"""Seconds after which a VM that is busy is worth another attempt."""

CREATE = "create_snapshot"
REMOVE = "remove_snapshot"
CONSOLIDATE = "consolidate"


class Fault(NamedTuple):
    """A fault without its vehicle: its names, most special first, and what it says."""

    lineage: tuple[str, ...]
    message: str
    detail: str = ""
    """The privilege that is missing, or the property that is wrong, where the fault says so."""

    @property
    def name(self) -> str:
        """Its own name, for example ``TaskInProgress``."""
        return self.lineage[0]


class Rule(NamedTuple):
    """What a fault means when a task ends with it, and what a user can do.

    ``tells_nothing_after`` lists the operations in the middle of which it may strike, so that
    only a look at the VM says what has happened.
    """

    error: type[DriverError]
    advice: str
    tells_nothing_after: tuple[str, ...] = ()


_MERGING = (REMOVE, CONSOLIDATE)
_ALL = (CREATE, REMOVE, CONSOLIDATE)

RULES: dict[str, Rule] = {
    # The guest
    "ApplicationQuiesceFault": Rule(
        QuiesceFailedError,
        "look at the guest's freeze scripts and VSS writers, or allow a degraded snapshot",
    ),
    "FilesystemQuiesceFault": Rule(
        QuiesceFailedError,
        "the guest was no longer frozen when the snapshot was ready; look at its load and storage",
    ),
    "ToolsUnavailable": Rule(QuiesceFailedError, "start VMware Tools in the guest"),
    "Timedout": Rule(
        QuiesceTimeoutError,
        "the guest or host took too long; look at its load, or allow more time",
        _MERGING,
    ),
    # Somebody else is at work
    "TaskInProgress": Rule(BusyError, "another task holds the VM; it ends by itself"),
    "ConcurrentAccess": Rule(BusyError, "somebody else changed the VM at the same time"),
    "ResourceInUse": Rule(BusyError, "something holds the VM or its files", _MERGING),
    "SnapshotLocked": Rule(BusyError, "another product has locked the snapshot"),
    "FileLocked": Rule(
        BusyError,
        "a file of the VM is locked: detach its disks from backup proxies and other VMs",
        _MERGING,
    ),
    # It is not there
    "ManagedObjectNotFound": Rule(NotFoundError, ""),
    "NotFound": Rule(NotFoundError, ""),
    # No room
    "NoDiskSpace": Rule(PoolFullError, "free space on the VM's datastore", _MERGING),
    "InsufficientStorageSpace": Rule(PoolFullError, "free space on the VM's datastore", _MERGING),
    # The VM cannot have it
    "TooManySnapshotLevels": Rule(NeverWillError, "remove snapshots that are no longer needed"),
    "MultipleSnapshotsNotSupported": Rule(NeverWillError, "remove the VM's snapshot first"),
    "SnapshotDisabled": Rule(NeverWillError, "snapshots are switched off for this VM"),
    "SnapshotIncompatibleDeviceInVm": Rule(
        NeverWillError, "remove the raw disk or the shared bus from the VM, or leave the VM out"
    ),
    "MemorySnapshotOnIndependentDisk": Rule(NeverWillError, "it has independent disks"),
    "SnapshotNoChange": Rule(NeverWillError, "nothing has changed since the last snapshot"),
    "NotSupported": Rule(
        NeverWillError, "templates, and VMs that fault tolerance keeps, have no snapshots"
    ),
    "InvalidSnapshotFormat": Rule(
        NeverWillError, "the snapshot's files are damaged; have them repaired", _ALL
    ),
    "InvalidName": Rule(NeverWillError, ""),
    "InvalidArgument": Rule(NeverWillError, ""),
    "InvalidRequest": Rule(NeverWillError, "this vCenter does not know the call"),
    # The user or the product may not
    "NotAuthenticated": Rule(DidNotHappenError, "the session has expired; it is renewed"),
    "InvalidLogin": Rule(
        NeverWillError, "check the user and the password, and that the account is not locked"
    ),
    "NoPermission": Rule(NeverWillError, "give the user the privileges that the manual lists"),
    "RestrictedVersion": Rule(NeverWillError, "the product's edition does not allow it"),
    "RestrictedByAdministrator": Rule(NeverWillError, "an administrator has forbidden it"),
    "NotEnoughLicenses": Rule(NeverWillError, "look at the licences of host and vCenter"),
    # The host
    "HostNotConnected": Rule(
        DidNotHappenError, "the VM's host is disconnected; reconnect it", _ALL
    ),
    "HostNotReachable": Rule(DidNotHappenError, "the VM's host cannot be reached", _ALL),
    "InvalidPowerState": Rule(DidNotHappenError, "the VM's power state has changed"),
    "InvalidState": Rule(DidNotHappenError, "the VM's state does not allow it now"),
    "InsufficientResourcesFault": Rule(DidNotHappenError, "the host is short of resources"),
    "DisallowedOperationOnFailoverHost": Rule(NeverWillError, "the host is kept for failover"),
}

_UNLISTED = Rule(UnknownOutcomeError, "look at the task in the vSphere client")


def from_exception(error: MethodFault) -> Fault:
    """The fault that a call raised."""
    message = _sentence(str(getattr(error, "msg", "") or ""), _messages(error))
    detail = str(getattr(error, "privilegeId", "") or getattr(error, "invalidProperty", "") or "")
    return Fault(_lineage(type(error)), message, detail)


def from_task(error: Element) -> Fault:
    """The fault that a task ended with (``info.error``, a LocalizedMethodFault)."""
    fault = child(error, "fault")
    name = kind(fault)
    details = tuple(text(one) for one in children(fault, "faultMessage/message"))
    message = _sentence(text(error, "localizedMessage"), details)
    detail = text(fault, "privilegeId") or text(fault, "invalidProperty")
    return Fault(_lineage_of_name(name), message, detail)


def rule_of(fault: Fault) -> Rule:
    """The first rule that fits the fault or one of its ancestors."""
    return next((RULES[name] for name in fault.lineage if name in RULES), _UNLISTED)


def refused(operation: str, subject: str, fault: Fault) -> DriverError:
    """The error for a call that raised this fault; no task was made, so nothing happened."""
    rule = rule_of(fault)
    cls: type[DriverError] = rule.error
    if issubclass(cls, UnknownOutcomeError | QuiesceTimeoutError):
        cls = DidNotHappenError
    return _error(cls, operation, subject, fault, rule.advice)


def ended(operation: str, subject: str, fault: Fault, *, quiesce: bool = False) -> DriverError:
    """The error for a task that ended with this fault.

    Parameters
    ----------
    quiesce:
        A snapshot was asked for with the guest quiesced; only then can a time limit be the
        guest's.

    Returns
    -------
    UnknownOutcomeError
        Also when the fault does not tell: then only a look at the VM does.
    """
    rule = rule_of(fault)
    unclear = operation in rule.tells_nothing_after
    if issubclass(rule.error, QuiesceTimeoutError | QuiesceFailedError) and not quiesce:
        unclear = True
    cls = UnknownOutcomeError if unclear else rule.error
    return _error(cls, operation, subject, fault, rule.advice)


def _error(
    cls: type[DriverError], operation: str, subject: str, fault: Fault, advice: str
) -> DriverError:
    reason = f"{fault.message} ({fault.name})" if fault.message else fault.name
    if fault.detail:
        reason += f": {fault.detail}"
    if issubclass(cls, BusyError):
        return cls(operation, subject, reason, advice, retry_after_s=BUSY_RETRY_S)
    return cls(operation, subject, reason, advice)


def _sentence(message: str, details: tuple[str, ...]) -> str:
    """The message and what was added to it, each once, without final full stops."""
    parts = dict.fromkeys(part.strip().rstrip(".") for part in (message, *details))
    return "; ".join(part for part in parts if part)


def _messages(error: MethodFault) -> tuple[str, ...]:
    added = getattr(error, "faultMessage", None) or ()
    return tuple(str(one.message) for one in added if getattr(one, "message", None))


def _lineage(fault_type: type) -> tuple[str, ...]:
    names = tuple(base._wsdlName for base in fault_type.__mro__ if hasattr(base, "_wsdlName"))
    return names or (fault_type.__name__,)


def _lineage_of_name(name: str) -> tuple[str, ...]:
    try:
        return _lineage(VmomiSupport.GetWsdlType("urn:vim25", name))
    except KeyError:  # newer than pyvmomi
        return (name or "unnamed fault",)
