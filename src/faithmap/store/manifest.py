"""What a run folder says of itself: one typed record, read and written here alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, PlainValidator, ValidationError

from faithmap._version import __version__
from faithmap.errors import FaithmapError, StoreError
from faithmap.grouping import GROUP_NOUN
from faithmap.identity import UNKNOWN
from faithmap.images import UNREADABLE
from faithmap.measures.measure import MEASURES
from faithmap.protocol import Protocol
from faithmap.store.records import FORMAT, Skipped


def encodable(text: Any) -> Any:
    """Text that can be written as UTF-8; bytes of a file name that are no text become escapes."""
    return text.encode("utf-8", "backslashreplace").decode() if isinstance(text, str) else text


Text = Annotated[str, BeforeValidator(encodable)]
TypedProtocol = Annotated[
    Protocol,
    PlainValidator(lambda given: given if isinstance(given, Protocol) else Protocol.from_dict(given)),
    PlainSerializer(lambda protocol: protocol.to_dict()),
]


class Record(BaseModel):
    """A part of the manifest. Fields that a later version adds are kept."""

    model_config = ConfigDict(extra="allow", frozen=True, arbitrary_types_allowed=True)


class ClassifierRecord(Record):
    """The network that was scored."""

    name: Text
    fingerprint: str
    """Over weights, buffers, architecture and normalisation: what decides the logits."""
    preprocessing: dict[str, Any]
    """How image files became pixels."""
    labels: list[Text] | None = None
    """Names of the classes, in index order."""
    score: str = "softmax"
    """What is stored as logit and probability; see `Classifier`."""
    score_name: Text | None = None
    """What a score without a probability is called in texts."""
    shown_channels: list[int] | None = None
    """Which channels pictures show, counted from 1."""
    code: str | None = None
    """Of a network that no package brought, see `Classifier.code`; None in a folder that does not say."""

    def decides(self) -> dict[str, Any]:
        """What decides a number; names do not, and what pictures show."""
        return self.model_dump(mode="json", exclude={"labels", "score_name", "shown_channels", "code"})

    def changes(self, now: ClassifierRecord) -> list[str]:
        """What decides a number and is not the same in another record."""
        was, is_now = self.decides(), now.decides()
        if self.code is not None and now.code is not None:
            was, is_now = {**was, "code": self.code}, {**is_now, "code": now.code}
        return [
            f"classifier {part}: {was.get(part)} → {is_now.get(part)}"
            for part in {**was, **is_now}
            if was.get(part) != is_now.get(part)
        ]


class ImageRecord(Record):
    """One image that was asked for."""

    content: Text
    """A hash of its bytes, or ``unreadable: …`` with the reason."""
    label: int | None = None
    """The true class, where it is known."""
    target: int | None = None
    """The class that is scored, where the caller gave it."""
    group: Text | None = None
    """The independent unit that it belongs to; None: the image is its own."""

    def decides(self) -> dict[str, Any]:
        """What decides a number; the group decides statistics only."""
        return self.model_dump(mode="json", exclude={"group"})


class Stages(Record):
    """A run that stops when it is decided: how often it was looked at."""

    looks: list[int]
    """How many groups there were at each look so far."""
    at_most: int
    """How many groups there would have been at most."""
    contrast: str | tuple[str, str] = "leader"
    """What is to be decided; see `faithmap.statistics.decided`."""
    images: list[Text] = Field(default_factory=list)
    """What the last look rests on; the folder may hold more, of other questions."""


class Manifest(Record):
    """What was run."""

    format: int = FORMAT
    protocol: TypedProtocol
    fingerprint: str
    """Of the protocol: equal exactly when two runs measure the same thing."""
    classifier: ClassifierRecord
    image_set: Text | None = None
    group_noun: Text = GROUP_NOUN
    """What one group of the images is called."""
    images: dict[Text, ImageRecord]
    methods: dict[Text, dict[str, Any]]
    """Method → all that decides its numbers besides network, images and seed."""
    measures: dict[Text, dict[str, Any]] = Field(default_factory=dict)
    """Measure → all that decides its numbers besides network, images, heatmaps and seed."""
    seed: int = 0
    engine: str | None = None
    batch_size: int | None = None
    precision: str = "float32"
    device: Text | None = None
    executor: str | None = None
    workers: int | None = None
    threads: int | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    command: Text | None = None
    started: str | None = None
    finished: str | None = None
    """When it ended; None while it is not whole."""
    stages: Stages | None = None
    """Set where images were added until a question was decided."""
    skipped: list[Skipped] = Field(default_factory=list)
    """What could not be measured, with reasons."""

    def groups(self) -> dict[str, str]:
        """Image → its group."""
        return {name: one.group or name for name, one in self.images.items()}

    def of(self, images: Iterable[str], methods: Iterable[str]) -> dict[str, Any]:
        """What a part keeps of this manifest, so that a lost one can be built anew."""
        return {
            "fingerprint": self.fingerprint,
            "protocol": self.protocol.to_dict(),
            "classifier": self.classifier.decides(),
            "images": {name: self.images[name].model_dump(mode="json") for name in images if name in self.images},
            "methods": {name: self.methods[name] for name in methods if name in self.methods},
        }

    def joined(self, other: Self) -> Self:
        """This manifest with the images and methods of another part of the same run."""
        images, methods = {**self.images, **other.images}, {**self.methods, **other.methods}
        return self.model_copy(update={"images": images, "methods": methods})

    def extended(self, now: Self, url: str) -> Self:
        """The manifest of a folder that goes on with another question, or a refusal that names what changed.

        Raises:
            StoreError: another protocol, classifier, or other content under the same image id or method name.
        """
        changed = _changes(self, now)
        if changed:
            raise StoreError(
                f"run folder {url} holds protocol {self.fingerprint}, this run asks for {now.fingerprint} "
                f"(changed: {'; '.join(sorted(changed)[:4])}): choose a new folder."
            )
        return now.model_copy(
            update={
                "protocol": self.protocol.joined(now.protocol),
                "images": {**self.images, **now.images},
                "methods": {**self.methods, **now.methods},
                "measures": {**self.measures, **now.measures},
                "started": self.started or now.started,
                "skipped": self.skipped,
            }
        )

    def updated(self, **parts: Any) -> Self:
        """The same manifest with some parts replaced."""
        return self.model_copy(update=parts)

    def to_bytes(self) -> bytes:
        """The file: JSON with a checksum over itself."""
        whole = json.loads(self.model_dump_json())
        return json.dumps({**whole, "checksum": _checksum(whole)}, indent=2, ensure_ascii=False).encode()

    @classmethod
    def from_bytes(cls, data: bytes, name: str) -> Self:
        """The inverse of `to_bytes`.

        Args:
            name: of the file, for messages.
        Raises:
            StoreError: a newer format.
            DamagedError: bytes that are not those that were written, or that are no manifest.
        """
        try:
            found = json.loads(data.decode("utf-8"))
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise damaged(name)
        version = found.get("format")
        if isinstance(version, int) and version > FORMAT:
            written = found.get("versions")
            raise newer(name, version, written.get("faithmap") if isinstance(written, dict) else None)
        checksum = found.pop("checksum", None)
        if version != FORMAT or (checksum is not None and checksum != _checksum(found)):
            raise damaged(name)
        return cls.from_parts(found, name)

    @classmethod
    def from_parts(cls, parts: Mapping[str, Any], name: str) -> Self:
        """A manifest from plain JSON types, or a `DamagedError` that says what is wrong with them."""
        try:
            return cls.model_validate(parts)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise damaged(name, f"{where}: {first['msg']}") from None
        except (FaithmapError, TypeError, ValueError, RecursionError) as error:
            raise damaged(name, str(error)) from None


class DamagedError(StoreError):
    """A file whose bytes are not those that were written."""


def damaged(name: str, why: str = "") -> DamagedError:
    """The error for a file that is not as it was written."""
    reason = f" ({why})" if why else ""
    return DamagedError(f"{name} is damaged{reason}: run the same command again to compute it anew.")


def newer(name: str, found: object, version: str | None) -> StoreError:
    """The error for a file of a later version."""
    written = f"written by faithmap {version}" if version else "written by a newer faithmap"
    return StoreError(
        f"{name} has format {found}, {written}; this is faithmap {__version__}, which reads up to {FORMAT}: update it."
    )


def timestamp() -> str:
    """Now, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _changes(before: Manifest, now: Manifest) -> list[str]:
    """What decides a number and is not the same any more."""
    old, new = before.protocol.measured(), now.protocol.measured()
    changed = [
        f"{part}: {old.get(part, '(the default)')} → {new.get(part, '(the default)')}"
        for part in {**old, **new}
        if old.get(part) != new.get(part)
    ]
    changed += before.classifier.changes(now.classifier)
    if before.precision != now.precision:
        changed.append(f"precision: {before.precision} → {now.precision}")
    tried_again = {one.image for one in before.skipped if one.method is None}
    tried_again |= {name for m in (before, now) for name, one in m.images.items() if UNREADABLE in one.content}
    changed += _changed("image", before.images, now.images, tried_again)
    changed += _changed("method", before.methods, now.methods, ())
    specs = [{name: _with_defaults(one.get("spec", one)) for name, one in m.measures.items()} for m in (before, now)]
    return changed + _changed("measure", specs[0], specs[1], ())


def _with_defaults(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A measure's spec with its absent parameters at their defaults: a folder may be older than a parameter."""
    kind = MEASURES.get(spec.get("measure", ""))
    return dict(spec) if kind is None else {**spec, "parameters": {**kind.defaults, **spec.get("parameters", {})}}


def _changed(what: str, before: Mapping[str, Any], now: Mapping[str, Any], but: Collection[str]) -> list[str]:
    found = []
    for name in now.keys() & before.keys() - set(but):
        old, new = (one.decides() if isinstance(one, ImageRecord) else one for one in (before[name], now[name]))
        if isinstance(new, Mapping) and UNKNOWN in new:
            found.append(f"{what} '{name}' holds {new[UNKNOWN]}, of which nobody can know whether it stays the same")
        elif plain(old) != plain(new):
            found.append(f"{what} '{name}': {old} → {new}")
    return found


def plain(value: Any) -> str:
    """A value as JSON writes it, which is what comes back from a file."""
    return json.dumps(value, sort_keys=True)


def _checksum(parts: Mapping[str, Any]) -> str:
    return hashlib.sha256(plain(parts).encode()).hexdigest()[:24]
