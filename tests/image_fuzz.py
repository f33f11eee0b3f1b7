"""Image files as no program writes them: samples of every format, and what chance makes of their bytes."""

import functools
import io
import random
import struct
import zlib

import numpy as np
import tifffile
from films import ffmpeg
from PIL import Image, PngImagePlugin
from upscaling import SRGB, picture

EXTREMES = 0, 1, 2, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF


def saved(image, name, **options):
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


@functools.cache
def samples():
    """Files (bytes) of every format that can be made here, with metadata, palettes, frames, compression."""
    exif, text = Image.Exif(), PngImagePlugin.PngInfo()
    exif[0x0112], exif[0x010F], exif[0x8769] = 6, 'the maker', {0xA002: 12, 0x9286: b'ASCII\0\0\0hello'}
    exif = exif.tobytes()
    text.add_text('Raw profile type APP1', f'\nAPP1\n{len(exif)}\n{exif.hex()}', zip=True)
    text.add_itxt('XML:com.adobe.xmp', '<x tiff:Orientation="6"/>')
    rgb, rgba, grey, palette = (picture(mode) for mode in ('RGB', 'RGBA', 'L', 'P'))
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)

    def several(name):
        return saved(picture(), name, save_all=True, append_images=[picture(seed=1)])

    files = [
        saved(rgb, 'PNG', icc_profile=SRGB, exif=exif, dpi=(300, 300)), saved(rgba, 'PNG', pnginfo=text),
        saved(palette, 'PNG', transparency=b'\0\x80'), saved(deep, 'PNG'), saved(grey, 'PNG', transparency=7),
        several('PNG'), saved(rgb, 'JPEG', icc_profile=SRGB, exif=exif, dpi=(300, 300)),
        saved(rgb, 'JPEG', progressive=True), saved(rgb.convert('CMYK'), 'JPEG'), several('MPO'),
        saved(rgba, 'WEBP', exif=exif), saved(rgb, 'WEBP', lossless=True, icc_profile=SRGB), several('WEBP'),
        several('GIF'), saved(palette, 'GIF', transparency=0), saved(rgb, 'BMP'), saved(palette, 'BMP'),
        saved(rgb, 'PPM'), saved(deep, 'PPM'), saved(rgb, 'JPEG2000'), saved(deep, 'JPEG2000'), saved(rgb, 'SGI'),
        saved(rgb, 'PCX'), saved(rgba, 'DDS'), saved(rgba, 'TGA'),
        saved(rgb, 'TGA', compression='tga_rle'), b'qoif\0\0\0\3\0\0\0\2\3\0\xfe\1\2\3\xc4' + bytes(8),
        saved(rgb, 'TIFF', exif=exif, dpi=(300, 300)), saved(deep, 'TIFF'), several('TIFF')]
    files += [saved(rgba, 'TIFF', compression=c) for c in ('tiff_lzw', 'tiff_deflate', 'packbits')]
    files += [saved(rgb, 'TIFF', compression='jpeg'), saved(picture('1'), 'TIFF', compression='group4')]
    if 'AVIF' in Image.SAVE:
        files += [saved(rgba, 'AVIF', exif=exif), saved(rgb, 'AVIF', icc_profile=SRGB)]
    file = io.BytesIO()
    tifffile.imwrite(file, np.asarray(rgb.resize((40, 40))), tile=(16, 16), bigtiff=True, photometric='rgb')
    return [*files, file.getvalue(), *(deep_png(channels) for channels in (2, 3, 4))]


def deep_png(channels):
    """A PNG of 16 bits and more than one channel, by ffmpeg."""
    values = np.random.default_rng(channels).integers(0, 65536, (64, 64, channels), np.uint16)
    return ffmpeg('-f', 'rawvideo', '-pix_fmt', {2: 'ya16le', 3: 'rgb48le', 4: 'rgba64le'}[channels], '-s', '64x64',
                  '-i', '-', '-c:v', 'png', '-pred', 'mixed', '-f', 'image2pipe', '-', input=values.tobytes())


def mend_png(data):
    """The chunks of a PNG with right checksums: else its decoder would look no further."""
    result, at = data[:8], 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at:at + 4], 'big')
        chunk = data[at + 4:at + 8 + length]
        result += data[at:at + 4] + chunk + struct.pack('>I', zlib.crc32(chunk))
        at += 12 + length
    return result


def mutated(seed):
    """A file (bytes) that is one of the `samples` with some bytes changed, by `seed`."""
    rng = random.Random(seed)
    data = bytearray(rng.choice(samples()))
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = int(len(data) * rng.random() ** rng.choice((1, 4)))  # headers are short, and have most to say
        match rng.randrange(6):
            case 0:
                data[at:at + 1] = rng.randbytes(1)
            case 1:
                size = rng.choice((2, 4))
                number = rng.choice(EXTREMES) % 256 ** size
                data[at:at + size] = number.to_bytes(size, rng.choice(('big', 'little')))
            case 2:
                del data[at:]
            case 3:
                del data[at:at + rng.randrange(1, 32)]
            case 4:
                data[at:at] = data[at:at + rng.randrange(1, 64)]
            case 5:
                other = rng.choice(samples())
                start = rng.randrange(len(other))
                data[at:at + 32] = other[start:start + 32]
    return mend_png(bytes(data)) if data[:4] == b'\x89PNG' and rng.random() < 0.8 else bytes(data)
