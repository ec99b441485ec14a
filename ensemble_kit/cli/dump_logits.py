"""`ensk dump-logits`: options → one call of `dumping.dump_logits`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ensemble_kit.cli import dump_nnunet, dump_volumes, slurm
from ensemble_kit.cli.common import Common
from ensemble_kit.cli.part_options import PartOption, part_of
from ensemble_kit.cli.plain import size
from ensemble_kit.errors import UsageError

_MODEL_HELP = (
    "module:callable, an .onnx file, a .pt2 or TorchScript file (with --trust), a folder of .npy or .npz arrays, or "
    "nnunet:FOLDER, probabilities that nnU-Net exported, or with --images the networks of its model."
)

_IMAGES_HELP = "Folder of PNG, JPEG, TIFF or BMP images; or of volumes, where MODEL is a folder of arrays of them."


def dump_logits(
    model: Annotated[str, typer.Argument(help=_MODEL_HELP, metavar="MODEL")],
    out: Annotated[
        str,
        typer.Option(
            "--out", help="Store to write; an unfinished store is resumed. With {fold} one a fold of nnunet:FOLDER."
        ),
    ],
    images: Annotated[
        Path | None,
        typer.Option(
            "--images",
            help="Folder of PNG, JPEG, TIFF or BMP images; of volumes where MODEL is a folder of arrays of them.",
        ),
    ] = None,
    classes: Annotated[
        Path | None, typer.Option("--classes", help="Class names in the order of the outputs: one per line, or JSON.")
    ] = None,
    member: Annotated[
        str | None,
        typer.Option("--member", help="Name of the model in ensembles. Default: after the model's callable or file."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option("--weights", help="State dict (.pt, .safetensors) to load into the model.")
    ] = None,
    weights_key: Annotated[
        str | None,
        typer.Option("--weights-key", help="Where the state dict is in a checkpoint of several, such as model_ema."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", help="Which of the model's outputs holds the logits: its name, or N from 0 (-1: last)."
        ),
    ] = None,
    input_size: Annotated[
        str | None,
        typer.Option(
            "--size", help="Size of the network's input: HxW, one number for both, or native: each image's own, padded."
        ),
    ] = None,
    divisor: Annotated[
        int | None,
        typer.Option("--size-divisor", help="With --size native: what sides are padded to multiples of. Default: 32."),
    ] = None,
    resize: Annotated[str | None, typer.Option("--resize", help="stretch (default) or letterbox.")] = None,
    mean: Annotated[
        str | None,
        typer.Option(
            "--mean", help="Subtracted from pixels on the 0..1 scale: one value a channel, or one for all. Default: 0."
        ),
    ] = None,
    std: Annotated[
        str | None,
        typer.Option(
            "--std", help="Divides pixels on the 0..1 scale: one value a channel, or one for all. Default: 1."
        ),
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(
            "--channels",
            help="rgb (default), bgr, or grey (fed as one channel to a network of one); or N: images are .npy or TIFF "
            "files of N channels.",
        ),
    ] = None,
    value_range: Annotated[
        str | None,
        typer.Option(
            "--range", help="LO,HI: pixel values that become 0 and 1; others are cut. Default: all of 8 or 16 bits."
        ),
    ] = None,
    window: Annotated[
        str | None, typer.Option("--window", help="C,W: the same by centre and width, such as 40,400 of a CT.")
    ] = None,
    normalise: Annotated[
        str | None, typer.Option("--normalise", help="zscore: each image's own mean and deviation. Default: none.")
    ] = None,
    preprocess: Annotated[
        Path | None,
        typer.Option("--preprocess", help="JSON file with the options from --size on, which take precedence over it."),
    ] = None,
    activation: Annotated[
        str | None,
        typer.Option(
            "--activation",
            help="sigmoid, or softmax for exclusive classes. Default: sigmoid; asked for where one is the background.",
        ),
    ] = None,
    domain: Annotated[
        str, typer.Option("--domain", help="What the network puts out: logits or probabilities.")
    ] = "logits",
    key: Annotated[str | None, typer.Option("--key", help="Name of the array in .npz files.")] = None,
    scale: Annotated[float | None, typer.Option("--scale", help="Factor that the arrays were multiplied by.")] = None,
    axes: Annotated[
        str | None,
        typer.Option("--axes", help="Of arrays: chw (default) or hwc; of volumes cdhw, cwhd, dhwc or whdc."),
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Images (with --tile: windows) per batch.")
    ] = 4,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    half: Annotated[bool, typer.Option("--half", help="Half precision, on CUDA only.")] = False,
    tta: Annotated[
        str | None, typer.Option("--tta", help="Test-time augmentation: average over any of hflip,vflip,rot90.")
    ] = None,
    swap_classes: Annotated[
        str | None,
        typer.Option(
            "--swap-classes",
            help="Classes that flips exchange: hflip:A=B,vflip:C=D where position in the image tells them apart, "
            "handedness:A=B where shape does; A=B with --tta hflip alone; a file; or none.",
        ),
    ] = None,
    fold: Annotated[
        str | None, typer.Option("--fold", help="Of nnunet:FOLDER: only this fold, a number or all.")
    ] = None,
    tile: Annotated[int | None, typer.Option("--tile", min=1, help="Slide a window of N x N over the image.")] = None,
    overlap: Annotated[float, typer.Option("--overlap", help="Overlap of neighbouring windows, as a fraction.")] = 0.25,
    tile_weights: Annotated[
        str, typer.Option("--tile-weights", help="Of cells of a window: hann, constant or gaussian (MONAI, nnU-Net).")
    ] = "hann",
    part: PartOption = None,
    codec: Annotated[
        str, typer.Option("--codec", help="none, or lossless: about half the size, slower to read.")
    ] = "none",
    clamp: Annotated[
        float | None,
        typer.Option("--clamp", help="Limit logits to ± this value, such as 12; makes lossless stores smaller."),
    ] = None,
    redo: Annotated[
        bool, typer.Option("--redo", help="Dump the samples again whose image changed since the store was begun.")
    ] = False,
    ids: Annotated[str, typer.Option("--id", help="Sample ids: each file's name, stem or path.")] = "name",
    scenes: Annotated[
        Path | None,
        typer.Option(
            "--scenes",
            help="Of a folder of arrays: the images are tiles of these scenes, which become the samples. A GeoTIFF, a "
            "folder of them, or a CSV of tile,scene,row,column. Of a model that runs, with --tile: the folder of "
            "--images, GeoTIFFs whose windows become tiles.",
        ),
    ] = None,
    checked: Annotated[
        bool,
        typer.Option(
            "--checked",
            help="The values are what --domain and --activation say, whatever they look like: margins of zeros, logits "
            "within [0, 1] and what a softmax made are taken, too.",
        ),
    ] = False,
    trust: Annotated[bool, typer.Option("--trust", help="Allow model files that can run code.")] = False,
    common: Common = Common(),
) -> None:
    """Run a model on images and store its logits."""
    from ensemble_kit import dumping
    from ensemble_kit.dumping.preprocess import Preprocess
    from ensemble_kit.dumping.recipe import Recipe
    from ensemble_kit.dumping.sides import parse_swap
    from ensemble_kit.formats.classes import read_classes
    from ensemble_kit.formats.volume_files import volumes_under

    share = part_of(part, common)
    of_networks: dict[str, object] = {"--weights-key": weights_key, "--output": output, "--size": input_size}
    of_networks |= {"--size-divisor": divisor, "--resize": resize, "--mean": mean, "--std": std, "--channels": channels}
    of_networks |= {"--range": value_range, "--window": window, "--normalise": normalise, "--preprocess": preprocess}
    of_networks |= {"--half": half, "--tile": tile, "--swap-classes": swap_classes, "--clamp": clamp}
    of_networks |= {"--batch-size": batch_size != 4, "--overlap": overlap != 0.25, "--scenes": scenes}
    of_networks["--tile-weights"] = tile_weights != "hann"
    how: dict[str, Any] = {"member": member, "part": share, "codec": codec, "redo": redo, "checked": checked}
    form = {"activation": activation, "domain": domain, "key": key, "scale": scale, "axes": axes}
    if model.startswith("nnunet:"):
        said = {f"--{name}": value for name, value in form.items()} | {"--domain": domain != "logits"}
        idle = of_networks | said | {"--classes": classes}
        how |= {"device": device, "trust": trust, "fold": fold, "checkpoint": weights and str(weights), "ids": ids}
        dump_nnunet.dump(model, images, out, tta, idle, common, **how)
        return
    if images is None or classes is None or fold is not None:
        item = "--fold without nnunet:FOLDER" if fold is not None else "--images and --classes are needed"
        fix = "leave it out" if fold is not None else "pass the folder of images and a file of class names"
        raise UsageError("option-invalid", "cannot dump a model", item=item, fix=fix)
    if volumes_under(images):
        idle = of_networks | {"--weights": weights, "--tta": tta}
        dump_volumes.dump(model, images, classes, out, idle, common, {**form, "ids": ids}, **how)
        return
    prep = (Preprocess() if preprocess is None else Preprocess.load(preprocess)).but(
        size=input_size,
        divisor=divisor,
        resize=resize,
        mean=_numbers("--mean", mean),
        std=_numbers("--std", std),
        channels=int(channels) if channels is not None and channels.isdecimal() else channels,
        range=_numbers("--range", value_range, pair="0,4095"),
        window=_numbers("--window", window, pair="40,400"),
        normalise=normalise,
    )
    if divisor is not None and (prep.size != "native" or tile is not None):
        item = (
            f"--size-divisor {divisor} without --size native"
            if tile is None
            else f"--size-divisor {divisor} and --tile"
        )
        raise UsageError("option-idle", "cannot pad inputs", item=item, fix="leave it out, or pass --size native alone")
    values: dict[str, Any] = {"activation": activation, "domain": domain, "tile_weights": tile_weights, "axes": axes}
    recipe = Recipe(
        prep,
        tta=tuple(name.strip() for name in tta.split(",")) if tta else (),
        swap=parse_swap(swap_classes) if swap_classes else None,
        tile=tile,
        overlap=overlap,
        output=_name_or_number(output),
        half=half,
        key=key,
        scale=scale,
        **values,  # checked by Recipe
    )
    with common.progress() as listen:
        done = dumping.dump_logits(
            model,
            images,
            read_classes(classes),
            out,
            recipe,
            member=member,
            weights=weights,
            weights_key=weights_key,
            batch_size=batch_size,
            device=device,
            part=share,
            codec=codec,  # type: ignore[arg-type]  # checked by the store
            clamp=clamp,
            ids=ids,  # type: ignore[arg-type]
            scenes=scenes,
            trust=trust,
            jobs=common.jobs,
            memory=common.memory,
            seed=common.seed,
            force=common.force,
            redo=redo,
            checked=checked,
            dry_run=common.dry_run,
            listen=listen,
            say=common.say,
            warn=common.warn,
        )
    verb = "would write" if common.dry_run else "wrote"
    count = done.samples - done.resumed if common.dry_run else done.written
    line, told = f"{verb} {count} samples, {size(done.bytes)}, to {out}", asdict(done)
    if common.dry_run:
        tasks = slurm.tasks_of(share, done.samples, done.bytes)
        array = [] if common.force else slurm.lines(tasks, slurm.words(), common, slurm.verifying(out))
        told["sbatch"] = array
        line = slurm.told(line, array)
    common.say(line)
    common.answer({**told, "dry_run": common.dry_run})


def _numbers(option: str, text: str | None, pair: str = "") -> list[float] | None:
    """Read comma-separated numbers: two where a `pair` shows what they look like, else one or more."""
    if text is None:
        return None
    try:
        values = [float(v) for v in text.split(",")]
    except ValueError:
        values = []
    if not values or (pair and len(values) != 2):
        shown = (
            f"two numbers, such as {option} {pair}" if pair else f"one number, or one a channel: {option} 0.5,0.4,0.4"
        )
        raise UsageError("option-invalid", "cannot read numbers", item=f"{option} {text!r}", fix=f"pass {shown}")
    return values


def _name_or_number(text: str | None) -> str | int | None:
    return int(text) if text is not None and text.removeprefix("-").isdecimal() else text
