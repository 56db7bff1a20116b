"""What the certificate's page shows, worked out of the record: inputs worst first, and what each tag loses."""

from collections.abc import Sequence
from dataclasses import dataclass

from qtool.records.calibration import Calibration
from qtool.records.certificate import (
    Certificate,
    HeldOutClip,
    LayerCertificate,
    RangeCertificate,
    TagCertificate,
)
from qtool.report.texts.numbers import count_text

LOOKS = {"enough": "pass", "more_samples": "undecided", "wrong_mix": "fail", "not_assessed": "plain"}
WORDS = {
    "enough": "ENOUGH",
    "more_samples": "MORE SAMPLES",
    "wrong_mix": "WRONG MIX",
    "not_assessed": "NOT ASSESSED",
}
_ORDER = ("wrong_mix", "more_samples", "not_assessed", "enough")
SHOWN = 12  # inputs in the open part of the table
_CHANNELS = 6  # outlier channels named


@dataclass(frozen=True, slots=True)
class TagLoss:
    """What one observer's ranges cut off the held-out rows of one tag: share of all values, and the worst input."""

    observer: str
    clipped_share: float
    worst_energy: float
    worst_input: str


def observers_of(certificate: Certificate) -> tuple[str, ...]:
    """Observers that have a fixed range, in the order they were asked for."""
    return tuple(dict.fromkeys(found.observer for layer in certificate.layers for found in layer.ranges))


def worst_first(certificate: Certificate) -> tuple[LayerCertificate, ...]:
    """The inputs by verdict, then by the rows they still need, then by the widest interval."""
    return tuple(
        sorted(
            certificate.layers,
            key=lambda layer: (_ORDER.index(layer.verdict), -(layer.needed_sequences or 0), -_widest(layer)),
        )
    )


def losses(certificate: Certificate, tag: str) -> tuple[TagLoss, ...]:
    """What each observer cuts off the held-out rows of `tag`, over all inputs."""
    found = []
    for observer in observers_of(certificate):
        clips = [
            (clip, layer.input)
            for layer in certificate.layers
            for entry in layer.ranges
            if entry.observer == observer
            for clip in entry.held_out
            if clip.tag == tag
        ]
        values = sum(clip.values for clip, _ in clips)
        if values:
            share = sum(clip.clipped_share * clip.values for clip, _ in clips) / values
            worst, where = max(clips, key=lambda pair: pair[0].clipped_energy)
            found.append(TagLoss(observer, share, worst.clipped_energy, where))
    return tuple(found)


def nominal(certificate: Certificate, observer: str) -> float | None:
    """The share of values that `observer` means to clip, None where it names none."""
    shares = [
        found.nominal_share for layer in certificate.layers for found in layer.ranges if found.observer == observer
    ]
    return shares[0] if shares else None


def worst_clip(found: RangeCertificate) -> HeldOutClip | None:
    """The tag whose held-out rows lose most energy to this range."""
    return max(found.held_out, key=lambda clip: clip.clipped_energy, default=None)


def share_text(share: float) -> str:
    """A small share as percent with two significant digits: `0.012 %`, `0 %`, `< 0.001 %`."""
    percent = 100 * share
    if 0 < percent < 0.001:
        return "< 0.001 %"
    return f"{percent:.2g} %"


def likeness_text(tag: TagCertificate) -> str:
    """Whether the rows of a tag are like the mix, in words."""
    if tag.p_value is None:
        return "too few rows to say"
    return f"{tag.distance:+.3f}, p {tag.p_value:.3f}".replace("-", "−")


def channels_text(layer: LayerCertificate) -> str:
    """The outlier channels by number, at most six of them."""
    found = layer.outlier_channels
    more = f" and {len(found) - _CHANNELS} more" if len(found) > _CHANNELS else ""
    return ", ".join(map(str, found[:_CHANNELS])) + more or "none"


def headline(calibration: Calibration) -> str:
    """The verdict's reason, and the sequences that would do."""
    certificate = calibration.certificate
    if certificate is None:
        return calibration.verdict_reason
    needed = certificate.needed_sequences
    return certificate.reason + (f"; about {count_text(needed, 'sequence')} would do" if needed else "")


def values(calibration: Calibration) -> dict[str, object]:
    """What the certificate's part of the page is filled with; nothing where none was recorded."""
    certificate = calibration.certificate
    if certificate is None:
        return {}
    return {
        "certificate": certificate,
        "layers": worst_first(certificate),
        "shown": SHOWN,
        "observers": observers_of(certificate),
        "looks": LOOKS,
        "words": WORDS,
        "headline": headline(calibration),
        "losses": losses,
        "nominal": nominal,
        "worst_clip": worst_clip,
        "share_text": share_text,
        "likeness_text": likeness_text,
        "channels_text": channels_text,
    }


def markdown_rows(certificate: Certificate) -> tuple[Sequence[str], list[list[str]]]:
    """The table of tags for report.md: its head and rows."""
    head = ["tag", "verdict", "rows", "held out", "channels in range", "off the mix", "most energy clipped"]
    rows = [
        [
            tag.tag,
            WORDS[tag.verdict],
            f"{tag.sequences:,}",
            f"{tag.held_out_sequences:,}",
            f"{100 * tag.score:.1f} %",
            likeness_text(tag),
            f"{share_text(tag.worst_clipped_energy)} ({tag.worst_input})",
        ]
        for tag in certificate.tags
    ]
    return head, rows


def _widest(layer: LayerCertificate) -> float:
    return max(
        ((found.interval_high - found.interval_low) / found.high for found in layer.ranges if found.high > 0),
        default=0.0,
    )
