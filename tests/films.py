"""ffmpeg, for tests that need files of its formats."""

import subprocess

import imageio_ffmpeg


def ffmpeg(*args, **kwargs):
    """What ffmpeg with `args` prints."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), '-y', '-v', 'error', *map(str, args)]
    return subprocess.run(command, check=True, capture_output=True, **kwargs).stdout
