"""Videos: as many frames, of the right colours, with the sound as it was, and memory for a few frames."""

import contextlib
import logging
import os
import re
import resource
import signal
import subprocess

import imageio_ffmpeg
import numpy as np
import pytest
from films import ffmpeg
from PIL import Image
from upscaling import SWAPPED, picture

from errors import UserError
from pictures.video import describe, upscale_video, write_video

SOUND = '-f', 'lavfi', '-i', 'sine=frequency=440:duration=0.5:sample_rate=44100'
TAGS = '-vf', 'scale=out_color_matrix=bt709', '-colorspace', 'bt709'


def make(path, *options, count=5, size=(64, 48), rate='10', sound=SOUND):
    """Writes a video of `count` frames of one colour each."""
    frames = [Image.new('RGB', size, (40 * i + 30, 200 - 30 * i, 90)) for i in range(count)]
    ffmpeg('-f', 'rawvideo', '-pix_fmt', 'rgb24', '-s', f'{size[0]}x{size[1]}', '-r', rate, '-i', '-', *sound, *TAGS,
           '-pix_fmt', 'yuv420p', '-crf', 5, *options, path, input=b''.join(frame.tobytes() for frame in frames))
    return [frame.getpixel((0, 0)) for frame in frames]


def frames_of(path):
    video = imageio_ffmpeg.read_frames(str(path))
    about = next(video)
    return about, [np.frombuffer(frame, np.uint8).reshape(*about['size'][::-1], 3) for frame in video]


def sound_of(path):
    """The sound of a file as it is stored, without decoding it."""
    return ffmpeg('-i', path, '-map', '0:a', '-c', 'copy', '-f', 'adts', '-')


@pytest.mark.parametrize('target', ['big.mp4', 'big.mov', 'big.mkv'])
def test_every_frame_is_upscaled_and_the_sound_is_copied(cli, target):
    colours = make('small.mp4')
    code, _, err = cli('small.mp4', '--scale', 2, '--output', target)
    assert (code, err) == (0, [])
    about, frames = frames_of(target)
    assert about['size'] == (128, 96) and about['fps'] == 10
    for frame, colour in zip(frames, colours, strict=True):
        np.testing.assert_allclose(frame.reshape(-1, 3).mean(axis=0), colour, atol=4)
    assert sound_of(target) == sound_of('small.mp4') != b''


def test_without_output_the_result_is_put_beside_the_video(cli):
    make('small.mp4', sound=())
    code, out, _ = cli('small.mp4', '--scale', 2)
    assert code == 0 and sorted(os.listdir()) == ['small-x2.mp4', 'small.mp4']
    assert any(line.startswith('small-x2.mp4: 128x96') for line in out)
    assert 'audio_codec' not in frames_of('small-x2.mp4')[0]


@pytest.mark.parametrize('target, codec', [('big.mov', 'aac'), ('big.mp4', 'opus'), ('big.mkv', 'opus')])
def test_sound_that_a_format_does_not_hold_is_encoded_anew(cli, target, codec):
    make('small.webm', '-c:a', 'libopus')
    code, out, _ = cli('small.webm', '--scale', 2, '--output', target)
    assert code == 0 and frames_of(target)[0]['audio_codec'].rstrip(',') == codec
    assert any('its sound, opus, is encoded anew as AAC' in line for line in out) == (codec == 'aac')


@pytest.mark.parametrize('codec', ['pcm_s16le', 'pcm_s16be', 'pcm_s24le', 'pcm_s24be'])
def test_sound_that_is_not_compressed_is_copied_into_a_mov(cli, codec):
    make('small.mov', '-c:a', codec)
    assert cli('small.mov', '--scale', 1, '--output', 'big.mov')[0] == 0
    assert frames_of('big.mov')[0]['audio_codec'].rstrip(',') == codec


def test_names_with_a_colon_are_files_and_folders_take_videos(cli):
    make('./12:30.mp4')
    assert cli('12:30.mp4', '--scale', 2, '--output', 'big/')[0] == 0
    assert os.listdir('big') == ['12:30.mp4'] and sound_of('./big/12:30.mp4') == sound_of('./12:30.mp4')


def test_colours_of_another_space_become_those_of_srgb(tmp_path):
    frame = Image.new('RGB', (64, 48), (200, 90, 30))
    frame.info['icc_profile'] = SWAPPED
    write_video(tmp_path / 'a.mp4', [frame] * 3, (48, 64), 10)
    colour = np.mean(frames_of(tmp_path / 'a.mp4')[1], axis=(0, 1, 2))
    np.testing.assert_allclose(colour, (30, 90, 200), atol=4)


def streams_of(path):
    """ffmpeg's description of a file."""
    command = imageio_ffmpeg.get_ffmpeg_exe(), '-hide_banner', '-i', str(path)
    return subprocess.run(command, capture_output=True, text=True).stderr


@pytest.mark.parametrize('suffix', ['.mp4', '.mov', '.mkv'])
def test_a_video_says_how_its_colours_are_meant(tmp_path, suffix):
    write_video(tmp_path / f'a{suffix}', [Image.new('RGB', (64, 48))] * 3, (48, 64), 10)
    assert '(tv, bt709, progressive)' in streams_of(tmp_path / f'a{suffix}')  # matrix, primaries and transfer


@pytest.mark.parametrize('size, matrix', [((1280, 64), 'bt709'), ((64, 578), 'bt709'), ((1278, 64), 'bt601'),
                                          ((64, 576), 'bt601')])
@pytest.mark.parametrize('tagged', [True, False])
def test_colours_without_tags_are_decoded_as_players_do(tmp_path, size, matrix, tagged):
    small, big = tmp_path / 'small.mp4', tmp_path / 'big.mp4'
    tags = '' if tagged else ',setparams=colorspace=unknown'
    colours = make(small, '-vf', f'scale=out_color_matrix={matrix}{tags}', '-colorspace', 'unknown', count=2,
                   size=size, sound=())
    assert ('(tv, ' in streams_of(small)) == tagged
    upscale_video(small, describe(small), big, size[::-1], lambda frame, size: frame)
    np.testing.assert_allclose(frames_of(big)[1][0][40, 40], colours[0], atol=4)


def test_all_audio_tracks_follow_the_video_and_texts_are_kept(cli):
    make('small.mkv', '-map', '0', '-map', '1', '-map', '2', '-c:a:0', 'aac', '-c:a:1', 'vorbis', '-strict', '-2',
         '-metadata', 'title=a title', sound=(*SOUND, '-f', 'lavfi', '-i', 'anullsrc=d=0.5'))
    for target, codecs in ('big.mkv', ['aac', 'vorbis']), ('big.mp4', ['aac', 'aac']):
        assert cli('small.mkv', '--scale', 1, '--output', target)[0] == 0
        assert re.findall(r'Stream #0:(\d).*(Video|Audio): (\w+)', streams_of(target)) == [
            ('0', 'Video', 'h264'), ('1', 'Audio', codecs[0]), ('2', 'Audio', codecs[1])]
        assert re.search('title +: a title', streams_of(target))


def test_subtitles_and_hdr_are_said_to_be_lost(cli):
    with open('a.srt', 'w') as file:
        file.write('1\n00:00:00,000 --> 00:00:00,400\nhello\n')
    make('small.mkv', '-vf', 'setparams=color_trc=smpte2084', '-map', 0, '-map', 1, '-c:s', 'srt',
         sound=('-i', 'a.srt'))
    code, out, _ = cli('small.mkv', '--scale', 1)
    assert code == 0 and all(any(told in line for line in out) for told in ('subtitles are left out', 'is HDR'))
    make('plain.mkv')
    assert not any('left out' in line or 'HDR' in line for line in cli('plain.mkv', '--scale', 1)[1])


@pytest.mark.parametrize('name, pixels, codec', [
    ('a.mov', 'argb', 'qtrle'), ('a.mov', 'yuva444p10le', 'prores_ks'), ('a.mkv', 'rgba', 'png'),
    ('a.webm', 'yuva420p', 'libvpx-vp9'), ('b.mov', 'rgb24', 'qtrle'), ('b.mkv', 'yuv420p', 'ffv1')])
def test_transparency_is_said_to_be_lost(cli, name, pixels, codec):
    make(name, '-pix_fmt', pixels, '-c:v', codec, sound=(), count=2)
    code, out, _ = cli(name, '--scale', 1, '--output', 'big.mp4')
    assert code == 0 and any('its transparency is left out' in line for line in out) == name.startswith('a')


@pytest.mark.filterwarnings('error', 'ignore::ResourceWarning')  # that Python does not show either
def test_a_video_that_is_turned_upright_is_no_warning(tmp_path, monkeypatch, capfd):
    make(tmp_path / 'wide.mp4', sound=())
    ffmpeg('-display_rotation', 90, '-i', tmp_path / 'wide.mp4', '-c', 'copy', tmp_path / 'tall.mp4')
    monkeypatch.setattr(logging.root, 'handlers', [])  # no pytest: what no other handler takes is printed
    assert describe(tmp_path / 'tall.mp4').shape == (64, 48)
    assert capfd.readouterr() == ('', '')


def test_what_ffmpeg_cannot_write_is_told_by_its_name(tmp_path):
    with pytest.raises(UserError, match='a.mp4: cannot be written; see the message of ffmpeg above'):
        write_video(tmp_path / 'a.mp4', [], (48, 64), 10)
    assert not list(tmp_path.iterdir())


def noisy_frames(count, last=lambda: None):
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8))
    last()


@pytest.mark.parametrize('suffix', ['.mp4', '.mkv'])
def test_a_full_disk_leaves_no_part_of_a_video(tmp_path, suffix):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    try:
        with pytest.raises(UserError, match=f'a{suffix}: cannot be written'):
            write_video(tmp_path / f'a{suffix}', noisy_frames(40), (48, 64), 10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_an_encoder_that_is_killed_leaves_no_part_of_a_video(tmp_path):
    def kill():
        command = 'ps', '-ww', '--ppid', str(os.getpid()), '-o', 'pid=,args='
        children = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
        encoder, = [line.split()[0] for line in children if 'libx264' in line]
        os.kill(int(encoder), signal.SIGKILL)

    with pytest.raises(UserError, match='a.mkv: cannot be written'):
        write_video(tmp_path / 'a.mkv', noisy_frames(300, kill), (48, 64), 10)
    assert not list(tmp_path.iterdir())


def size_on_the_screen(path):
    """Width and height of the frames as a player shows them."""
    ffmpeg('-i', path, '-vf', 'scale=iw*sar:ih,setsar=1', 'screen.mkv')
    return frames_of('screen.mkv')[0]['size']


def test_pixels_that_are_not_square_keep_their_shape(cli):
    make('small.mp4', '-aspect', '8:3', sound=())
    code, out, _ = cli('small.mp4', '--scale', 2, '--output', 'big.mp4')
    assert code == 0 and frames_of('big.mp4')[0]['size'] == (128, 96)
    assert size_on_the_screen('big.mp4') == (256, 96)
    assert any('not square (2:1)' in line for line in out)


@pytest.mark.parametrize('aspect, side, size', [('8:3', 256, (256, 96)), ('2:3', 192, (128, 192)),
                                                ('8:3', '140x50', (140, 50))])
def test_a_resolution_is_that_of_the_screen(cli, aspect, side, size):
    make('small.mp4', '-aspect', aspect, sound=())
    code, out, _ = cli('small.mp4', '--resolution', side, '--output', 'big.mp4')
    assert code == 0 and frames_of('big.mp4')[0]['size'] == size_on_the_screen('big.mp4') == size
    assert any('becomes' in line for line in out) == (side == '140x50')


def record(path, select, *options):
    """Writes a video as browsers do: frames at any millisecond, and nothing that tells their rate or duration."""
    ffmpeg('-f', 'lavfi', '-i', 'testsrc=s=64x48:d=1:r=1000', '-vf', f"select='{select}'", '-fps_mode', 'vfr',
           '-c:v', 'libvpx', '-live', '1', *options, path)


@pytest.mark.parametrize('select, count, rate', [
    ('eq(mod(n,40),0)', 25, 25), ('eq(mod(n+mod(n*7,11),41),0)', 25, 24.4)])
def test_a_recording_without_a_rate_keeps_its_frames_at_their_mean_rate(cli, select, count, rate):
    record('small.webm', select)
    assert frames_of('small.webm')[0]['fps'] == 0
    assert cli('small.webm', '--scale', 2, '--output', 'big.mp4')[0] == 0
    about, frames = frames_of('big.mp4')
    assert len(frames) == count and about['fps'] == pytest.approx(rate, abs=0.5)


def test_a_rate_that_nothing_tells_is_asked_for(cli):
    record('small.webm', '1', '-frames:v', 1)
    code, _, err = cli('small.webm', '--scale', 2, '--output', 'big.mp4')
    assert code == 2 and len(err) == 1 and 'its frame rate is unknown' in err[0]


def test_a_video_that_is_cut_off_is_told(cli):
    make('whole.mkv', '-g', 5, count=40, sound=())
    with open('whole.mkv', 'rb') as whole, open('cut.mkv', 'wb') as cut:
        cut.write(whole.read()[:os.path.getsize('whole.mkv') * 6 // 10])
    code, out, _ = cli('cut.mkv', '--scale', 1)
    assert code == 0 and 0 < len(frames_of('cut-x1.mkv')[1]) < 35
    assert any('cut.mkv: its frames end after' in line and 'of 4.0 seconds' in line for line in out)
    assert not any('seconds' in line for line in cli('whole.mkv', '--scale', 1)[1])


def test_odd_sides_become_even(cli):
    make('small.mp4', sound=())
    assert cli('small.mp4', '--scale', 1.01)[0] == 0
    assert frames_of('small-x1.01.mp4')[0]['size'] == (66, 48)


def test_the_rate_of_television_is_kept(cli):
    make('small.mp4', rate='30000/1001', sound=())
    assert cli('small.mp4', '--scale', 2)[0] == 0
    assert frames_of('small-x2.mp4')[0]['fps'] == 29.97


@pytest.mark.parametrize('source, target, rest, told', [
    ('small.mp4', 'big.png', (), 'known: .mp4'), ('text.mp4', 'big.mp4', (), 'text.mp4: cannot be read as a video'),
    ('small.mp4', 'big.mp4', ('--compare',), '--compare'), ('small.mp4', 'big.mp4', ('--scale', 0.5), 'at least 1'),
    ('small.mp4', 'big.mp4', ('--scale', 300), 'up to 16384 pixels a side and 264 million in all, not 19200x14400'),
    ('small.mp4', 'big.mp4', ('--resolution', '16384x16384'), 'not 16384x16384; choose a smaller size'),
    ('none.mp4', 'big.mp4', (), 'no such file')])
def test_an_error_is_one_line_and_leaves_nothing(cli, source, target, rest, told):
    make('small.mp4', sound=())
    with open('text.mp4', 'w') as file:
        file.write('no video')
    code, _, err = cli(source, '--output', target, *rest)
    assert code == 2 and len(err) == 1 and told in err[0]
    assert sorted(os.listdir()) == ['small.mp4', 'text.mp4']


@pytest.mark.parametrize('side, held', [(16384, True), (16386, False)])
def test_the_longest_side_is_the_encoders(tmp_path, capfd, side, held):
    with contextlib.nullcontext() if held else pytest.raises(UserError, match='cannot be written'):
        write_video(tmp_path / 'a.mp4', [Image.new('RGB', (side, 16))] * 3, (16, side), 10)
    assert held or f'invalid width x height ({side}x16)' in capfd.readouterr().err


def test_a_video_too_large_for_the_memory_is_refused_before_a_frame_is_made(cli, monkeypatch):
    make('small.mp4', sound=())
    monkeypatch.setattr('pictures.io.free_memory', lambda: 20e6)
    code, _, err = cli('small.mp4', '--scale', 10)
    assert code == 2 and len(err) == 1 and '75.0 MB, but 20.0 MB of memory are free' in err[0]
    assert os.listdir() == ['small.mp4']


def test_a_picture_is_no_video(cli):
    picture().save('small.png')
    code, _, err = cli('small.png', '--output', 'big.mp4')
    assert code == 2 and len(err) == 1 and 'big.mp4' in err[0]
