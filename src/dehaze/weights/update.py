"""Keep `weights_manifest.json` true: `python -m dehaze.weights.update` measures every file it names again.

Written by hand in an entry: source, repository, revision, file, role and description. Everything else is read
from the checkpoint (downloaded if it lives on the Hub and is not in the cache), so a figure is corrected in
the checkpoint's header (`--metrics`), never in the manifest.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from dehaze.errors import DehazeError, ModelError
from dehaze.parts import part_path
from dehaze.weights.checkpoint import (
    Header,
    load_checkpoint,
    read_header,
    rewrite_header,
    sha256_of,
    write_atomically,
)
from dehaze.weights.manifest import BUNDLED_DIRECTORY, Role, Source, manifest_path

EDITORIAL = ("source", "repository", "revision", "file", "role", "description")
"""Fields of an entry that people write."""


def measure(path: Path) -> dict[str, Any]:
    """Read from a checkpoint all that its manifest entry says of it; loads it to be sure that it does.

    Raises:
        ModelError: Does not load, does not say its licence, or has figures without a command.
    """
    from dehaze.models import count_parameters

    model, header = load_checkpoint(path)
    _check(header, path)
    return {
        "sha256": sha256_of(path),
        "bytes": path.stat().st_size,
        "parameters": count_parameters(model),
        "architecture": header.architecture,
        "working_size": header.working_size,
        "transfer_radius": header.transfer_radius,
        "reduction": header.reduction,
        "second_look": header.second_look,
        "licence": header.licence,
        "data": header.data,
        "metrics": header.metrics,
    }


def _check(header: Header, path: Path) -> None:
    if not header.licence:
        raise ModelError(f"{path} does not say its licence", "add it with: --licence TEXT")
    for on, figures in header.metrics.items():
        if not isinstance(figures, dict) or not figures.get("command") or len(figures) < 2:
            raise ModelError(
                f"{path} has metrics '{on}' without the figures and the command that measured them",
                'write them as {"SOTS indoor": {"psnr": 30.0, "command": "dehaze bench ..."}} with --metrics',
            )


def _written(path: Path) -> dict[str, Any]:
    """Read what people wrote of the manifest, and all the rest of it.

    Raises:
        ModelError: It cannot be read, or an entry lacks or has wrong what people write.
    """
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        default, models = manifest["default"], manifest["models"]
        if default is not None and not isinstance(default, str):
            raise ValueError("default must be a model's name or null")
        for name, entry in models.items():
            _check_words(name, entry)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"has no {error}" if isinstance(error, KeyError) else f"is damaged: {error}"
        raise ModelError(f"{path} {what}", "put it right by hand, or go back to the committed one") from error
    return dict(manifest)


def _check_words(name: str, entry: dict[str, Any]) -> None:
    sources, roles = get_args(Source), get_args(Role)
    needed = EDITORIAL if entry["source"] == "hub" else ("source", "file", "role", "description")
    if missing := [key for key in needed if not (isinstance(entry.get(key), str) and entry[key])]:
        raise ValueError(f"{name} needs text as its {missing[0]}")
    if entry["source"] not in sources or entry["role"] not in roles:
        raise ValueError(f"{name}: source must be of {', '.join(sources)}, role of {', '.join(roles)}")


def refreshed(manifest: dict[str, Any], weights: Path = BUNDLED_DIRECTORY) -> dict[str, Any]:
    """Return the manifest (as JSON values) with everything measurable measured again.

    Args:
        manifest: The manifest's JSON values; entries may lack all but the editorial fields.
        weights: Folder of the bundled files.
    """
    models = {}
    for name, entry in manifest["models"].items():
        written = {key: entry[key] for key in EDITORIAL if key in entry}
        models[name] = {**written, **measure(_file_of(written, weights))}
    return {**manifest, "models": models}


def _file_of(entry: dict[str, Any], weights: Path) -> Path:
    if entry["source"] == "bundled":
        return weights / str(entry["file"])
    from dehaze.weights.hub import Address, fetch

    return fetch(Address(entry["repository"], entry["file"], entry["revision"])).path


def add(manifest: dict[str, Any], options: argparse.Namespace, weights: Path) -> dict[str, Any]:
    """Copy `options.checkpoint` among the bundled files; return the manifest with an entry for it.

    The other options (name, licence, data names, metrics, role, description, default) overrule what header
    and entry say.

    Raises:
        ModelError: Not a checkpoint, a damaged one, a new one without role and description, or figures that
            cannot be read.
    """
    header = read_header(options.checkpoint)
    name = options.name or header.name
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name):
        raise ModelError(f"a model cannot be called '{name}'", "use small letters, digits and -: --name NAME")
    entry = manifest["models"].get(name, {})
    header = replace(header, name=name, licence=options.licence or header.licence, metrics=_measured(header))
    if options.working_size:
        header = replace(header, working_size=options.working_size)
    if options.data_name:
        header = replace(header, data={**header.data, "names": options.data_name})
    if options.transfer_radius:
        header = replace(header, transfer_radius=options.transfer_radius)
    if options.second_look is not None:
        header = replace(header, second_look=options.second_look or None)
    if options.metrics:
        header = replace(header, metrics=_figures_in(options.metrics))
    for path in options.report:
        header = replace(header, metrics={**header.metrics, **figures_of(path, name)})
    entry = {
        "source": "bundled",
        "file": f"{name}.safetensors",
        "role": options.role or entry.get("role"),
        "description": options.description or entry.get("description"),
    }
    if missing := [key for key in ("role", "description") if not entry[key]]:
        raise ModelError(f"model '{name}' is new and has no {missing[0]}", f"add --{missing[0]}")
    target = weights / str(entry["file"])
    draft = part_path(target)
    try:
        rewrite_header(options.checkpoint, draft, header)
        measure(draft)  # before it takes the place of one that is sound
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    default = name if options.default else manifest["default"]
    return {**manifest, "default": default, "models": {**manifest["models"], name: entry}}


def _measured(header: Header) -> dict[str, Any]:
    """A header's figures without the validation that training left there, which no command reproduces."""
    return {on: figures for on, figures in header.metrics.items() if on != "validation"}


def _figures_in(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} has no figures as JSON: {error}", "see CONTRIBUTING.md") from error


def figures_of(report: Path, name: str) -> dict[str, Any]:
    """Read a model's PSNR and SSIM from what `dehaze bench --json` wrote.

    Raises:
        ModelError: The report has no quality figures of the model.
    """
    try:
        return _figures(json.loads(report.read_text(encoding="utf-8")), name)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{report} has no quality figures of '{name}'", f"dehaze bench -m {name} --data DIR --json"
        ) from error


def _figures(values: dict[str, Any], name: str) -> dict[str, Any]:
    found = {}
    for part in values["quality"]:
        for row in part["rows"]:
            if row["method"] == name:
                overall = row["overall"]
                found[part["data"]] = {
                    "psnr": round(overall["psnr"]["mean"], 2),
                    "ssim": round(overall["ssim"]["mean"], 4),
                    "pictures": overall["pictures"],
                    "command": values["command"],
                }
    if not found:
        raise KeyError(name)
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dehaze.weights.update",
        description="Measure every model in weights_manifest.json again; with CHECKPOINT, bundle it first.",
    )
    parser.add_argument("checkpoint", nargs="?", type=Path, help="a .safetensors file to bundle")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the manifest is stale")
    parser.add_argument("--name", help="model name (default: the checkpoint's)")
    parser.add_argument("--role", choices=get_args(Role), help="benchmark: trained on ITS alone")
    parser.add_argument("--description", help="one sentence for people")
    parser.add_argument("--licence", help="terms of the weights, stored in the checkpoint")
    parser.add_argument(
        "--data-name",
        action="append",
        default=[],
        help="what a data set it learnt from is and its terms, in place of those that the checkpoint names",
    )
    parser.add_argument(
        "--working-size", type=int, metavar="N", help="long side in pixels that served validation best"
    )
    parser.add_argument(
        "--transfer-radius",
        type=int,
        metavar="N",
        help="radius in working pixels that served validation best",
    )
    parser.add_argument(
        "--second-look",
        type=int,
        metavar="N",
        help="long side in pixels at which the mirrored picture is looked at, too; 0 for one look alone",
    )
    parser.add_argument("--metrics", type=Path, help="JSON of figures and commands, stored in the checkpoint")
    parser.add_argument(
        "--report",
        type=Path,
        action="append",
        default=[],
        help="what 'dehaze bench -m NAME --data DIR --json' wrote: its figures go into the checkpoint",
    )
    parser.add_argument("--default", action="store_true", help="make it the model used when none is named")
    return parser


def stale(before: dict[str, Any], after: dict[str, Any], weights: Path) -> list[str]:
    """Say what is not true in a manifest, given the same measured again."""
    models = after["models"]
    wrong = [f"{name} differs from its file" for name in models if models[name] != before["models"][name]]
    if before["default"] not in (None, *before["models"]):
        wrong.append(f"the default {before['default']} is not in it")
    listed = {entry["file"] for entry in before["models"].values() if entry["source"] == "bundled"}
    unlisted = sorted(file.name for file in weights.glob("*.safetensors") if file.name not in listed)
    return wrong + [f"{name} is not in it" for name in unlisted]


def main(arguments: Sequence[str] | None = None, *, weights: Path = BUNDLED_DIRECTORY) -> int:
    """Run the command; returns the exit status: 0, 1 if `--check` found a stale manifest, or the error's."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.check and options.checkpoint:
        parser.error("--check takes no checkpoint")
    if not options.checkpoint and any(v for k, v in vars(options).items() if k != "check"):
        parser.error("there is no checkpoint that this could be said of: name its file")
    path = manifest_path()
    try:
        before = _written(path)
        chosen = add(before, options, weights) if options.checkpoint else before
        after = refreshed(chosen, weights)
    except DehazeError as error:
        sys.stderr.write(f"error: {error}\n{error.hint}\n")
        return error.exit_code
    if options.check:
        wrong = stale(before, after, weights)
        sys.stderr.writelines(f"{path.name}: {text}\n" for text in wrong)
        return 1 if wrong else 0
    write_atomically(path, (json.dumps(after, indent=2, ensure_ascii=False) + "\n").encode())
    sys.stderr.write(f"{path}: {len(after['models'])} models\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
