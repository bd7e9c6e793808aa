"""What each `rws` command does: a few lines over the library, then text or JSON."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rws_hub import check_command, compare_command, data_commands, eval_command, hub_commands, train_command
from rws_hub.check_command import not_fitting, plan_json
from rws_hub.errors import CheckpointError, IncompatibleModelError

if TYPE_CHECKING:
    from rws_hub.layers import LayerRule
    from rws_hub.signature import RobustWeightSignature


def run(arguments: argparse.Namespace) -> None:
    """Carry out one parsed command."""
    handlers = {
        "apply": _apply,
        "card": _card,
        "check": check_command.run,
        "compare": compare_command.run,
        "corruptions": data_commands.run,
        "demo": _demo,
        "eval": eval_command.run,
        "extract": _extract,
        "info": _info,
        "lock": hub_commands.lock,
        "map": _map,
        "pull": hub_commands.pull,
        "push": hub_commands.push,
        "sign": hub_commands.sign,
        "train": train_command.run,
    }
    handlers[arguments.command](arguments)


def _info(arguments: argparse.Namespace) -> None:
    from rws_hub import show

    held = hub_commands.hold(arguments)
    if arguments.json:
        verified, lock = (None if p is None else str(p) for p in (arguments.public_key, arguments.lock))
        facts = {"signed": held.signed, "verified": verified, "pinned": lock, "compared": show.compared(held.every)}
        _print_json(show.summary(held.config) | facts)
    else:
        pinned = None if arguments.lock is None else f"by {arguments.lock}: {show.compared(held.every)}"
        show.print_info(held.config, show.signed_by(held.signed, arguments.public_key, held.every), pinned)


def _extract(arguments: argparse.Namespace) -> None:
    from rws_hub.artifact import why_not_new
    from rws_hub.signature import RobustWeightSignature

    if reason := why_not_new(arguments.out):
        raise CheckpointError(f"{arguments.out} {reason}; choose another folder")
    signature = RobustWeightSignature.extract(
        standard=arguments.standard,
        robust=arguments.robust,
        pretrained=arguments.pretrained,
        corruption=arguments.corruption,
        severity=arguments.severity,
        dataset=arguments.dataset,
        license=arguments.license,
        layers=_layer_rule(arguments.layers),
        bits=arguments.bits,
        error=arguments.target_error,
        max_bytes=arguments.target_bytes,
        batchnorm=arguments.batchnorm,
        alpha=arguments.alpha,
        base_model=arguments.base_model,
        base_revision=arguments.base_revision,
        table=arguments.table,
        description=arguments.description,
        progress=not arguments.json,
    )
    signature.save_pretrained(arguments.out)
    _report_saved(arguments, signature)


def _apply(arguments: argparse.Namespace) -> None:
    from rws_hub.apply import apply_to_checkpoint
    from rws_hub.artifact import why_not_new
    from rws_hub.checkpoints import Access, locate, tidy
    from rws_hub.judging import Terms
    from rws_hub.references import parse

    out: Path = arguments.out
    reference = parse(arguments.model)
    if reason := why_not_new(out):  # before anything is fetched
        raise CheckpointError(f"{out} {reason}; choose another name (nothing is ever overwritten)")
    if reference.path is None and out.suffix == ".safetensors":
        raise CheckpointError(f"{out}: the patched copy of a model from the Hub is a folder; name it as one")
    signature = hub_commands.load(arguments)
    alpha = signature.config.recommended_alpha if arguments.alpha is None else arguments.alpha
    found = locate(reference, Access())
    try:
        with tidy(found) as source:
            plan = apply_to_checkpoint(
                source,
                [signature],
                [alpha],
                out,
                table=arguments.table,
                terms=Terms(arguments.verify, arguments.max_relative_norm),
                progress=not arguments.json,
            )
    except IncompatibleModelError as error:
        dataclasses.replace(error.plan, target=found.label).require()  # in the words of the user, not of the cache
        raise
    plan = dataclasses.replace(plan, target=found.label)
    changed = plan.signatures[0].touched if alpha else 0
    if arguments.json:
        facts = {"out": str(out), "revision": found.commit, "alpha": alpha, "changed": changed}
        _print_json({**facts, **plan_json(plan)})
    else:
        name = signature.config.corruption.name
        where = "" if found.commit is None else f" in {found.label}"
        print(f"{out}: patched with {name} at alpha {alpha:g}, {changed:,} weights and statistics changed{where}")


def _map(arguments: argparse.Namespace) -> None:
    infers = arguments.names[0] == "infer"
    for name in ("revision", "subfolder", "table") if infers else ("size", "out"):
        if getattr(arguments, name) is not None:
            arguments.usage_error(f"argument --{name}: only {'without' if infers else 'with'} infer")
    if infers:
        return _infer(arguments)
    from rws_hub import show
    from rws_hub.backbones import build_model
    from rws_hub.planner import plan_module, plan_weights
    from rws_hub.references import parse, timm_name
    from rws_hub.sources import open_weights

    arguments.signature, model = arguments.names
    signature = hub_commands.load(arguments)
    local = None if timm_name(model) else parse(model).path
    # Names and shapes are all it takes: of a model on the Hub only the config is fetched.
    plan = (
        plan_weights(open_weights(local, model), [signature], arguments.table)
        if local is not None
        else plan_module(build_model(model), [signature], arguments.table)
    )
    plan = dataclasses.replace(plan, target=model)
    if arguments.json:
        _print_json(plan_json(plan))
    else:
        print(show.printable(plan.explain()))
    if not plan.ok:
        raise not_fitting(plan)


def _infer(arguments: argparse.Namespace) -> None:
    from rws_hub import artifact
    from rws_hub.backbones import build_model, example_input
    from rws_hub.infer import infer_table

    out: Path | None = arguments.out
    if out is not None and out.exists():
        raise CheckpointError(f"{out} exists; choose another name (nothing is ever overwritten)")
    a, b = (build_model(name) for name in arguments.names[1:])
    found = infer_table(a, b, example_input(a, arguments.size), progress=not arguments.json)
    if out is not None:
        artifact.write_new(out, found.text.encode())
    if arguments.json:
        facts: dict[str, Any] = {"difference": found.difference, "before": found.before, "tensors": len(found.pairs)}
        facts |= {"unproven": found.unproven, "exchangeable": found.exchangeable}
        _print_json({"table": found.text, "out": None if out is None else str(out), **facts})
    else:
        print(found.text if out is None else f"{out}: written", end="" if out is None else "\n")
        proof = f"{found.difference:.1e} with the weights of the other, {found.before:.1e} without"
        print(f"proven: the outputs differ by {proof} ({len(found.pairs)} pairs)", file=sys.stderr)


def _card(arguments: argparse.Namespace) -> None:
    from rws_hub import beside, contents

    current = contents.read_contents(arguments.folder)
    results = None
    if arguments.results is not None:
        results = beside.read_results_file(arguments.results)
        if results is None:
            raise CheckpointError(f"{arguments.results}: No such file or directory")
    contents.write_folder(arguments.folder, current.config, current.payload, results, current.figures)
    _tell(arguments, {"card": str(arguments.folder / "README.md")}, f"{arguments.folder / 'README.md'} written")


def _demo(arguments: argparse.Namespace) -> None:
    from rws_hub.demo import run_demo

    run_demo(arguments.out, seeds=arguments.seeds, push_to=arguments.push, as_json=arguments.json)


def _layer_rule(text: str) -> LayerRule:
    if text == "shallow":
        return "shallow"
    return int(text) if text.isdigit() else text.split(",")


def _report_saved(arguments: argparse.Namespace, signature: RobustWeightSignature) -> None:
    from rws_hub import show

    if arguments.json:
        _print_json({"folder": str(arguments.out), **show.summary(signature.config)})
    else:
        show.print_info(signature.config)
        print(f"saved to {arguments.out}")


def _tell(arguments: argparse.Namespace, data: dict[str, Any], text: str) -> None:
    if arguments.json:
        _print_json(data)
    else:
        print(text)


def _print_json(data: dict[str, Any]) -> None:
    json.dump(data, sys.stdout, indent=2)
    print()
