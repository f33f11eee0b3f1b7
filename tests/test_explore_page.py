"""The Explore page in a browser: how one looks around in a photo."""

import re

import pytest
from web_server import element, requested, visit, wait

pytestmark = pytest.mark.slow  # all of them together, as all that drive a browser


@pytest.fixture
def browser(chromium, url, web_photo):
    """Chromium, the photo open in the page."""
    visit(chromium, f'{url}explore')
    element(chromium, '#file').send_keys(str(web_photo))
    box(chromium)
    return chromium


def box(browser, other_than=None):
    """The part of the photo that is shown, sharp, once it is another."""
    def shown(browser):
        value = browser.find_element('css selector', 'body').get_attribute('data-shown')
        settled = browser.find_element('id', 'status').text.endswith(' s')
        return settled and value and [float(x) for x in value.split(',')]

    return wait(browser, lambda browser: (now := shown(browser)) and now != other_than and now)


def act(browser):
    from selenium.webdriver.common.action_chains import ActionChains
    return ActionChains(browser), browser.find_element('id', 'view')


def wheel(browser, delta, x=0, y=0):
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
    chain, canvas = act(browser)
    chain.scroll_from_origin(ScrollOrigin.from_element(canvas, x, y), 0, delta).perform()


def test_a_photo_that_is_opened_is_shown_whole(browser):
    assert box(browser) == [0, 0, 60, 44]


def test_the_wheel_zooms_into_the_point_under_it(browser):
    before = box(browser)
    wheel(browser, -600)
    left, top, right, bottom = box(browser, before)
    assert right - left < 40 and bottom - top < 30
    assert (left + right) / 2 == pytest.approx(30, abs=0.2) and (top + bottom) / 2 == pytest.approx(22, abs=0.2)


def test_dragging_moves_the_photo_with_the_pointer(browser):
    wheel(browser, -1000)
    before = box(browser, [0, 0, 60, 44])
    chain, canvas = act(browser)
    scale = canvas.size['width'] / (before[2] - before[0])
    chain.drag_and_drop_by_offset(canvas, 120, -60).perform()
    after = box(browser, before)
    assert after[0] - before[0] == pytest.approx(-120 / scale, abs=0.1)
    assert after[1] - before[1] == pytest.approx(60 / scale, abs=0.1)


def test_two_fingers_zoom(browser):
    before = box(browser)
    area = browser.find_element('id', 'view').rect
    x, y = area['x'] + area['width'] / 2, area['y'] + area['height'] / 2

    def touch(kind, apart):
        points = [] if apart is None else [{'x': x - apart, 'y': y, 'id': 0}, {'x': x + apart, 'y': y, 'id': 1}]
        browser.execute_cdp_cmd('Input.dispatchTouchEvent', {'type': kind, 'touchPoints': points})

    touch('touchStart', 50)
    for apart in (70, 100, 150):
        touch('touchMove', apart)
    touch('touchEnd', None)
    after = box(browser, before)
    assert after[3] - after[1] == pytest.approx((before[3] - before[1]) / 3, rel=0.15)


def test_keys_zoom_move_and_go_back_to_the_whole(browser):
    body, whole = browser.find_element('css selector', 'body'), box(browser)
    body.send_keys('+++++')
    near = box(browser, whole)
    from selenium.webdriver.common.keys import Keys
    body.send_keys(Keys.ARROW_RIGHT)
    moved = box(browser, near)
    assert moved[0] > near[0] and moved[1] == pytest.approx(near[1])
    body.send_keys('0')
    assert box(browser, moved) == whole


def test_b_shows_bicubic_interpolation_instead_then_beside(browser):
    body = browser.find_element('css selector', 'body')
    tags = [browser.find_element('id', name) for name in ('left', 'right')]
    for expected in ([True, False], [True, True], [False, False]):
        body.send_keys('b')
        wait(browser, lambda browser, expected=expected: [tag.is_displayed() for tag in tags] == expected)


def nearer(browser):
    """The part of the photo that is shown after zooming in."""
    whole = box(browser)
    browser.find_element('css selector', 'body').send_keys('+++')
    return box(browser, whole)


def sizes_asked_for(browser, url, milliseconds, key='-'):
    """Width and height of what `key` requests if the model is expected to spend `milliseconds` on a view."""
    body, screen = browser.find_element('css selector', 'body'), browser.find_element('id', 'view').size
    width, height = screen['width'], screen['height']
    before = nearer(browser)
    browser.get_log('performance')
    browser.execute_script(f'pace = {milliseconds / (width * height)}')
    body.send_keys(key)
    box(browser, before)
    asked = [re.search(r'size=(\d+),(\d+)&by=model', address).groups() for address in requested(browser, url)]
    return [tuple(map(int, size)) for size in asked], (width, height)


def test_a_view_is_one_request_at_the_resolution_of_the_screen(browser, url):
    asked, screen = sizes_asked_for(browser, url, 100)
    assert asked == [screen]


def test_where_the_model_takes_long_a_smaller_view_that_takes_a_quarter_of_a_second_comes_first(browser, url):
    (first, second), screen = sizes_asked_for(browser, url, 2250)
    assert second == screen and first == pytest.approx([n / 3 for n in screen], abs=1)


def test_no_smaller_view_is_requested_where_the_one_before_shows_all_of_it_finer(browser, url):
    asked, screen = sizes_asked_for(browser, url, 2250, key='+')
    assert asked == [screen]


def test_what_was_sharp_stays_sharp_when_a_smaller_view_fills_in_what_a_drag_uncovers(browser):
    nearer(browser)
    look = 'return [...context.getImageData(arguments[0], 200, 100, 100).data]'
    before = browser.execute_script(look, 300)
    browser.execute_script('''
        pace = 1;
        window.real = window.fetch;
        window.fetch = (url, options) => url.includes(`size=${canvas.width},`) ? new Promise(() => {})
                                                                               : window.real(url, options);
        pan(100, 0);''')
    wait(browser, lambda browser: browser.execute_script('return pictures.first'))
    after = browser.execute_script(look, 400)
    browser.execute_script('window.fetch = window.real')
    assert max(abs(a - b) for a, b in zip(before, after, strict=True)) <= 2


@pytest.mark.parametrize('width', [360, 400])
def test_on_a_phone_header_and_footer_have_one_line_each_in_every_mode(browser, width):
    browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', {
        'width': width, 'height': 700, 'deviceScaleFactor': 1, 'mobile': True})
    try:
        wait(browser, lambda browser: browser.find_element('id', 'view').size['width'] == width)
        for _ in range(3):
            browser.find_element('id', 'mode').click()
            controls = browser.find_elements('css selector', 'header > *')
            assert len({control.rect['y'] + control.size['height'] / 2 for control in controls}) == 1
            assert all(control.rect['x'] + control.size['width'] <= width for control in controls)
            assert browser.find_element('css selector', 'footer').size['height'] < 40
    finally:
        browser.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})


def test_a_file_that_is_no_image_is_told_and_the_photo_stays(browser, tmp_path):
    (tmp_path / 'broken.png').write_bytes(b'no image')
    element(browser, '#file').send_keys(str(tmp_path / 'broken.png'))
    assert 'the file: cannot be read as an image' in element(browser, '#error', 'image').text
    before = box_now(browser)
    wheel(browser, -600)
    assert box(browser, before) != before


def test_a_photo_that_the_server_has_forgotten_is_sent_again(browser):
    before = box(browser)
    browser.execute_script('photo.id = "forgotten"')
    browser.find_element('css selector', 'body').send_keys('+')
    assert box(browser, before) != before


def test_a_photo_that_the_server_forgets_at_once_is_sent_again_only_once(browser):
    browser.execute_script('''
        window.real = window.fetch;
        window.sent = 0;
        window.fetch = (url, options) => {
            if (url.includes('/view?'))
                return Promise.resolve(new Response('{"error": "not here any more"}', {status: 404}));
            window.sent += 1;
            return window.real(url, options);
        };''')
    browser.find_element('css selector', 'body').send_keys('+')
    assert element(browser, '#error', 'not here any more')
    assert browser.execute_script('window.fetch = window.real; return window.sent') == 1


def box_now(browser):
    return [float(x) for x in browser.find_element('css selector', 'body').get_attribute('data-shown').split(',')]


def test_the_page_says_nothing_on_the_console_and_asks_no_other_machine(browser, url):
    wheel(browser, -600)
    box(browser, [0, 0, 60, 44])
    assert browser.get_log('browser') == []
    urls = requested(browser, url)
    assert urls and all(u.startswith((url, 'data:', 'blob:')) for u in urls)
