# SPDX-License-Identifier: AGPL-3.0-or-later
"""Take one workitem from its creation to its completion on the Orthanc of ``make run``.

DEMO_PERFORMER stores a real CT image in Orthanc and requests a segmentation of it. DEMO_WATCHER, which listens on
its address in orthanc.json, subscribes and prints the event reports that it receives. DEMO_PERFORMER claims the
workitem, reports progress and completes it. Everything goes over the network, as in a hospital.
"""

from __future__ import annotations

import argparse
import queue
import sys
from datetime import datetime, timedelta
from typing import Final

from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, generate_uid
from pynetdicom import AE, evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.events import Event

PUSH: Final = "1.2.840.10008.5.1.4.34.6.1"
WATCH: Final = "1.2.840.10008.5.1.4.34.6.2"
PULL: Final = "1.2.840.10008.5.1.4.34.6.3"
EVENT: Final = "1.2.840.10008.5.1.4.34.6.4"
EVENTS: Final = {
    1: "State Report",
    2: "Cancel Requested",
    3: "Progress Report",
    4: "SCP Status Change",
    5: "Assigned",
}
SEGMENTATION: Final = ("113076", "DCM", "Segmentation")


class DemoError(Exception):
    """A step of the demo failed; the text says which and why."""


def main() -> int:
    """Run the demo. Returns 0 if every step succeeded, otherwise 1."""
    options = _options()
    reports: queue.Queue[str] = queue.Queue()
    watcher = _listen(options.watcher_port, reports)
    try:
        _run(options, reports)
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    finally:
        watcher.shutdown()
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="where Orthanc runs")
    parser.add_argument("--orthanc-port", type=int, default=4242, help="Orthanc's DicomPort")
    parser.add_argument("--ups-port", type=int, default=4243, help="Ups.DicomPort")
    parser.add_argument(
        "--watcher-port", type=int, default=11113, help="port of DEMO_WATCHER in DicomModalities"
    )
    return parser.parse_args()


def _run(options: argparse.Namespace, reports: queue.Queue[str]) -> None:
    image = _store_image(options)
    uid, transaction = generate_uid(prefix=None), generate_uid(prefix=None)
    with _Peer(options, "DEMO_PERFORMER", PUSH) as scheduler:
        scheduler.create(uid, _workitem(image))
    with _Peer(options, "DEMO_WATCHER", WATCH) as watcher:
        watcher.act(3, uid, _subscription())
        _print_report(reports)
    with _Peer(options, "DEMO_PERFORMER", PULL) as performer:
        performer.act(1, uid, _state("IN PROGRESS", transaction))
        _print_report(reports)
        for percent in (25, 75):
            performer.update(uid, _progress(percent, transaction))
            _print_report(reports)
        performer.update(uid, _performed(image, transaction))
        performer.act(1, uid, _state("COMPLETED", transaction))
        _print_report(reports)
    with _Peer(options, "DEMO_WATCHER", WATCH) as watcher:  # its port is closed after the demo
        watcher.act(4, uid, _receiver())
    print("The workitem is COMPLETED, and its watcher was notified.")


def _print_report(reports: queue.Queue[str]) -> None:
    try:
        print(reports.get(timeout=10))
    except queue.Empty:
        raise DemoError("the watcher received no event report within 10 s") from None


# --- the AEs ---------------------------------------------------------------------------------------


class _Peer:
    """An association of an AE with the worklist, with a single presentation context."""

    def __init__(self, options: argparse.Namespace, name: str, context: str) -> None:
        self._name = name
        self._context = context
        self._options = options

    def __enter__(self) -> _Peer:
        ae = AE(self._name)
        ae.add_requested_context(self._context)
        self._association = _associate(ae, self._options.host, self._options.ups_port, "Ups.DicomPort")
        return self

    def __exit__(self, *_: object) -> None:
        self._association.release()

    def create(self, uid: str, workitem: Dataset) -> None:
        answer = self._association.send_n_create(workitem, PUSH, uid)
        self._check("creates the workitem", answer[0])

    def update(self, uid: str, changes: Dataset) -> None:
        answer = self._association.send_n_set(changes, PUSH, uid, meta_uid=self._context)
        self._check("updates the workitem", answer[0])

    def act(self, action: int, uid: str, information: Dataset) -> None:
        answer = self._association.send_n_action(information, action, PUSH, uid, meta_uid=self._context)
        names = {
            1: f"changes the state to {information.get('ProcedureStepState')}",
            3: "subscribes",
            4: "unsubscribes",
        }
        self._check(names[action], answer[0])

    def _check(self, action: str, status: Dataset) -> None:
        if "Status" not in status:
            raise DemoError(f"{self._name} {action}: no answer")
        if status.Status != 0x0000:
            comment = status.get("ErrorComment", "")
            raise DemoError(f"{self._name} {action}: status {status.Status:04X} {comment}")
        print(f"{self._name:15} {action}")


def _associate(ae: ApplicationEntity, host: str, port: int, setting: str) -> Association:
    association = ae.associate(host, port, ae_title="ORTHANC")
    if not association.is_established:
        raise DemoError(f"no association with {host}:{port} ({setting}); is `make run` running?")
    return association


def _listen(port: int, reports: queue.Queue[str]) -> ApplicationEntity:
    """Start the watcher as UPS Event SCU, which accepts associations of the worklist and receives event reports."""
    ae = AE("DEMO_WATCHER")
    ae.add_supported_context(EVENT, scu_role=False, scp_role=True)
    handlers = [(evt.EVT_N_EVENT_REPORT, _receive_event, [reports])]
    ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)  # type: ignore[arg-type]
    return ae


def _receive_event(event: Event, reports: queue.Queue[str]) -> tuple[int, None]:
    information = event.event_information
    words = [f"{'':15} -> DEMO_WATCHER receives: {EVENTS.get(event.event_type or 0, 'unknown event')}"]
    if "ProcedureStepState" in information:
        words.append(information.ProcedureStepState)
    progress = information.get("ProcedureStepProgressInformationSequence", ())
    words.extend(
        f"{item.ProcedureStepProgress} % {item.ProcedureStepProgressDescription}" for item in progress
    )
    reports.put(" ".join(words))
    return 0x0000, None


def _store_image(options: argparse.Namespace) -> Dataset:
    image = dcmread(str(get_testdata_file("CT_small.dcm")))
    ae = AE("DEMO_PERFORMER")
    ae.add_requested_context(CTImageStorage, image.file_meta.TransferSyntaxUID)
    association = _associate(ae, options.host, options.orthanc_port, "DicomPort")
    status = association.send_c_store(image)
    association.release()
    if "Status" not in status or status.Status != 0x0000:
        raise DemoError("Orthanc did not accept the CT image by C-STORE")
    print(f"{'DEMO_PERFORMER':15} stores a CT image of {image.PatientName} in Orthanc")
    return image


# --- data sets --------------------------------------------------------------------------------------


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _reference(image: Dataset) -> Dataset:
    instance, location, item = Dataset(), Dataset(), Dataset()
    instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID = (
        image.SOPClassUID,
        image.SOPInstanceUID,
    )
    location.RetrieveAETitle = "ORTHANC"
    item.TypeOfInstances = "DICOM"
    item.StudyInstanceUID, item.SeriesInstanceUID = image.StudyInstanceUID, image.SeriesInstanceUID
    item.ReferencedSOPSequence, item.DICOMRetrievalSequence = [instance], [location]
    return item


_EMPTY: Final = (
    "TransactionUID", "ScheduledProcessingParametersSequence", "ScheduledStationClassCodeSequence",
    "ScheduledStationGeographicLocationCodeSequence", "CommentsOnTheScheduledProcedureStep",
    "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "OtherPatientIDsSequence", "AdmissionID",
    "IssuerOfAdmissionIDSequence", "AdmittingDiagnosesDescription", "AdmittingDiagnosesCodeSequence",
    "ReferencedRequestSequence", "ProcedureStepProgressInformationSequence",
    "UnifiedProcedureStepPerformedProcedureSequence",
)  # fmt: skip


def _workitem(image: Dataset) -> Dataset:
    """The attributes of N-CREATE (PS3.4 Table CC.2.5-3)."""
    workitem = Dataset()
    for keyword in _EMPTY:
        setattr(workitem, keyword, [] if keyword.endswith("Sequence") else "")
    workitem.ProcedureStepState, workitem.InputReadinessState = "SCHEDULED", "READY"
    workitem.ScheduledProcedureStepPriority = "MEDIUM"
    workitem.ProcedureStepLabel, workitem.WorklistLabel = "Segment the lungs", "AI"
    workitem.ScheduledProcedureStepStartDateTime = datetime.now().astimezone().strftime("%Y%m%d%H%M%S%z")
    due = datetime.now().astimezone() + timedelta(hours=1)
    workitem.ExpectedCompletionDateTime = due.strftime("%Y%m%d%H%M%S%z")
    workitem.ScheduledWorkitemCodeSequence = [_code(*SEGMENTATION)]
    workitem.ScheduledStationNameCodeSequence = [_code("LUNGS1", "99DEMO", "Lung segmentation server")]
    workitem.InputInformationSequence = [_reference(image)]
    workitem.StudyInstanceUID = image.StudyInstanceUID
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex"):
        setattr(workitem, keyword, image.get(keyword, ""))
    return workitem


def _receiver() -> Dataset:
    information = Dataset()
    information.ReceivingAE = "DEMO_WATCHER"
    return information


def _subscription() -> Dataset:
    information = _receiver()
    information.DeletionLock = "FALSE"
    return information


def _state(state: str, transaction: str) -> Dataset:
    information = Dataset()
    information.ProcedureStepState, information.TransactionUID = state, transaction
    return information


def _progress(percent: int, transaction: str) -> Dataset:
    item, changes = Dataset(), Dataset()
    item.ProcedureStepProgress, item.ProcedureStepProgressDescription = str(percent), "segmenting"
    changes.TransactionUID = transaction
    changes.ProcedureStepProgressInformationSequence = [item]
    return changes


def _performed(image: Dataset, transaction: str) -> Dataset:
    """The attributes that COMPLETED requires (PS3.4 CC.2.5.1.1); the output refers to the input image."""
    item, changes = Dataset(), Dataset()
    now = datetime.now().astimezone().strftime("%Y%m%d%H%M%S%z")
    item.PerformedStationNameCodeSequence = [_code("LUNGS1", "99DEMO", "Lung segmentation server")]
    item.PerformedProcedureStepStartDateTime = item.PerformedProcedureStepEndDateTime = now
    item.PerformedWorkitemCodeSequence = [_code(*SEGMENTATION)]
    item.OutputInformationSequence = [_reference(image)]
    changes.TransactionUID = transaction
    changes.UnifiedProcedureStepPerformedProcedureSequence = [item]
    return changes


if __name__ == "__main__":
    sys.exit(main())
