"""Prometheus metrics, in a registry of their own. No label carries patient data.

What the journal knows is read from it at each scrape: counters survive restarts and cannot disagree with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from outpost.delivery.courier import Courier
from outpost.drift.keeper import Keeper
from outpost.events import EventCode
from outpost.filter.pixel_codes import PixelCode
from outpost.health.verdict import Health
from outpost.inference.codes import Code
from outpost.inference.result import InferenceResult
from outpost.intake.doors import Doors
from outpost.intake.waiting import Waiting
from outpost.pipeline import Pipeline
from outpost.quarantine import shelf
from outpost.records.counts import refused_by_sender, studies_by_sender
from outpost.records.journal import Journal, utc_now
from outpost.records.readonly import Questions

# Seconds; one study takes a few on CPU, and the configured limit is minutes.
_BUCKETS = (0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 600)


class _Journalled(Collector):
    def __init__(
        self, journal: Journal, health: Health, pipeline: Pipeline, known_senders: Sequence[str]
    ) -> None:
        self._journal = journal
        self._known = tuple(known_senders)
        self._health = health
        self._pipeline = pipeline

    def describe(self) -> list[Metric]:
        return []  # registering must not need a collection: the service has not started then

    def collect(self) -> Iterator[Metric]:
        studies = CounterMetricFamily(
            "outpost_studies",
            "Study revisions that ended, by outcome and reason",
            labels=["outcome", "reason"],
        )
        for (outcome, reason), count in sorted(self._journal.outcomes().items()):
            if outcome != "pending":
                studies.add_metric([outcome, reason], count)
        yield studies
        yield CounterMetricFamily(
            "outpost_instances_received", "Instances taken", value=self._journal.instances_received()
        )
        roles = CounterMetricFamily(
            "outpost_instances_by_role",
            "Instances taken: images that a model may read, other objects, results of ours that came back",
            labels=["role"],
        )
        for role, count in sorted(self._journal.instances_by_role().items()):
            roles.add_metric([role], count)
        yield roles
        held = GaugeMetricFamily(
            "outpost_studies_held",
            "Studies that wait although their timers ran out, by code",
            labels=["code"],
        )
        waiting = self._journal.held()
        for why in (str(Code.STUDY_INCOMPLETE), str(EventCode.REVISIONS_HELD)):
            held.add_metric([why], waiting.get(why, 0))
        yield held
        refused = CounterMetricFamily("outpost_instances_refused", "Instances not taken", labels=["reason"])
        for reason, count in sorted(self._journal.instances_refused().items()):
            refused.add_metric([reason], count)
        yield refused
        yield from self._by_sender()
        yield from self._quarantine()
        rungs = CounterMetricFamily(
            "outpost_studies_computed",
            "Study revisions computed, by the rung of the ladder and what computed them",
            labels=["rung", "engine", "precision", "device"],
        )
        for labels, count in sorted(self._journal.computed().items()):
            rungs.add_metric(labels, count)
        yield rungs
        rung = self._pipeline.rung
        present = GaugeMetricFamily(
            "outpost_rung",
            "1 for the rung that the next study begins on",
            labels=["rung", "engine", "precision", "device"],
        )
        present.add_metric([rung.name, rung.engine, rung.precision, rung.device], 1.0)
        yield present
        by_class = GaugeMetricFamily(
            "outpost_rung_steps_down",
            "Rungs below the full one at which inputs of a class of shapes begin, the worst of the class;"
            " -1 where no rung is left",
            labels=["shapes"],
        )
        places = {known.name: place for place, known in enumerate(self._pipeline.ladder.rungs)}
        for name, lowest in self._pipeline.ladder.by_class().items():
            by_class.add_metric([name], places.get(lowest.name, -1) if lowest is not None else -1)
        yield by_class
        failures = CounterMetricFamily(
            "outpost_inference_failures", "Failures of studies and golden cases, by cause", labels=["cause"]
        )
        for cause, count in sorted(self._journal.failures_by_cause().items()):
            failures.add_metric([cause], count)
        yield failures
        left_out = CounterMetricFamily(
            "outpost_instances_left_out",
            "Instances that the filter left out of studies that were computed, by reason, since the start",
            labels=["reason"],
        )
        for code, count in sorted(self._pipeline.instances_left_out.items()):
            left_out.add_metric([code], count)
        yield left_out
        pending = GaugeMetricFamily(
            "outpost_studies_pending", "Studies on their way, by state", labels=["state"]
        )
        oldest = GaugeMetricFamily(
            "outpost_oldest_pending_seconds", "Age of the oldest study in that state", labels=["state"]
        )
        queue, now = self._journal.queue(), utc_now()
        for state in ("receiving", "complete", "inferring", "delivering"):
            count, since = queue.get(state, (0, None))
            pending.add_metric([state], count)
            oldest.add_metric([state], (now - since).total_seconds() if since is not None else 0.0)
        yield pending
        yield oldest
        outbox = queue.get("delivering", (0, None))[0]
        yield GaugeMetricFamily(
            "outpost_outbox_pending", "Studies not yet confirmed everywhere", value=outbox
        )
        verdict = self._health.light()
        yield GaugeMetricFamily("outpost_ready", "1 if ready to compute studies", value=float(verdict.ready))
        checks = GaugeMetricFamily("outpost_check_ok", "1 if the health check passes", labels=["code"])
        for check in verdict.checks:
            checks.add_metric([check.code], float(check.ok))
        yield checks

    def _by_sender(self) -> Iterator[Metric]:
        studies = CounterMetricFamily(
            "outpost_studies_by_sender",
            "Study revisions that ended, by who sent the first image; the first 50 senders are named",
            labels=["sender", "outcome", "reason"],
        )
        for labels, count in sorted(studies_by_sender(self._journal, self._known).items()):
            studies.add_metric(labels, count)
        yield studies
        refused = CounterMetricFamily(
            "outpost_instances_refused_by_sender",
            "Instances not taken, by who sent them; the first 50 senders are named",
            labels=["sender", "reason"],
        )
        for labels_of, count in sorted(refused_by_sender(self._journal, self._known).items()):
            refused.add_metric(labels_of, count)
        yield refused

    def _quarantine(self) -> Iterator[Metric]:
        items = GaugeMetricFamily(
            "outpost_quarantine_items", "Studies and single files in quarantine, by reason", labels=["reason"]
        )
        size = GaugeMetricFamily(
            "outpost_quarantine_bytes", "What they take on the disk, by reason", labels=["reason"]
        )
        evicted = CounterMetricFamily(
            "outpost_quarantine_evicted", "Of them, those a quota has removed, by reason", labels=["reason"]
        )
        for reason in shelf.by_reason(self._journal):
            items.add_metric([reason.reason], reason.items)
            size.add_metric([reason.reason], reason.bytes)
            evicted.add_metric([reason.reason], reason.evicted)
        yield from (items, size, evicted)


class _Refusing(Collector):
    def __init__(self, doors: Doors) -> None:
        self._doors = doors

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        refused = CounterMetricFamily(
            "outpost_refused",
            "What was turned away at the doors, by what it was (connection, association, presentation context,"
            " instance, HTTP request) and why, since the start",
            labels=["what", "reason"],
        )
        for labels, count in sorted(self._doors.counts().items()):
            refused.add_metric(list(labels), count)
        yield refused
        callers = CounterMetricFamily(
            "outpost_associations_refused",
            "Associations refused, by who called from where and why, since the start; `others` are those beyond 200",
            labels=["calling_ae_title", "address", "reason"],
        )
        for caller, count in sorted(self._doors.of_callers().items()):
            callers.add_metric(list(caller), count)
        yield callers


class _Guests(Collector):
    def __init__(self, counts: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        self._counts = counts

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        open_ = GaugeMetricFamily(
            "outpost_connections",
            "Connections of peers, by port (dicom, http) and state (waiting: has asked for nothing yet)",
            labels=["port", "state"],
        )
        for labels, count in sorted(self._counts().items()):
            open_.add_metric(list(labels), count)
        yield open_


class _Waiting(Collector):
    def __init__(self, waiting: Waiting) -> None:
        self._waiting = waiting

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "outpost_waiting_studies_share",
            "How much of intake.max_waiting_studies is taken, of the share of whoever has most waiting; at 1 that one's"
            " images of other studies are refused for now",
            value=self._waiting.fullest(),
        )


class _Drifting(Collector):
    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        open_ = GaugeMetricFamily(
            "outpost_drift_alarm",
            "1 while a tag of a sender differs from the reference",
            labels=["sender", "tag", "aspect"],
        )
        for alarm in self._keeper.register.open.values():
            open_.add_metric(list(alarm.key), 1.0)
        yield open_
        effect = GaugeMetricFamily(
            "outpost_drift_effect",
            "How far the last window is from the reference, 0 to 1",
            labels=["sender", "tag", "aspect"],
        )
        for finding in self._keeper.findings:
            effect.add_metric(list(finding.key), finding.comparison.effect)
        yield effect
        yield GaugeMetricFamily(
            "outpost_drift_alarms_open", "Alarms of drift that go on", value=len(self._keeper.register.open)
        )
        yield CounterMetricFamily(
            "outpost_drift_unobserved",
            "Studies not counted for drift, as counting did not keep up",
            value=self._keeper.dropped,
        )
        yield CounterMetricFamily(
            "outpost_drift_failures",
            "Faults in watching for drift; no study is touched",
            value=self._keeper.failures,
        )


class _Delivering(Collector):
    def __init__(self, journal: Journal, couriers: Sequence[Courier]) -> None:
        self._journal = journal
        self._couriers = couriers

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        failures = CounterMetricFamily(
            "outpost_delivery_failures",
            "Attempts to deliver that failed, by destination and reason, since the start",
            labels=["destination", "reason"],
        )
        remarks = CounterMetricFamily(
            "outpost_delivery_remarks",
            "Results that a destination stored with a warning, by status, since the start",
            labels=["destination", "status"],
        )
        for courier in self._couriers:
            for reason, count in sorted(courier.failures.copy().items()):
                failures.add_metric([courier.name, reason], count)
            for status, count in sorted(courier.remarks.copy().items()):
                remarks.add_metric([courier.name, status], count)
        yield failures
        yield remarks
        refused = GaugeMetricFamily(
            "outpost_deliveries_refused",
            "Results that a destination refuses for a reason that repetition cannot cure",
            labels=["destination", "reason"],
        )
        for labels, count in sorted(self._journal.deliveries_refused().items()):
            refused.add_metric(list(labels), count)
        yield refused


PIXEL_CODES = frozenset(PixelCode)


class Metrics:
    """The registry, and what is counted in the process itself."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.inference_seconds = Histogram(
            "outpost_inference_seconds",
            "Wall time of computing one study",
            buckets=_BUCKETS,
            registry=self.registry,
        )

        self.pixel_findings = Counter(
            "outpost_pixel_findings",
            "Studies computed although the pixel verdict found something, as the policy wants, since the start",
            labelnames=["code"],
            registry=self.registry,
        )
        self.result_notes = Counter(
            "outpost_result_notes",
            "Studies whose result says something of itself (a part, doubt, what was left out), since the start",
            labelnames=["code"],
            registry=self.registry,
        )

    def observe(self, result: InferenceResult) -> None:
        """Count a study that was computed."""
        self.inference_seconds.observe(result.seconds)
        for code in {note.code for note in result.notes}:
            (self.pixel_findings if code in PIXEL_CODES else self.result_notes).labels(code).inc()

    def follow(
        self, journal: Journal, health: Health, pipeline: Pipeline, known_senders: Sequence[str] = ()
    ) -> None:
        """Report what these know, too. `known_senders` are named in metrics whatever else there is."""
        self.registry.register(_Journalled(Questions(journal), health, pipeline, known_senders))

    def follow_doors(self, doors: Doors) -> None:
        """Report what was turned away, too."""
        self.registry.register(_Refusing(doors))

    def follow_connections(self, counts: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        """Report how many connections there are, by (port, state), too."""
        self.registry.register(_Guests(counts))

    def follow_deliveries(self, journal: Journal, couriers: Sequence[Courier]) -> None:
        """Report how results fare at their destinations, too."""
        self.registry.register(_Delivering(Questions(journal), couriers))

    def follow_waiting(self, waiting: Waiting) -> None:
        """Report how full the queue is for whoever has most in it, too."""
        self.registry.register(_Waiting(waiting))

    def follow_drift(self, keeper: Keeper) -> None:
        """Report what has changed, too."""
        self.registry.register(_Drifting(keeper))
