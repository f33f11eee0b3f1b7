"""The log of a run: lines in log.txt, numbers and pictures for TensorBoard."""

import time
from pathlib import Path

import torch
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tqdm import tqdm

from files import writing


class Log:
    """Prints lines and adds them to log.txt, and writes numbers to tensorboard/; does nothing on ranks other than 0.

    `new_run`: hides in TensorBoard what an earlier run has logged in `folder`, since its checkpoints are gone.

    It does not use tensorboardX's SummaryWriter, whose thread would end unnoticed if the disk is full.
    """

    def __init__(self, folder: Path, active: bool, new_run: bool = False):
        self.folder, self.active = folder, active
        if active:
            (folder / 'tensorboard').mkdir(exist_ok=True)
            self.events = EventsWriter(str(folder / 'tensorboard/events'))
            if new_run:
                self.write(Event(wall_time=time.time(), session_log=SessionLog(status=SessionLog.START)))

    def line(self, text: str) -> None:
        """Prints a line, above progress bars, and adds it to log.txt."""
        if self.active:
            tqdm.write(text)
            path = self.folder / 'log.txt'
            with writing(path), open(path, 'a', encoding='utf-8', errors='backslashreplace') as file:
                print(text, file=file)

    def scalars(self, values: dict[str, float], step: int) -> None:
        """Adds numbers, by their tags, to TensorBoard."""
        self.add([summary.scalar(name, value) for name, value in values.items()], step)

    def image(self, name: str, image: torch.Tensor, step: int) -> None:
        """Adds an image (3 or 1, H, W), uint8 or float in [0, 1], to TensorBoard."""
        self.add([summary.image(name, image.numpy())], step)

    def add(self, summaries: list, step: int) -> None:
        if self.active:
            self.write(*(Event(wall_time=time.time(), step=step, summary=item) for item in summaries))

    def write(self, *events: Event) -> None:
        with writing(self.folder / 'tensorboard'):
            for event in events:
                self.events.write_event(event)
            self.events.flush()
