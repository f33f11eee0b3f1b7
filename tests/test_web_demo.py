"""The page of web_demo.py in a browser without a network."""

import re

import numpy as np
import pytest
from PIL import Image
from web_server import element, requested, visit, wait

from models import upscale_pil

pytestmark = pytest.mark.slow  # all of them together, as all that drive a browser

CLEAR = 'button[aria-label="Remove Image"], button[aria-label="Clear"]'  # it has both names, by Gradio's version


@pytest.fixture
def browser(chromium, url):
    """Chromium, the page freshly loaded in it."""
    element(visit(chromium, url), 'input[type=file]')
    return chromium


def slider(browser):
    return browser.find_elements('css selector', '[data-testid=imageslider-image]')


def upload(browser, path):
    element(browser, 'input[type=file]').send_keys(str(path))
    wait(browser, lambda browser: browser.find_elements('css selector', CLEAR))


def make(browser, path):
    """Has the photo in the file `path` upscaled; returns the slider's pictures."""
    upload(browser, path)
    element(browser, 'button', 'Upscale').click()
    return wait(browser, slider)


def choose_width(browser, width):
    """Chooses a size in place of the scale, and enters its width."""
    element(browser, 'label', 'Size').click()
    wait(browser, lambda browser: not browser.find_elements('css selector', 'input[type=range]'))
    element(browser, 'label', 'Width').find_element('css selector', 'input').send_keys(width)


def message(browser):
    """The text of the error that the page shows."""
    return wait(browser, lambda browser: element(browser, '[data-testid=toast-body]').text)  # it fades in


def test_it_loads_without_an_error_or_a_request_to_other_machines(browser, url):
    assert [entry for entry in browser.get_log('browser') if entry['level'] == 'SEVERE'] == []
    urls = requested(browser, url)
    assert url in urls
    assert all(u.startswith((url, 'data:', 'blob:')) for u in urls)


def test_an_uploaded_photo_is_upscaled_and_compared(browser, web_photo):
    images = make(browser, web_photo)
    assert '60x44 → 120x88 pixels' in element(browser, 'body', '→').text
    wait(browser, lambda browser: all(int(image.get_property('naturalWidth')) == 120 for image in images))


def test_the_slider_moves_the_cut_between_the_pictures(browser, web_photo):
    from selenium.webdriver.common.action_chains import ActionChains
    left, right = make(browser, web_photo)
    handle, width = element(browser, '[data-testid=slider] .inner'), left.size['width']

    def cut():
        return float(re.search(r'([\d.]+)%\)', right.get_attribute('style'))[1])

    wait(browser, lambda browser: cut() == pytest.approx(50, abs=1))
    ActionChains(browser).drag_and_drop_by_offset(handle, round(width / 4), 0).perform()
    wait(browser, lambda browser: cut() == pytest.approx(75, abs=3))


def test_the_result_is_downloaded_as_png(browser, web_model, web_photo, tmp_path):
    browser.execute_cdp_cmd('Browser.setDownloadBehavior', {'behavior': 'allow', 'downloadPath': str(tmp_path)})
    make(browser, web_photo)
    wait(browser, lambda browser: element(browser, 'button', 'Download PNG').is_enabled())
    element(browser, 'button', 'Download PNG').click()
    result = tmp_path / 'photo-120x88.png'
    wait(browser, lambda browser: result.exists())
    expected = upscale_pil(web_model, Image.open(web_photo), scale=2)
    assert np.array_equal(np.asarray(Image.open(result)), np.asarray(expected))


def test_with_a_size_chosen_height_and_width_are_asked_for_in_place_of_the_scale(browser, web_photo):
    upload(browser, web_photo)
    choose_width(browser, 150)
    assert element(browser, 'label', 'Height').find_element('css selector', 'input').get_property('value') == ''
    element(browser, 'button', 'Upscale').click()
    assert '60x44 → 150x110 pixels' in element(browser, 'body', '→').text


def test_while_a_large_result_is_made_the_page_shows_how_far_it_is(browser, web_photo):
    upload(browser, web_photo)
    choose_width(browser, 1500)
    element(browser, 'button', 'Upscale').click()
    wait(browser, lambda browser: re.search(r'\b\d+\.\d%', browser.find_element('css selector', 'body').text))
    wait(browser, slider)


def test_a_photo_that_is_too_large_is_refused_by_a_message_and_the_page_works_on(browser, web_photo, tmp_path):
    Image.new('L', (5000, 3000)).save(tmp_path / 'large.png')
    upload(browser, tmp_path / 'large.png')
    element(browser, 'button', 'Upscale').click()
    assert 'the result has 10000x6000 pixels, and this page makes up to 50 million' in message(browser)
    element(browser, CLEAR).click()
    make(browser, web_photo)


def test_a_file_that_is_no_image_is_refused_by_a_message(browser, tmp_path):
    (tmp_path / 'broken.png').write_bytes(b'no image')
    upload(browser, tmp_path / 'broken.png')
    element(browser, 'button', 'Upscale').click()
    assert 'broken.png: cannot be read as an image (its content is none of' in message(browser)


def test_after_an_error_the_last_result_is_still_there(browser, web_photo):
    make(browser, web_photo)
    number = element(browser, 'label', 'Any scale').find_element('css selector', 'input')
    number.send_keys('000')  # 2000
    element(browser, 'button', 'Upscale').click()
    assert '120000x88000 pixels, and this page makes up to 50 million' in message(browser)
    assert all(image.is_displayed() for image in slider(browser)) and len(slider(browser)) == 2
    assert element(browser, 'button', 'Download PNG').is_enabled()


def test_a_scale_beyond_the_sliders_end_can_be_entered_as_a_number(browser, tmp_path):
    Image.new('RGB', (20, 16)).save(tmp_path / 'small.png')
    upload(browser, tmp_path / 'small.png')
    number = element(browser, 'label', 'Any scale').find_element('css selector', 'input')
    number.send_keys('\b31.5')
    element(browser, 'button', 'Upscale').click()
    assert '20x16 → 630x504 pixels' in element(browser, 'body', '→').text


def test_the_slider_sets_the_scale_up_to_30(browser):
    from selenium.webdriver.common.keys import Keys
    element(browser, 'input[type=range]').send_keys(Keys.END)
    number = element(browser, 'label', 'Any scale').find_element('css selector', 'input')
    wait(browser, lambda browser: number.get_property('value') == '30')


def test_an_example_is_upscaled_like_an_upload(browser):
    wait(browser, lambda browser: browser.find_elements('css selector', '.gallery-item'))[0].click()
    wait(browser, lambda browser: browser.find_elements('css selector', CLEAR))
    element(browser, 'button', 'Upscale').click()
    assert '451x300 → 902x600 pixels' in element(browser, 'body', '→').text


def test_the_page_leads_to_explore(browser, url):
    assert element(browser, 'a', 'Explore').get_property('href') == f'{url}explore'
