"""`dehaze export`: models in other programs' formats."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from dehaze.cli import options as opt
from dehaze.cli import output
from dehaze.cli.targets import refuse_empty

Part = Literal["network", "full"]

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich", help="Write a model in the format of another program."
)


@app.callback()
def _export() -> None:
    """Keep `onnx` a command of its own name: with one command alone Typer would drop it."""


@app.command()
def onnx(
    target: Annotated[
        str, typer.Option("-o", "--output", metavar="FILE", help="The file to write.", show_default=False)
    ],
    model: opt.ModelOption = None,
    part: Annotated[
        Part,
        typer.Option(
            "--part",
            metavar="network|full",
            help="full: pictures of any size in, cleared pictures out. network: without the shrinking before "
            "it and the transfer to full resolution after it.",
        ),
    ] = "full",
    check: Annotated[
        bool, opt.flag("--check", help="Run the file in ONNX Runtime and compare with PyTorch.")
    ] = False,
    overwrite: opt.ReplaceOption = False,
    as_json: opt.JsonOption = False,
    quiet: opt.QuietOption = False,
    no_progress: opt.NoProgressOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """Write a model as an ONNX file with dynamic height and width; needs the extra 'onnx'.

    Input 'hazy' and output 'clear' are float32 RGB of shape (1, 3, height, width), from 0 to 1.

    \b
      dehaze export onnx -o dehaze.onnx --check
      dehaze export onnx -o network.onnx --part network -m ./student.safetensors
      dehaze run foggy.jpg -m network.onnx        starts several times faster
    """
    from pathlib import Path

    from dehaze.errors import UsageError

    out = output.start(as_json=as_json, quiet=quiet, no_progress=no_progress, debug=debug)
    refuse_empty("output", target)
    if target == "-":
        raise UsageError("an ONNX file is not written to stdout", "use -o dehaze.onnx")
    path = Path(target).expanduser()
    if path.is_dir():
        raise UsageError(f"{path} is a directory; expected a file to write", f"use -o {path / 'dehaze.onnx'}")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists already", "add -y to replace it")
    if not path.parent.is_dir():
        raise UsageError(f"cannot write {path}: there is no directory {path.parent}")
    from dehaze import export, weights

    for package in ("onnx", "onnxruntime") if check else ("onnx",):
        export.needed(package)
    with out.progress("downloading the model", unit="bytes") as bar:
        network, header = weights.load(model, progress=bar.update)
    export.export_onnx(network, header, path, part=part)
    out.line(f"{path}: {header.name}, part {part}, {path.stat().st_size:,} bytes")
    results = export.check_onnx(path, network, header, part=part) if check else []
    for result in results:
        out.line(f"{result.width} x {result.height}: differs by {result.difference * 255:.4f} of 255 levels")
    out.record(
        {
            "output": str(path),
            "model": header.name,
            "part": part,
            "bytes": path.stat().st_size,
            "opset": export.OPSET,
            "check": [
                {"width": r.width, "height": r.height, "max_difference": r.difference} for r in results
            ],
        }
    )
