"""From the command line to jobs: which pictures are read and which files are written."""

import itertools
import os
from pathlib import Path
from typing import NamedTuple

from datasets.image_folder import list_images
from errors import UserError
from files import file_name
from pictures.frames import count_frames, holds_frames
from pictures.io import written_suffixes
from pictures.video import is_video, video_suffix


class Job(NamedTuple):
    """A picture to read, and the files to write: the result, the comparison and the map of weights, or None."""

    source: Path
    target: Path
    comparison: Path | None = None
    weights: Path | None = None

    def written(self) -> list[Path]:
        return [path for path in self[1:] if path]


def beside(source: Path, ending: str) -> str:
    """The default of --output: a path beside `source`, with `ending` added to the name.

    It is a folder or a PNG; videos and files with several frames keep their suffix if it can be written.
    """
    if source.is_dir():
        folder = Path(os.path.abspath(source))  # which, unlike `resolve`, follows no link
        if not folder.name:
            raise UserError(f'{source}: there is nothing beside it to write to; give an --output')
        made = folder.with_name(file_name(folder.name, ending))
        return f'{made if source.is_absolute() else os.path.relpath(made)}{os.sep}'
    if is_video(source):
        return str(source.with_name(file_name(source.stem, f'{ending}{video_suffix(source)}')))
    kept = source.is_file() and holds_frames(source) and count_frames(source) > 1
    return str(source.with_name(file_name(source.stem, f'{ending}{source.suffix if kept else ".png"}')))


def find_jobs(source: Path, output: str, compare: bool, weights_map: bool) -> list[Job]:
    """The jobs for an input and an --output, each a file or a folder, and for --compare and --weights-map."""
    target, taken = Path(output), set()
    if not source.exists():
        raise UserError(f'{source}: no such file or folder')
    if not source.is_file() and not source.is_dir():
        raise UserError(f'{source}: is a pipe or a device; save the picture in a file first')
    named_folder = target.is_dir() or output.endswith(('/', os.sep))
    if source.is_dir() and (target.is_file() or target.suffix.lower() in written_suffixes() and not named_folder):
        raise UserError(f'--output {output} is a file, but {source} is a folder: give a folder (a new one ends in '
                        '/)')
    into_folder = source.is_dir() or named_folder
    if target.exists() and not target.is_dir() and (into_folder or not target.is_file() or not target.suffix):
        raise UserError(f'--output {output}: exists, and is neither a folder nor a file with a suffix')
    if not into_folder and not target.suffix:
        raise UserError(f'--output {output}: give a file with a suffix, such as {output}.png, or a folder, {output}/')

    def free(stem, ending):
        names = (file_name(stem, f'-{i}{ending}' if i > 1 else ending) for i in itertools.count(1))
        name = next(name for name in names if name not in taken)
        taken.add(name)
        return name

    sources = list_images(source) if source.is_dir() else [source]
    kept = {path: path.name for path in sources if path.suffix.lower() in written_suffixes()}
    taken.update(kept.values())
    jobs = []
    for path in sources:
        name = target.name
        if into_folder:
            name = f'{path.stem}{video_suffix(path)}' if is_video(path) else kept.get(path) or free(path.name, '.png')
        folder = target if into_folder else target.parent
        stem = name if source.is_dir() else Path(name).stem  # a folder may have an a.jpg and an a.png
        extras = [folder / free(stem, f'-{kind}.png') if wanted else None
                  for kind, wanted in (('compare', compare), ('weights', weights_map))]
        jobs.append(Job(path, folder / name, *extras))
    return jobs


def check_targets(jobs: list[Job]) -> None:
    """Raises a UserError if a file to be written is one of the pictures to read, or exists and is not a file."""
    def identity(path):
        return path.stat().st_dev, path.stat().st_ino

    sources = {identity(job.source): job.source for job in jobs}
    for path in (path for job in jobs for path in job.written() if path.exists()):
        if not path.is_file():
            raise UserError(f'{path}: exists, but is not a file; remove it, or give another --output')
        if identity(path) in sources:
            raise UserError(f'{path}: is the picture {sources[identity(path)]} itself, which is not replaced; '
                            'give another --output')
