"""The DICOMweb routes: storing, by STOW-RS (PS3.18 10.5).

Nothing is retrieved here, so no reply names a RetrieveURL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from fastapi import FastAPI, HTTPException, Request, Response, params
from fastapi.responses import JSONResponse
from pydicom.datadict import keyword_for_tag
from starlette.requests import ClientDisconnect

from outpost.config import Config
from outpost.intake.assembly import Assembly
from outpost.intake.body import BodyTooLarge, UnsupportedEncoding, plain
from outpost.intake.doors import Doors, Turned
from outpost.intake.header import is_uid
from outpost.intake.multipart import MalformedBody
from outpost.intake.refusal import InstanceRefused, Refusal
from outpost.intake.spool import Spool
from outpost.intake.stow import StowRequest, UnsupportedType, boundary_of

_DICOM_JSON = "application/dicom+json"
_DICOM_XML = "application/dicom+xml"
_LATER = {"Retry-After": "60"}  # seconds; some studies are computed by then
# Status and reason of what makes a whole request fail; what is wrong with one instance stands in the reply.
_FAULTS: dict[type[Exception], tuple[int, Turned]] = {
    UnsupportedType: (415, Turned.TYPE_NOT_TAKEN),
    UnsupportedEncoding: (415, Turned.ENCODING_NOT_TAKEN),
    MalformedBody: (400, Turned.BODY_MALFORMED),
    BodyTooLarge: (413, Turned.BODY_TOO_LARGE),
}


def add_dicomweb(
    app: FastAPI,
    config: Config,
    spool: Spool,
    assembly: Assembly,
    send: Sequence[params.Depends],
    doors: Doors,
) -> None:
    """Add the routes under /dicom-web."""

    async def stored(request: Request, study_uid: str | None) -> Response:
        address = request.client.host if request.client is not None else ""

        def refused(
            status: int, reason: Turned, words: str, headers: dict[str, str] | None = None
        ) -> HTTPException:
            doors.turned_away("request", reason, words, "", address)
            return HTTPException(status, words, headers)

        if not config.intake.may_come_from("stow", address):
            words = "its address is not among those that intake.senders names for stow"
            raise refused(403, Turned.ADDRESS_UNKNOWN, words)
        if study_uid is not None and not is_uid(study_uid):
            raise refused(400, Turned.BODY_MALFORMED, "the path names no Study Instance UID")
        stow = StowRequest(spool, assembly, address, study_uid, doors)
        try:
            boundary = boundary_of(request.headers.get("content-type", ""))
            body = plain(request.stream(), request.headers.get("content-encoding", ""))
            await stow.read(boundary, body)
        except tuple(_FAULTS) as error:
            status, reason = _FAULTS[type(error)]
            headers = {"Accept-Encoding": "gzip, deflate"} if reason is Turned.ENCODING_NOT_TAKEN else None
            raise refused(status, reason, str(error), headers) from None
        except ClientDisconnect:
            # What was whole is taken; nobody is left to be told.
            words = "the connection ended before the body did"
            doors.turned_away("request", Turned.BODY_MALFORMED, words, "", address)
            return Response(status_code=400)
        except InstanceRefused as full:
            if full.refusal is Refusal.TOO_MANY_STUDIES:
                raise refused(503, Turned.TOO_MANY_STUDIES, full.comment, _LATER) from None
            if full.refusal is Refusal.OUT_OF_SERVICE:
                raise refused(503, Turned.OUT_OF_SERVICE, full.comment) from None
            raise refused(507, Turned.OUT_OF_SPACE, f"{full.comment}: send again later") from None
        status, reply = stow.reply()
        headers = _LATER if stow.is_to_be_repeated() else None
        if _prefers_xml(request.headers.get("accept", "")):
            return Response(_as_xml(reply), status, headers, media_type=_DICOM_XML)
        return JSONResponse(reply, status, headers, media_type=_DICOM_JSON)

    @app.post("/dicom-web/studies", tags=["dicom-web"], dependencies=send)
    async def store(request: Request) -> Response:
        """STOW-RS (PS3.18 10.5): multipart/related of application/dicom."""
        return await stored(request, None)

    @app.post("/dicom-web/studies/{study_uid}", tags=["dicom-web"], dependencies=send)
    async def store_into(request: Request, study_uid: str) -> Response:
        """The same for the instances of one study; those of others are refused."""
        return await stored(request, study_uid)


def _prefers_xml(accept: str) -> bool:
    """Whether the reply shall be XML: only where JSON is not wanted as much."""
    weights: dict[str, float] = {}
    for part in accept.lower().split(","):
        name, *parameters = (word.strip() for word in part.split(";"))
        weight = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        try:
            weights[name] = float(weight)
        except ValueError:
            weights[name] = 0.0
    xml = max(weights.get(name, 0.0) for name in (_DICOM_XML, "application/xml", "text/xml"))
    json = max(weights.get(name, 0.0) for name in (_DICOM_JSON, "application/json"))
    return xml > json


def _as_xml(reply: Mapping[str, Any]) -> bytes:
    """DICOM JSON as the Native DICOM Model (PS3.19 A.1)."""
    root = ElementTree.Element("NativeDicomModel")
    _add_elements(root, reply)
    written: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return written


def _add_elements(parent: ElementTree.Element, dataset: Mapping[str, Any]) -> None:
    for tag, element in dataset.items():
        attributes = {"tag": tag, "vr": element["vr"], "keyword": keyword_for_tag(tag)}
        attribute = ElementTree.SubElement(parent, "DicomAttribute", attributes)
        for number, value in enumerate(element["Value"], 1):
            if element["vr"] == "SQ":
                _add_elements(ElementTree.SubElement(attribute, "Item", {"number": str(number)}), value)
            else:
                ElementTree.SubElement(attribute, "Value", {"number": str(number)}).text = str(value)
