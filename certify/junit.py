"""A certificate as JUnit XML, for the systems that show test results.

A requirement is a test case, a topic a suite. What failed is a failure, what was blocked an error,
and what is absent or was not tested is skipped, with the reason as its message.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import groupby
from xml.etree import ElementTree as ET

from .certificate import Body, Result
from .outcome import Verdict

_TAGS = {
    Verdict.FAIL: "failure",
    Verdict.BLOCKED: "error",
    Verdict.ABSENT: "skipped",
    Verdict.NOT_TESTED: "skipped",
}
# XML 1.0, production 2: these characters cannot be written in it at all.
_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(body: Body) -> bytes:
    """The XML document."""
    root = ET.Element("testsuites", {"name": _clean(body.target), **_numbers(body.requirements)})
    for topic, rows in groupby(body.requirements, key=lambda row: row.topic):
        results = list(rows)
        facts = {
            "name": _clean(topic),
            "timestamp": body.made.at.removesuffix("+00:00"),
            **_numbers(results),
        }
        suite = ET.SubElement(root, "testsuite", facts)
        _properties(suite, body)
        for result in results:
            _case(suite, body, result)
    ET.indent(root)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _numbers(results: Sequence[Result]) -> dict[str, str]:
    tags = [_TAGS.get(result.verdict) for result in results]
    return {
        "tests": str(len(results)),
        "failures": str(tags.count("failure")),
        "errors": str(tags.count("error")),
        "skipped": str(tags.count("skipped")),
        "time": f"{sum(result.duration_s for result in results):.3f}",
    }


def _properties(suite: ET.Element, body: Body) -> None:
    facts = {
        "driver": body.driver,
        "package": body.driver_package,
        "target": body.target,
        "kit": f"stillframe {body.kit.version}",
        "seed": str(body.seed),
        "effort": body.effort,
    }
    properties = ET.SubElement(suite, "properties")
    for name, value in facts.items():
        ET.SubElement(properties, "property", {"name": name, "value": _clean(value)})


def _case(suite: ET.Element, body: Body, result: Result) -> None:
    facts = {
        "classname": f"{body.kind}.{result.level.value}",
        "name": _clean(f"{result.id} {result.sentence}"),
        "time": f"{result.duration_s:.3f}",
    }
    case = ET.SubElement(suite, "testcase", facts)
    tag = _TAGS.get(result.verdict)
    if tag is None:
        return
    message = {"message": _clean(f"{result.verdict.value}: {result.reason}")}
    kind = {} if tag == "skipped" else {"type": result.verdict.value}
    said = ET.SubElement(case, tag, message | kind)
    if tag != "skipped":
        lines = [json.dumps(event, ensure_ascii=False) for event in result.events]
        seen = json.dumps(result.evidence, ensure_ascii=False)
        said.text = _clean("\n".join([f"seed {result.seed}", f"seen {seen}", *lines]))


def _clean(text: str) -> str:
    return _NO_XML.sub("\ufffd", text)
