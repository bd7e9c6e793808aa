"""Parsers as functions of bytes, for a fuzzer that is guided by coverage: each returns, or raises what is a mistake."""

from __future__ import annotations

import json
from collections.abc import Callable

import torch
from corpus import bases
from forge import sealed, vouched
from judge import judge
from mutants import Mutant, Origin
from side import card, judge_card, judge_results
from side import results as measured

from rws_hub.errors import ArtifactError, NameTableError
from rws_hub.frames import compress, decompress
from rws_hub.names import parse_family
from rws_hub.payload import write_payload
from rws_hub.recognise import recognise
from rws_hub.resolve import match


def origin(version: int) -> Origin:
    """The smallest honest artifact of a format version."""
    found = (o for o in bases().values() if o.config.format_version == version)
    return min(found, key=lambda o: len(o.text))


def config(data: bytes) -> None:
    """`config.json` of format 3, as it is."""
    judge(Mutant(origin(3), "", data, origin(3).payload, False))


def sealed_config(data: bytes) -> None:
    """The same, with a digest that holds if it is JSON at all."""
    _sealed_config(origin(3), data)


def payload(data: bytes) -> None:
    """`rws.safetensors` that a config of format 3 vouches for."""
    judge(Mutant(origin(3), "", vouched(origin(3).data, data).encode(), data, True))


def old_payload(data: bytes) -> None:
    """The same of format 1."""
    judge(Mutant(origin(1), "", vouched(origin(1).data, data).encode(), data, True))


def frame(data: bytes) -> None:
    """The frame of an artifact of format 3, counted and vouched for."""
    own = origin(3)
    raw = data or b"\0"
    try:
        found = decompress(raw, len(own.stream), "x")
    except ArtifactError:
        pass
    else:
        assert len(found) == len(own.stream)
    parts = own.parts | {"frame": torch.frombuffer(bytearray(raw), dtype=torch.uint8)}
    values = own.data
    values["codec"]["frame"] = len(raw)
    made = bytes(write_payload(parts))
    judge(Mutant(own, "", vouched(values, made).encode(), made, True))


def newest_config(data: bytes) -> None:
    """The same of format 5."""
    _sealed_config(origin(5), data)


def factors(data: bytes) -> None:
    """The frame of the factors of an artifact of format 5, counted and vouched for."""
    _factored(origin(5).parts | {"factors": torch.frombuffer(bytearray(data or b"\0"), dtype=torch.uint8)})


def products(data: bytes) -> None:
    """What is in that frame: steps, shifts and codes, as many as there should be."""
    own = origin(5)
    steps, shifts = own.parts["steps"], own.parts["shifts"]
    first, second = 4 * len(steps), 4 * len(steps) + len(shifts)
    whole = data.ljust(second + len(own.streams["factors"]), b"\x7f")
    codes = whole[second : second + len(own.streams["factors"])]
    made = {
        "steps": torch.frombuffer(bytearray(whole[:first]), dtype=torch.float32),
        "shifts": torch.frombuffer(bytearray(whole[first:second]), dtype=torch.uint8),
        "factors": torch.frombuffer(compress([codes], len(codes), 1), dtype=torch.uint8),
    }
    _factored(own.parts | made)


def _sealed_config(own: Origin, data: bytes) -> None:
    try:
        values = json.loads(data)
        text = sealed(values).encode("utf-8", "surrogatepass") if isinstance(values, dict) else data
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, ArtifactError):
        text = data
    judge(Mutant(own, "", text, own.payload, True))


def _factored(parts: dict[str, torch.Tensor]) -> None:
    values = origin(5).data
    values["codec"]["factors"] = len(parts["factors"])
    made = bytes(write_payload(parts))
    judge(Mutant(origin(5), "", vouched(values, made).encode(), made, True))


def results(data: bytes) -> None:
    """`results.json`."""
    judge_results(data)


def table(data: bytes) -> None:
    """A name table, and looking a backbone up with it."""
    try:
        family = parse_family("t", data.decode("utf-8", "replace"))
    except ValueError:
        return
    layout = origin(2).config.backbone.layout
    try:
        match(family, layout, list(layout), layout)
        recognise(layout, [family])
    except NameTableError:
        return


def cards(data: bytes) -> None:
    """A card that a new one is merged into."""
    judge_card(data.decode("utf-8", "replace"))


def artifact(data: bytes) -> None:
    """Four bytes that tell the length of a config, the config, and what it vouches for."""
    stop = 4 + int.from_bytes(data[:4], "little")
    judge(Mutant(origin(1), "", data[4:stop], data[stop:], True))


TARGETS: dict[str, Callable[[bytes], None]] = {
    "config": config,
    "sealed config": sealed_config,
    "payload": payload,
    "old payload": old_payload,
    "frame": frame,
    "newest config": newest_config,
    "factors": factors,
    "products": products,
    "results": results,
    "table": table,
    "card": cards,
    "artifact": artifact,
}

# Honest inputs to begin with.
SEEDS: dict[str, Callable[[], bytes]] = {
    "config": lambda: origin(3).text,
    "sealed config": lambda: origin(3).text,
    "payload": lambda: origin(3).payload,
    "old payload": lambda: origin(1).payload,
    "frame": lambda: origin(3).parts["frame"].numpy().tobytes(),
    "newest config": lambda: origin(5).text,
    "factors": lambda: origin(5).parts["factors"].numpy().tobytes(),
    "products": lambda: b"".join(
        [*(origin(5).parts[n].numpy().tobytes() for n in ("steps", "shifts")), origin(5).streams["factors"]]
    ),
    "results": lambda: measured().to_text().encode(),
    "table": lambda: str(origin(2).config.backbone.table).encode(),
    "card": lambda: card().encode(),
}
