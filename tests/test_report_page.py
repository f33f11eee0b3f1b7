"""The page that test.py --report writes, in a browser without a network."""

import json
import re

import pytest
from web_server import visit

pytestmark = pytest.mark.slow  # all of them together, as all that drive a browser


@pytest.fixture
def browser(chromium, report_folder):
    return visit(chromium, (report_folder / 'out' / 'index.html').as_uri())


def elements(parent, selector):
    return parent.find_elements('css selector', selector)


def send(element, *keys):
    from selenium.webdriver.common.keys import Keys
    element.send_keys(*(getattr(Keys, key, key) for key in keys))


def clip(layer):
    """How many percent of a picture are cut off at the left."""
    return float(re.search(r'([\d.]+)%', layer.value_of_css_property('clip-path').split()[-1])[1])


def views(browser):
    """Which part of its picture each image shows: left, top and width, in widths of what is shown."""
    return [tuple(round(n, 4) for n in view) for view in browser.execute_script('''
        return [...document.querySelectorAll('.viewer img')].map(image => {
          const all = image.getBoundingClientRect(), seen = image.closest('.viewer').getBoundingClientRect()
          return [(seen.x - all.x) / seen.width, (seen.y - all.y) / seen.height, all.width / seen.width]
        })''')]


def test_it_loads_without_a_console_message_or_a_request(browser):
    assert all(browser.execute_script('return [...document.images].map(image => image.naturalWidth > 0)'))
    assert browser.get_log('browser') == []
    events = [json.loads(entry['message'])['message'] for entry in browser.get_log('performance')]
    requests = [event['params'] for event in events if event['method'] == 'Network.requestWillBeSent']
    urls = {request['request']['url'] for request in requests if request['documentURL'] == browser.current_url}
    assert {url for url in urls if not url.startswith('data:')} == {browser.current_url}


def test_a_handle_moves_the_cut_between_two_pictures(browser):
    viewer = elements(browser, '.viewer')[0]
    (_, ours, truth), (handle, _) = elements(viewer, '.layer'), elements(viewer, '.handle')
    assert (clip(ours), clip(truth)) == pytest.approx((33.5, 66.5), abs=1)
    send(handle, *['ARROW_RIGHT'] * 10)
    assert (clip(ours), clip(truth)) == pytest.approx((38.5, 66.5), abs=1)


def test_a_handle_is_dragged_to_where_the_pointer_is(browser):
    from selenium.webdriver.common.action_chains import ActionChains
    viewer = elements(browser, '.viewer')[0]
    width, truth = viewer.size['width'], elements(viewer, '.layer')[2]
    browser.execute_script('arguments[0].scrollIntoView()', viewer)
    ActionChains(browser).move_to_element_with_offset(viewer, round(width / 6), 0).click_and_hold() \
        .move_by_offset(round(width / 4), 0).release().perform()
    assert clip(truth) == pytest.approx(100 * (1 / 2 + 1 / 6 + 1 / 4), abs=2)


def test_a_handle_pushes_the_other_one_before_it(browser):
    viewer = elements(browser, '.viewer')[0]
    (_, ours, truth), (handle, _) = elements(viewer, '.layer'), elements(viewer, '.handle')
    send(handle, 'END')
    assert (clip(ours), clip(truth)) == (100, 100)


def test_zoom_is_the_same_for_all_pictures_of_an_image_and_leaves_others_alone(browser):
    assert set(views(browser)) == {(0, 0, 1)}
    send(elements(browser, '.zoom')[0], *['ARROW_RIGHT'] * 2)  # half a step each: twice the size
    first, others = views(browser)[:6], views(browser)[6:]  # two scales of three pictures
    assert set(first) == {(0.5, 0.5, 2)} and set(others) == {(0, 0, 1)}


def test_a_double_click_zooms_in_where_it_is_and_the_next_one_out(browser):
    from selenium.webdriver.common.action_chains import ActionChains
    viewer = elements(browser, '.viewer')[1]
    browser.execute_script('arguments[0].scrollIntoView()', viewer)
    at = round(-0.4 * viewer.size['width'])
    ActionChains(browser).move_to_element_with_offset(viewer, at, 0).double_click().perform()
    left, top, width = views(browser)[0]
    assert width == 4 and left == pytest.approx((0.5 + at / viewer.size['width']) * 3, abs=0.02)
    assert len(set(views(browser)[:6])) == 1
    ActionChains(browser).move_to_element_with_offset(viewer, at, 0).double_click().perform()
    assert set(views(browser)) == {(0, 0, 1)}


def test_a_zoomed_picture_is_moved_by_dragging_and_by_keys_up_to_its_border(browser):
    from selenium.webdriver.common.action_chains import ActionChains
    viewer = elements(browser, '.viewer')[0]
    browser.execute_script('arguments[0].scrollIntoView()', viewer)
    send(viewer, '+', '+')
    left, top, width = views(browser)[0]
    ActionChains(browser).move_to_element(viewer).click_and_hold().move_by_offset(30, 0).release().perform()
    dragged = views(browser)[0]
    assert dragged == pytest.approx((left - 30 / viewer.size['width'], top, width), abs=0.01)
    send(viewer, *['ARROW_UP'] * 30)
    assert views(browser)[0] == pytest.approx((dragged[0], 0, width), abs=0.01)
    assert len(set(views(browser)[:6])) == 1


@pytest.mark.parametrize('name, column, key', [('images', 0, str), ('images', 4, float), ('images', 5, float),
                                               ('sets', 1, float)])
def test_a_click_on_a_heading_sorts_and_the_next_one_sorts_backwards(browser, name, column, key):
    heading = elements(browser, f'#{name} thead th')[column]

    def shown():
        return [key(row.text) for row in elements(browser, f'#{name} tbody tr > :nth-child({column + 1})')]

    send(elements(heading, 'button')[0], 'ENTER')
    assert shown() == sorted(shown()) and heading.get_attribute('aria-sort') == 'ascending'
    ascending = shown()
    send(elements(heading, 'button')[0], 'ENTER')
    assert shown() == ascending[::-1] and heading.get_attribute('aria-sort') == 'descending'
    assert len(elements(browser, f'#{name} [aria-sort]')) == 1


def test_a_phone_needs_no_sideways_scrolling(browser):
    browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride',
                            {'width': 360, 'height': 740, 'deviceScaleFactor': 2, 'mobile': True})
    assert browser.execute_script('return document.documentElement.scrollWidth') == 360
    browser.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})


def test_it_follows_the_systems_dark_theme(browser):
    def brightness():
        color = elements(browser, 'body')[0].value_of_css_property('background-color')
        return sum(map(int, re.findall(r'\d+', color)[:3])) / 3

    shades = {}
    for theme in ('light', 'dark'):
        browser.execute_cdp_cmd('Emulation.setEmulatedMedia',
                                {'features': [{'name': 'prefers-color-scheme', 'value': theme}]})
        shades[theme] = brightness()
    assert shades['light'] > 200 and shades['dark'] < 60
