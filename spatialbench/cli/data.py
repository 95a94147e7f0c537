"""The commands on data files: data check, data export and data download."""

from pathlib import Path

from spatialbench.cli.parser import Parser
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean

USAGE = """\
usage: spatialbench data check FILE [--strict] [--images FOLDER]
       spatialbench data export --out FILE [--split test] [--form embspatial|coco]
       spatialbench data download NAME [--from FOLDER] [--to FOLDER] | --list"""


def data(argv: list[str]) -> int:
    """Run ``spatialbench data ...``."""
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    commands = {"check": _check, "export": _export, "download": _download}
    if argv[0] not in commands:
        near = did_you_mean(argv[0], commands)
        raise SpatialbenchError(f"unknown command 'data {argv[0]}'{near}")
    commands[argv[0]](argv[1:])
    return 0


def _download(argv: list[str]) -> None:
    parser = Parser("data download", "get a published data set: pinned, checked, resumable")
    parser.add("name", "one of --list", "NAME", nargs="?")
    parser.flag("--list", "every data set with its size, its licence and whether it is here")
    parser.add("--from", "offline: take the files from this folder", "FOLDER", dest="source")
    parser.flag("--copy", "with --from: copy the files (default: link them)")
    parser.add("--to", "the data set's folder (default: data/NAME, where tracks look)", "FOLDER")
    text = "only this file of it (or *.json); may be repeated"
    parser.add("--only", text, "FILE", action="append", default=[])
    from spatialbench.data.download.command import run

    run(parser.parse_args(argv))


def _check(argv: list[str]) -> None:
    parser = Parser("data check", "check a file in EmbSpatial's or COCO's format, and count")
    parser.add("file", "a JSON or parquet file")
    parser.add("--images", "the images of a COCO file", "FOLDER")
    parser.add("--masks", "the PNGs of a panoptic COCO file (default: beside it)", "FOLDER")
    parser.add("--size", "of a COCO file (default: 224)", "PIXELS", type=int, default=224)
    parser.flag("--strict", "the first damaged record is an error")
    o = parser.parse_args(argv)
    from spatialbench.data.coco.coco_check import check_coco, is_coco
    from spatialbench.data.embspatial.reader import check_file

    if is_coco(o.file):
        if o.images is None:
            raise SpatialbenchError(f"{o.file} is a COCO file; give its images: --images FOLDER")
        check_coco(o.file, o.images, o.size, o.masks, o.strict)
        return
    if (o.images is not None or o.masks is not None) and Path(o.file).exists():
        raise SpatialbenchError(f"{o.file} is no COCO file; --images and --masks are for those")
    check_file(o.file, o.strict).print_counts()


def _export(argv: list[str]) -> None:
    parser = Parser("data export", "write rendered records in EmbSpatial's schema, or COCO's")
    parser.add("--out", "the file to write", "FILE.json", required=True)
    splits = ("pretrain", "train", "val", "test")
    parser.add("--split", "default: test", default="test", choices=splits)
    parser.add("--limit", "the first N images (default: all of test, or 1000)", "N", type=int)
    parser.add("--size", "side of the images (default: 96)", "PIXELS", type=int, default=96)
    forms = ("embspatial", "coco")
    parser.add("--form", "default: embspatial", default="embspatial", choices=forms)
    o = parser.parse_args(argv)
    if o.limit is not None and o.limit < 1:
        raise SpatialbenchError(f"--limit must be 1 or more, got {o.limit}")
    from spatialbench.data.coco.coco_export import export_coco
    from spatialbench.data.embspatial.embspatial_export import export
    from spatialbench.data.rooms import load

    images = o.limit or (None if o.split == "test" else 1000)
    rooms = load(o.split, images, o.size)
    if o.form == "coco":
        regions = export_coco(rooms, o.out, o.size)
        print(f"{o.out}: {regions} regions in {len(rooms.scenes)} images")
        return
    records = rooms.record_set()
    if not records.records:
        first = f"the first {images} images of {o.split}"
        raise SpatialbenchError(f"{first} have no record; give a larger --limit")
    print(f"{o.out}: {export(records, o.out)} records")
