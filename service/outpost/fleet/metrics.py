"""The fleet view as Prometheus metrics. Ages are left out for a region never heard from: use its state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from outpost.fleet.collector import Collector
from outpost.fleet.view import COLOURS, STATES, Counted, Health, Marked, Region
from outpost.fleet.words import all_words


def exposition(
    regions: Sequence[Region] | None,
    counted: Sequence[Counted],
    collector: Collector,
    marked: Sequence[Marked] = (),
    health: Sequence[Health] = (),
    certificate_until: datetime | None = None,
) -> bytes:
    """The text format. `regions` None means that the centre's database did not answer."""
    registry = CollectorRegistry()
    registry.register(_Families(regions, counted, collector, marked, health, certificate_until))
    return generate_latest(registry)


class _Families:
    """What prometheus_client asks for metrics: one reading, already made."""

    def __init__(
        self,
        regions: Sequence[Region] | None,
        counted: Sequence[Counted],
        collector: Collector,
        marked: Sequence[Marked],
        health: Sequence[Health],
        certificate_until: datetime | None,
    ) -> None:
        self._health, self._certificate_until = health, certificate_until
        self._regions, self._counted, self._collector, self._marked = regions, counted, collector, marked

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "outpost_fleet_database_up",
            "1 when the centre's database answered this reading.",
            value=float(self._regions is not None),
        )
        yield GaugeMetricFamily(
            "outpost_fleet_collector_idle_seconds",
            "Seconds since the collector's last turn.",
            value=self._collector.idle_seconds,
        )
        if self._certificate_until is not None:
            yield GaugeMetricFamily(
                "outpost_fleet_page_certificate_until_timestamp_seconds",
                "When the certificate of this page ends.",
                value=self._certificate_until.timestamp(),
            )
        if self._regions is not None:
            yield from _of_health(self._health)
            yield from _of_regions(self._regions)
            yield _of_studies(self._counted)
            yield from _of_marked(self._marked)


def _of_health(health: Sequence[Health]) -> Iterator[Metric]:
    """One line a system and colour. Codes are those we have words for: what a region makes up is called OTHER."""
    colour = GaugeMetricFamily(
        "outpost_fleet_health",
        "1 for the colour of the system: green works, amber needs a person, red does not work. A region of which no"
        " system is known has one with no name.",
        labels=["region", "system", "colour"],
    )
    why = GaugeMetricFamily(
        "outpost_fleet_health_reason",
        "1 for each reason why the system is not green.",
        labels=["region", "system", "code"],
    )
    since = GaugeMetricFamily(
        "outpost_fleet_health_since_timestamp_seconds",
        "Since when the system has had its colour, the centre's clock.",
        labels=["region", "system"],
    )
    gauges = {
        "beat_age_seconds": (
            "heartbeat_age_seconds",
            "Seconds since the system surely worked, the centre's clock.",
        ),
        "queue": ("queue", "Studies on their way to inference."),
        "oldest_pending_seconds": ("oldest_pending_seconds", "How long the oldest of them has waited."),
        "outbox": ("outbox", "Results not delivered yet."),
        "oldest_outbox_seconds": ("oldest_outbox_seconds", "How long the oldest of them has waited."),
        "disk_free_mib": ("disk_free_mib", "Free space for the system, MiB."),
        "boots": ("boots_hour", "Boots of the host within the last hour of heartbeats."),
    }
    families = {
        field: GaugeMetricFamily(f"outpost_fleet_{name}", text, labels=["region", "system"])
        for field, (name, text) in gauges.items()
    }
    known = all_words().keys()
    for line in health:
        labels = [line.region, line.system or ""]
        for name in COLOURS:
            colour.add_metric([*labels, name], float(line.colour == name))
        for code in sorted({code if code in known else "OTHER" for code in line.codes}):
            why.add_metric([*labels, code], 1.0)
        since.add_metric(labels, line.since.timestamp())
        for field, family in families.items():
            value = getattr(line, field)
            if value is not None:
                family.add_metric(labels, float(value))
    yield from (colour, why, since, *families.values())


def _of_regions(regions: Sequence[Region]) -> Iterator[Metric]:
    state = GaugeMetricFamily(
        "outpost_fleet_region_state", "1 for the state the region is in.", labels=["region", "state"]
    )
    failures = GaugeMetricFamily(
        "outpost_fleet_region_consecutive_failures",
        "Attempts failed since the last good one, by the kind of the last fault.",
        labels=["region", "kind"],
    )
    rows = CounterMetricFamily(
        "outpost_fleet_region_rows", "Rows brought since the region was attached.", labels=["region"]
    )
    gauges = {
        "age_seconds": "Seconds since everything of the region was here.",
        "skew_seconds": "The region's clock minus the centre's, seconds.",
        "rows_behind": "Changes of the region not yet here, at most.",
        "took_seconds": "Duration of the last pass, seconds.",
    }
    families = {
        name: GaugeMetricFamily(f"outpost_fleet_region_{name}", text, labels=["region"])
        for name, text in gauges.items()
    }
    for region in regions:
        for name in STATES:
            state.add_metric([region.region, name], float(region.state == name))
        failures.add_metric([region.region, region.error_class or "none"], region.consecutive_failures)
        rows.add_metric([region.region], region.rows_total or 0)
        for name, family in families.items():
            value = getattr(region, name)
            if value is not None:
                family.add_metric([region.region], float(value))
    yield state
    yield failures
    yield rows
    yield from families.values()


def _of_studies(counted: Sequence[Counted]) -> Metric:
    labels = ["region", "system", "outcome", "model", "model_version", "rung"]
    studies = GaugeMetricFamily(
        "outpost_fleet_studies", "Studies known at the centre, each counted once.", labels=labels
    )
    for line in counted:
        studies.add_metric([str(getattr(line, label) or "") for label in labels], line.studies)
    return studies


def _of_marked(marked: Sequence[Marked]) -> Iterator[Metric]:
    """Left out for a region that does not say: no value is not the same as none."""
    partial = GaugeMetricFamily(
        "outpost_fleet_partial_results",
        "Results of the last 24 h that say they are of a part of their study.",
        labels=["region"],
    )
    doubtful = GaugeMetricFamily(
        "outpost_fleet_doubtful_results",
        "Results of the last 24 h that say the images may not be what the model is for.",
        labels=["region"],
    )
    newest = GaugeMetricFamily(
        "outpost_fleet_marked_result_timestamp_seconds",
        "When the newest partial or doubtful result was delivered, the region's clock.",
        labels=["region"],
    )
    for region in marked:
        if region.told:
            partial.add_metric([region.region], float(region.partial_day or 0))
            doubtful.add_metric([region.region], float(region.doubtful_day or 0))
        if region.newest_at is not None:
            newest.add_metric([region.region], region.newest_at.timestamp())
    yield from (partial, doubtful, newest)
