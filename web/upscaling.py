"""The page that upscales photos in a browser, by Gradio, and the server that answers for it and for Explore."""

import argparse
import math
import os
import tempfile
from functools import partial
from pathlib import Path

os.environ['no_proxy'] = '*'  # Gradio requests its own page, which no proxy can reach; some even break its import
import gradio as gr
from gradio.processing_utils import save_file_to_cache

from datasets.image_file import image_size
from devices import pick_device
from errors import UserError, size_text
from models import load_pretrained, upscale_pil
from models.pictures import target_size
from pictures.frames import count_frames
from pictures.io import read, save
from pictures.sheets import centre_box, flat
from web.explore import EXAMPLES, FILE_BYTES, Explore

LIMIT = 50e6  # pixels of a result: some minutes on a CPU
CSS = '#usual .tab-like-container { display: none }'  # the slider's number field, which is limited to its range
SHOWN = 2048  # longest side of what the slider shows at full resolution: browsers handle it easily
HOUR = 3600
NUMBERS = 1_000_000  # limit of what is taken from a field: larger than any scale or size that can be made
BY_SCALE, BY_SIZE = 'Scale', 'Size'


def check_pixels(what, size):
    """Raises a UserError if a picture of `size`, called `what`, has more pixels than this page allows."""
    if math.prod(size) > LIMIT:
        raise UserError(f'{what} has {size_text(size)} pixels, and this page makes up to {LIMIT / 1e6:.0f} million: '
                        'choose a smaller one, or use demo.py, which has no limit')


def comparison(image, big):
    """The centres of `image`, enlarged by bicubic interpolation, and of `big`, in the same size, and a text on them."""
    box = centre_box(big.size, (SHOWN, SHOWN))
    source = [b * n / m for b, n, m in zip(box, image.size * 2, big.size * 2, strict=True)]
    part = big.crop(box)
    bicubic = flat(image, part.size, box=source)
    text = f'{image.width}x{image.height} → **{big.width}x{big.height}** pixels (width x height).'
    if part.size != big.size:
        text += f' The slider shows the centre, {part.width}x{part.height}; the download is the whole picture.'
    return (bicubic, flat(part)), text


def upscale(model, path, choice, scale, height, width, folder):
    """What the page shows for the photo in the file `path`: the slider's pictures, a text, and the result's file.

    `height` or `width` may be None: the photo's aspect ratio is kept. The result is written to a new folder in
    `folder`, so that it replaces nothing.
    """
    if path is None:
        raise UserError('choose a photo first')
    check_pixels('the photo', image_size(path))  # before it is decoded
    image = read(path)
    size = None
    if choice == BY_SCALE and scale is None:
        raise UserError('give a scale')
    if choice == BY_SIZE:
        if not (height or width):
            raise UserError('give a height, a width, or both')
        size = height or round(image.height * width / image.width), width or round(image.width * height / image.height)
    size = target_size((image.height, image.width), None if size else scale, size)
    check_pixels('the result', size)
    big = upscale_pil(model, image, size=size)
    target = Path(tempfile.mkdtemp(dir=folder)) / f'{Path(path).stem}-{size_text(size)}.png'
    save(big, target)
    pictures, text = comparison(image, big)
    if (count := count_frames(path)) > 1:
        text += f' Only the first of {count} frames (or pages) is enlarged.'
    return pictures, text, str(target)


# --- the page --------------------------------------------------------------------------------------------------------


def make_page(model, name):
    """The Gradio page for `model`, called `name`."""
    with gr.Blocks(title='A-LIIF', analytics_enabled=False, delete_cache=(HOUR, HOUR)) as page:
        gr.Markdown(f'# A-LIIF\nEnlarges a photo by any factor, or to any size, with `{name}`. '
                    f'The result may have up to {LIMIT / 1e6:.0f} million pixels. '
                    '[**Explore**](/explore): look around in a photo, and zoom in as far as you like.')
        with gr.Row():
            with gr.Column(scale=1):
                photo = photo_field()
                target = target_fields()
                button = gr.Button('Upscale', variant='primary')
                download = gr.DownloadButton('Download PNG', interactive=False)
                text = gr.Markdown()
            with gr.Column(scale=2):
                pictures = gr.ImageSlider(label='Bicubic (left), model (right)', format='png', interactive=False,
                                          max_height=600, buttons=['fullscreen'])
        # one request at a time: it uses all cores
        button.click(partial(answer, model, photo.GRADIO_CACHE), [photo, *target], [pictures, text, download],
                     api_name='answer', concurrency_limit=1)
    allow_only_uploads(photo, page)
    return page


def photo_field():
    """The field for the photo, with examples below it."""
    photo = gr.Image(type='filepath', image_mode=None, sources=['upload', 'clipboard'], label='Photo', height=300,
                     buttons=[])
    gr.Examples([[str(path)] for path in EXAMPLES.values()], photo, label='Examples')
    return photo


def target_fields():
    """The fields that say how large the result becomes: choice between scale and size, scale, height, width."""
    choice = gr.Radio([BY_SCALE, BY_SIZE], value=BY_SCALE, label='Target', show_label=False)
    with gr.Row():
        usual = gr.Slider(1, 30, 2, step=0.1, label='Scale', elem_id='usual', buttons=[], min_width=200)
        scale = within(gr.Number(2, label='Any scale', step=0.1, min_width=120, scale=0))
    with gr.Row():
        height, width = (within(gr.Number(label=label, precision=0, visible=False, placeholder='from the photo'))
                         for label in ('Height', 'Width'))
    choice.change(show_fields, choice, [usual, scale, height, width])
    usual.input(fn=None, inputs=usual, outputs=scale, js='scale => scale')
    return choice, scale, height, width


def within(field):
    """`field`, a gr.Number, changed so that it refuses what is not a number, or too large: Gradio accepts anything."""
    own = field.preprocess

    def preprocess(value):
        if not (value is None or isinstance(value, (int, float)) and abs(value) <= NUMBERS):
            raise gr.Error(f'{field.label} must be a number up to {NUMBERS:,}', print_exception=False)
        return own(value)

    field.preprocess = preprocess
    return field


def show_fields(choice):
    """Which of the slider, scale, height and width are shown for a `choice`."""
    # setting the value to None again shows the placeholder; otherwise there is a 0
    sizes = [gr.update(visible=choice == BY_SIZE, value=None) for _ in range(2)]
    return *(gr.update(visible=choice == BY_SCALE) for _ in range(2)), *sizes


def allow_only_uploads(photo, page):
    """Lets requests name only uploads to `page`, and EXAMPLES, for `photo`: Gradio's own field opens any path."""
    cache = Path(photo.GRADIO_CACHE).resolve()
    # when an example is chosen, Gradio copies it into its cache, under a name derived from its content
    examples = {os.path.abspath(save_file_to_cache(path, photo.GRADIO_CACHE)) for path in EXAMPLES.values()}

    def uploaded(data):
        if data is None:
            return None
        path = os.path.abspath(data.path or '')
        known = {*map(os.path.abspath, page.upload_file_set.copy()), *examples}
        if path not in known or cache not in Path(path).resolve().parents:
            raise gr.Error('this file was not uploaded here; upload it (again)', print_exception=False)
        return path

    photo.preprocess = uploaded


# Gradio looks for `progress` only among the positional parameters
def answer(model, cache, path, choice, scale, height, width, progress=gr.Progress(track_tqdm=True)):  # noqa: B008
    """What a request changes in the page: the slider's pictures, the text and the download; nothing if it is wrong.

    Results go into the folder `cache`, which Gradio cleans up.
    """
    try:
        pictures, text, target = upscale(model, path, choice, scale, height, width, cache)
    except UserError as error:
        message = str(error) if path is None else str(error).replace(path, Path(path).name)
        gr.Warning(message, duration=None)  # a gr.Error would cover the last result
        return gr.skip(), gr.skip(), gr.skip()
    return pictures, text, gr.DownloadButton(value=target, interactive=True)


def serve(args: argparse.Namespace) -> None:
    """What web_demo.py does with its options."""
    device = pick_device(args.gpu)
    model = load_pretrained(args.model).to(device)
    page = make_page(model, Path(args.model).stem)
    try:
        page.launch(server_name='127.0.0.1', server_port=args.port, share=False, ssr_mode=False, show_error=True,
                    quiet=True, prevent_thread_lock=True, max_file_size=FILE_BYTES, footer_links=[], css=CSS,
                    app_kwargs={'routes': Explore(model).routes()},
                    theme=gr.themes.Default(font=gr.themes.Font('system-ui')))
    except OSError as error:  # Gradio's own, with several lines
        raise UserError(f'--port: {args.port} is taken or not permitted; choose another') from error
    print(f'open {page.local_url}, or {page.local_url}explore to look around in a photo; Ctrl-C ends it', flush=True)
    page.block_thread()
