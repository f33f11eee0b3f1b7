"""web_demo.py, which serves its pages for all tests of them, and what operates these in a browser."""

import json
import shutil
import socket
import time
from pathlib import Path

import pytest
import specs
from photos import write_images
from processes import ended, fork

import models

SIZE = 60, 44  # width and height of the photo
# A company's proxies, none of which reaches this machine's own ports; for the last one httpx would need a package.
PROXIES = {'http_proxy': 'http://127.0.0.1:9', 'HTTPS_PROXY': 'http://127.0.0.1:9', 'ALL_PROXY': 'socks5://127.0.0.1:9',
           'no_proxy': '', 'NO_PROXY': ''}


@pytest.fixture(scope='session')
def web_folder(tmp_path_factory):
    """A folder with model.pth, a small A-LIIF, and photo.png, in which the server runs."""
    folder = tmp_path_factory.mktemp('web')
    specs.make_checkpoint(folder / 'model.pth', specs.pixel(residual='bilinear'))
    write_images(folder, ['photo.png'], SIZE)
    return folder


@pytest.fixture
def web_photo(web_folder, tmp_path):
    """A copy of the photo, in a folder where results may go."""
    return Path(shutil.copy(web_folder / 'photo.png', tmp_path))


@pytest.fixture(scope='session')
def web_model(web_folder):
    return models.load(web_folder / 'model.pth')


@pytest.fixture(scope='session')
def url(web_folder):
    """Where web_demo.py serves its pages, started with proxies in its environment, and none for this machine excluded.

    What it prints is in web_demo.log; uploads and results are in cache/.
    """
    pytest.importorskip('gradio', reason='Gradio is not installed (requirements-web.txt)')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    path = web_folder / 'web_demo.log'
    path.write_text('')
    args = '--model', 'model.pth', '--gpu', 'cpu', '--port', str(port)
    process = fork(web_folder, 'web_demo.py', *args, streams=(path.name, path.name),
                   environment={'GRADIO_TEMP_DIR': str(web_folder / 'cache'), **PROXIES})
    deadline = time.monotonic() + 120
    while 'open http' not in path.read_text():
        assert process.is_alive() and time.monotonic() < deadline, path.read_text()
        time.sleep(0.1)
    yield f'http://127.0.0.1:{port}/'
    process.terminate()
    ended(process)


@pytest.fixture(scope='session')
def chromium(tmp_path_factory):
    """Chromium, driven by selenium; without it the test is skipped."""
    if not (shutil.which('chromium') and shutil.which('chromedriver')):
        pytest.skip('chromium and chromedriver are not installed')
    webdriver = pytest.importorskip('selenium.webdriver')
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which('chromium')
    for flag in ('headless', 'no-sandbox', 'disable-gpu', 'disable-quic', 'no-first-run', 'disable-sync',
                 'disable-background-networking', 'disable-component-update', 'disable-dev-shm-usage',
                 'window-size=1280,900', f'user-data-dir={tmp_path_factory.mktemp("chromium")}'):
        options.add_argument(f'--{flag}')
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which('chromedriver')))
    yield driver
    driver.quit()


def visit(browser, address):
    """The browser, the page at `address` freshly loaded in it, and nothing noted of pages before."""
    for log in ('browser', 'performance'):
        browser.get_log(log)
    browser.get(address)
    return browser


def wait(browser, condition):
    """The first true value of `condition(browser)`; elements may go while it looks at them."""
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.support.ui import WebDriverWait
    return WebDriverWait(browser, 30, 0.1, [StaleElementReferenceException]).until(condition)


def element(browser, selector, text=''):
    """The element with `text` in it, once it is there."""
    return wait(browser, lambda browser: next(
        (e for e in browser.find_elements('css selector', selector) if text in e.text), None))


def requested(browser, url):
    """The addresses that pages below `url` have asked for since the last look."""
    events = [json.loads(entry['message'])['message'] for entry in browser.get_log('performance')]
    requests = [event['params'] for event in events if event['method'] == 'Network.requestWillBeSent']
    return [request['request']['url'] for request in requests if request['documentURL'].startswith(url)]
