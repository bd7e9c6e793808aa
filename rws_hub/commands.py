"""What each `rws` command does: a few lines over the library, then text or JSON."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rws_hub import compare_command, data_commands, eval_command, train_command
from rws_hub.errors import CheckpointError, IncompatibleModelError

if TYPE_CHECKING:
    from rws_hub.layers import LayerRule
    from rws_hub.plan import PatchPlan
    from rws_hub.signature import RobustWeightSignature


def run(arguments: argparse.Namespace) -> None:
    """Carry out one parsed command."""
    handlers = {
        "apply": _apply,
        "card": _card,
        "check": _check,
        "compare": compare_command.run,
        "corruptions": data_commands.run,
        "demo": _demo,
        "eval": eval_command.run,
        "extract": _extract,
        "info": _info,
        "map": _map,
        "pull": _pull,
        "push": _push,
        "train": train_command.run,
    }
    handlers[arguments.command](arguments)


def _info(arguments: argparse.Namespace) -> None:
    from rws_hub import artifact, show

    folder = artifact.local_folder(arguments.signature, arguments.revision, arguments.subfolder)
    if folder is None:
        from rws_hub import hub

        folder = hub.locate(arguments.signature, revision=arguments.revision, subfolder=arguments.subfolder)
    config = artifact.read_verified(folder)
    if arguments.json:
        _print_json(show.summary(config))
    else:
        show.print_info(config)


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


def _check(arguments: argparse.Namespace) -> None:
    from rws_hub import show
    from rws_hub.checkpoints import Access, locate
    from rws_hub.planner import plan_patch
    from rws_hub.references import parse

    signature = _load(arguments)
    found = locate(parse(arguments.model), Access())
    plan = dataclasses.replace(plan_patch(found.path, signature, table=arguments.table), target=found.label)
    if arguments.json:
        _print_json({"revision": found.commit, **_plan_json(plan)})
    else:
        print(show.printable(plan.explain()))
    if not plan.ok:
        raise _does_not_fit(plan)


def _apply(arguments: argparse.Namespace) -> None:
    from rws_hub.apply import apply_to_checkpoint
    from rws_hub.artifact import why_not_new
    from rws_hub.checkpoints import Access, locate, tidy
    from rws_hub.references import parse

    out: Path = arguments.out
    reference = parse(arguments.model)
    if reason := why_not_new(out):  # before anything is fetched
        raise CheckpointError(f"{out} {reason}; choose another name (nothing is ever overwritten)")
    if reference.path is None and out.suffix == ".safetensors":
        raise CheckpointError(f"{out}: the patched copy of a model from the Hub is a folder; name it as one")
    signature = _load(arguments)
    alpha = signature.config.recommended_alpha if arguments.alpha is None else arguments.alpha
    found = locate(reference, Access())
    try:
        with tidy(found) as source:
            plan = apply_to_checkpoint(
                source, [signature], [alpha], out, table=arguments.table, progress=not arguments.json
            )
    except IncompatibleModelError as error:
        dataclasses.replace(error.plan, target=found.label).require()  # in the words of the user, not of the cache
        raise
    plan = dataclasses.replace(plan, target=found.label)
    changed = plan.signatures[0].touched if alpha else 0
    if arguments.json:
        facts = {"out": str(out), "revision": found.commit, "alpha": alpha, "changed": changed}
        _print_json({**facts, **_plan_json(plan)})
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
    from rws_hub.planner import plan_module, plan_patch
    from rws_hub.references import parse, timm_name

    arguments.signature, model = arguments.names
    signature = _load(arguments)
    local = None if timm_name(model) else parse(model).path
    # Names and shapes are all it takes: of a model on the Hub only the config is fetched.
    plan = (
        plan_patch(local, signature, table=arguments.table)
        if local is not None
        else plan_module(build_model(model), [signature], arguments.table)
    )
    plan = dataclasses.replace(plan, target=model)
    if arguments.json:
        _print_json(_plan_json(plan))
    else:
        print(show.printable(plan.explain()))
    if not plan.ok:
        raise _does_not_fit(plan)


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
    from rws_hub import contents
    from rws_hub.results import parse_results

    current = contents.read_contents(arguments.folder)
    results = None
    if arguments.results is not None:
        results = parse_results(arguments.results.read_bytes(), str(arguments.results))
    contents.write_folder(arguments.folder, current.config, current.payload, results, current.figures)
    _tell(arguments, {"card": str(arguments.folder / "README.md")}, f"{arguments.folder / 'README.md'} written")


def _push(arguments: argparse.Namespace) -> None:
    from rws_hub import contents, hub

    found, card = contents.read_all(arguments.folder)
    url = hub.push(
        arguments.repo_id,
        found,
        local_card=card,
        private=arguments.private,
        revision=arguments.revision,
        commit_message=arguments.message,
        create_pr=arguments.create_pr,
    )
    _tell(arguments, {"url": url}, url)


def _pull(arguments: argparse.Namespace) -> None:
    from rws_hub import artifact, hub

    out = arguments.out or Path(arguments.repo_id.rpartition("/")[2])
    if reason := artifact.why_not_new(out):
        raise CheckpointError(f"{out} {reason}; choose another folder with -o")
    commit, files = hub.pull(arguments.repo_id, revision=arguments.revision, subfolder=arguments.subfolder)
    artifact.write_files(out, files)
    message = f"{out}: {arguments.repo_id} at {commit}, {sum(map(len, files.values())):,} bytes"
    _tell(arguments, {"folder": str(out), "revision": commit, "files": sorted(files)}, message)


def _demo(arguments: argparse.Namespace) -> None:
    from rws_hub.demo import run_demo

    run_demo(arguments.out, seeds=arguments.seeds, push_to=arguments.push, as_json=arguments.json)


def _load(arguments: argparse.Namespace) -> RobustWeightSignature:
    from rws_hub.signature import RobustWeightSignature

    return RobustWeightSignature.from_pretrained(
        arguments.signature, revision=arguments.revision, subfolder=arguments.subfolder
    )


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


def _plan_json(plan: PatchPlan) -> dict[str, Any]:
    return {
        "target": plan.target,
        "ok": plan.ok,
        "signatures": [
            {
                "name": s.name,
                "ok": s.ok,
                "family": s.family,
                "dialect": s.dialect,
                "prefix": s.prefix,
                "touched": s.touched,
                "similarity": s.similarity,
                "diagnosis": s.diagnosis,
                "pieces": [dataclasses.asdict(p) for b in s.bindings for p in b.pieces],
                "rejected": [dataclasses.asdict(r) for r in s.rejected],
            }
            for s in plan.signatures
        ],
    }


def _does_not_fit(plan: PatchPlan) -> IncompatibleModelError:
    if ambiguous := next((s for s in plan.signatures if s.is_ambiguous), None):
        return IncompatibleModelError(f"the signature does not fit {plan.target}: {ambiguous.diagnosis}", plan)
    wrong = sum(len(s.rejected) for s in plan.signatures)
    count = "1 tensor is" if wrong == 1 else f"{wrong} tensors are"
    return IncompatibleModelError(f"the signature does not fit {plan.target}: {count} missing or different", plan)


def _tell(arguments: argparse.Namespace, data: dict[str, Any], text: str) -> None:
    if arguments.json:
        _print_json(data)
    else:
        print(text)


def _print_json(data: dict[str, Any]) -> None:
    json.dump(data, sys.stdout, indent=2)
    print()
