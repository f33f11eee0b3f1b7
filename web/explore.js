// The Explore page. For each new view it at once scales the pictures that it already has, and requests the view itself
// from the server; if the model is slow, it requests a smaller version of the view first, to fill in what these lack.
'use strict';

const $ = id => document.getElementById(id);
const canvas = $('view'), context = canvas.getContext('2d');
const MODES = ['Model', 'Bicubic', 'Beside'];
const PAUSE = 60;         // ms without movement before a view is requested
const SOON = 250;         // ms in which the model should show something: for slower views a smaller one comes first
const DEEPEST = 1e5;      // screen pixels per pixel of the photo
const MOST_PIXELS = 9e6;  // limit of a view, the same as the server's

let photo = null;   // {id, file, width, height, resent: no view has been shown since the file was sent again}
let at = null;      // the view: {x, y} of its centre in the photo, and `scale`, screen pixels per pixel of the photo
let mode = 0;
let pictures = {};  // the latest 'base', 'model', 'bicubic': {image, box, key, now: it shows the present view}; and
                    // 'first', a smaller version of the view that the model still makes
let pending = null; // AbortController of the pending requests
let timer = null, opening = 0;
let pace = 1e-3;    // ms that the model took per pixel of its latest view; at first a guess

// --- geometry

const ratio = () => Math.min(devicePixelRatio || 1, Math.sqrt(MOST_PIXELS / (canvas.clientWidth * canvas.clientHeight)));
const fit = () => Math.min(canvas.width / photo.width, canvas.height / photo.height);
const toScreen = ([x, y]) => [(x - at.x) * at.scale + canvas.width / 2, (y - at.y) * at.scale + canvas.height / 2];
const toPhoto = ([x, y]) => [(x - canvas.width / 2) / at.scale + at.x, (y - canvas.height / 2) / at.scale + at.y];
const clamp = (x, least, most) => Math.min(Math.max(x, least), most);

function move(x, y, scale) {
  const limit = Math.min(fit(), 1);
  at = {x: clamp(x, 0, photo.width), y: clamp(y, 0, photo.height), scale: clamp(scale, limit, DEEPEST)};
  draw();
  ask();
}

const whole = () => move(photo.width / 2, photo.height / 2, fit());
const pan = (dx, dy) => move(at.x - dx / at.scale, at.y - dy / at.scale, at.scale);

function zoom(factor, point = [canvas.width / 2, canvas.height / 2]) {  // the point stays where it is
  const [x, y] = toPhoto(point);
  const scale = clamp(at.scale * factor, Math.min(fit(), 1), DEEPEST);
  move(x - (point[0] - canvas.width / 2) / scale, y - (point[1] - canvas.height / 2) / scale, scale);
}

function visible() {  // the visible part of the photo: its box, and its size on the screen in whole pixels
  const [left, top] = toScreen([0, 0]).map((n, i) => clamp(Math.floor(n), 0, [canvas.width, canvas.height][i] - 1));
  const [right, bottom] = toScreen([photo.width, photo.height]).map(
    (n, i) => clamp(Math.ceil(n), [left, top][i] + 1, [canvas.width, canvas.height][i]));
  const box = [...toPhoto([left, top]), ...toPhoto([right, bottom])];
  return {box: box.map((n, i) => clamp(n, 0, i % 2 ? photo.height : photo.width)), size: [right - left, bottom - top]};
}

// --- drawing

const fineness = ({image, box}) => image.width / (box[2] - box[0]);  // its pixels per pixel of the photo

function paint(picture) {
  if (!picture) return;
  const [left, top] = toScreen(picture.box.slice(0, 2)), [right, bottom] = toScreen(picture.box.slice(2));
  context.imageSmoothingEnabled = !picture.now;
  context.imageSmoothingQuality = 'high';
  if (picture.now) context.drawImage(picture.image, Math.round(left), Math.round(top));
  else context.drawImage(picture.image, left, top, right - left, bottom - top);
}

function draw() {
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (!photo) return;
  for (const name of ['model', 'bicubic'])
    if (pictures[name]) pictures[name].now = pictures[name].key === keyOf(visible());
  const half = Math.round(canvas.width / 2);
  paint(pictures.base);
  const byModel = [pictures.first, pictures.model].filter(Boolean);
  if (mode !== 1) byModel.sort((a, b) => fineness(a) - fineness(b)).forEach(paint);  // what is sharp stays in sight
  if (mode === 1) paint(pictures.bicubic);
  if (mode === 2) {
    context.save();
    context.beginPath();
    context.rect(0, 0, half, canvas.height);
    context.clip();
    context.clearRect(0, 0, half, canvas.height);
    paint(pictures.base);
    paint(pictures.bicubic);
    context.restore();
    context.fillStyle = '#fff';
    context.fillRect(half - 1, 0, 2, canvas.height);
  }
}

function resize() {
  canvas.width = Math.max(1, Math.floor(canvas.clientWidth * ratio()));  // rounding up may exceed the limit
  canvas.height = Math.max(1, Math.floor(canvas.clientHeight * ratio()));
  if (photo) move(at.x, at.y, at.scale);
}

// --- the server

async function get(url, options) {
  const response = await fetch(url, options).catch(error => {
    throw error.name === 'AbortError' ? error : new Error('The server does not answer.');
  });
  if (response.ok) return response;
  const answer = await response.json().catch(() => ({}));
  throw Object.assign(new Error(answer.error || `the server answers ${response.status}`), {status: response.status});
}

const send = async file => (await get(`explore/photos?name=${encodeURIComponent(file.name ?? '')}`,
                                      {method: 'POST', body: file})).json();

const keyOf = ({box, size}) => `${box} ${size}`;

async function receive(by, {box, size}, signal) {
  const url = `explore/photos/${photo.id}/view?box=${box}&size=${size}&by=${by}`;
  const image = await createImageBitmap(await (await get(url, {signal})).blob());
  return {image, box, key: keyOf({box, size})};
}

function sizes(kind, {box, size}) {  // the sizes in which to request a view, one after the other
  const factor = Math.min(Math.sqrt(size[0] * size[1] * pace / SOON), at.scale / 2);
  if (kind !== 'model' || factor <= 1.5 || finer(pictures.model, box, at.scale / factor)) return [size];
  return [size.map(n => Math.ceil(n / factor)), size];
}

const finer = (picture, box, than) => picture && fineness(picture) >= than &&
  box.every((n, i) => i < 2 ? n >= picture.box[i] : n <= picture.box[i]);  // nothing of the box is outside

function ask() {
  pending?.abort();
  clearTimeout(timer);
  $('status').textContent = describe();
  timer = setTimeout(view, PAUSE);
}

const describe = () => {
  const [left, top, right, bottom] = visible().box, side = n => n < 10 ? n.toPrecision(2) : Math.round(n);
  return `×${Number(at.scale.toPrecision(3))} · ${side(right - left)} × ${side(bottom - top)} of ` +
    `${photo.width} × ${photo.height} pixels`;
};

async function view() {
  if (!photo.id) return;  // the file is being sent again
  const {signal} = pending = new AbortController(), start = performance.now(), target = visible();
  const reduced = at.scale < 1;  // no detail to add, but much to average
  const kinds = [...(mode === 1 ? [] : ['model']), ...(mode === 0 ? [] : ['bicubic'])];
  $('status').textContent = `${describe()} · …`;
  try {
    await Promise.all(kinds.map(async kind => {
      let begin;
      for (const size of sizes(kind, target)) {
        begin = performance.now();
        const picture = await receive(reduced ? 'bicubic' : kind, {...target, size}, signal);
        if (signal.aborted) return;
        if (kind === 'model') pictures.first = size === target.size ? null : picture;
        if (size === target.size) pictures[kind] = picture;
        draw();
      }
      if (kind === 'model' && !reduced) pace = (performance.now() - begin) / (target.size[0] * target.size[1]);
    }));
    if (signal.aborted) return;
    photo.resent = false;
    $('error').hidden = true;
    $('status').textContent = `${describe()} · ${((performance.now() - start) / 1000).toFixed(2)} s`;
    $('spoken').textContent = describe();
    document.body.dataset.shown = target.box;
  } catch (error) {
    if (signal.aborted || error.status === 409) return;
    if (error.status === 404 && !photo.resent) return again(photo);
    fail(error);
  }
}

async function again(lost) {  // the server has forgotten the photo
  const {id} = lost;
  lost.id = null;
  try {
    Object.assign(lost, {id: (await send(lost.file)).id, resent: true});
    if (photo === lost) ask();
  } catch (error) {
    lost.id = id;  // the next movement tries it once more
    if (photo === lost) fail(error);
  }
}

async function open(file) {
  const turn = ++opening;
  $('status').textContent = 'Opening …';
  try {
    const opened = await send(file);
    if (turn !== opening) return;
    pending?.abort();
    photo = {...opened, file};
    pictures = {};
    $('welcome').hidden = $('error').hidden = true;
    for (const name of ['in', 'out', 'whole', 'mode']) $(name).disabled = false;
    whole();
    canvas.focus();
    pictures.base = await receive('bicubic', visible());
    draw();
  } catch (error) { if (turn === opening) fail(error); }
}

function fail(error) {  // keeps what is shown
  $('error').textContent = error.message;
  $('error').hidden = false;
  $('status').textContent = photo ? describe() : '';
}

// --- user input

function next() {
  mode = (mode + 1) % MODES.length;
  $('mode').textContent = MODES[mode];
  $('left').hidden = mode === 0;
  $('left').textContent = 'bicubic';
  $('right').hidden = mode !== 2;
  $('right').textContent = 'model';
  move(at.x, at.y, at.scale);
}

const point = event => {
  const box = canvas.getBoundingClientRect(), factor = canvas.width / box.width;
  return [(event.clientX - box.left) * factor, (event.clientY - box.top) * factor];
};
const held = new Map();  // the points of all pointers that are down
const middle = points => [0, 1].map(i => points.reduce((sum, p) => sum + p[i], 0) / points.length);
const spread = ([a, b]) => b ? Math.hypot(a[0] - b[0], a[1] - b[1]) : 1;

canvas.addEventListener('pointerdown', event => {
  if (event.button > 0) return;
  canvas.setPointerCapture(event.pointerId);
  held.set(event.pointerId, point(event));
  canvas.classList.add('held');
});
canvas.addEventListener('pointermove', event => {
  if (!photo || !held.has(event.pointerId)) return;
  const before = [...held.values()];
  held.set(event.pointerId, point(event));
  const now = [...held.values()], from = middle(before), to = middle(now);
  pan(to[0] - from[0], to[1] - from[1]);
  if (now.length === 2) zoom(spread(now) / Math.max(1, spread(before)), to);
});
for (const name of ['pointerup', 'pointercancel']) canvas.addEventListener(name, event => {
  held.delete(event.pointerId);
  if (!held.size) canvas.classList.remove('held');
});
canvas.addEventListener('wheel', event => {
  event.preventDefault();
  const lines = [1, 16, canvas.clientHeight][event.deltaMode];
  if (photo) zoom(Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.0015)), point(event));
}, {passive: false});
canvas.addEventListener('dblclick', event => photo && zoom(2, point(event)));

document.addEventListener('keydown', event => {
  if (!photo || event.ctrlKey || event.metaKey || event.altKey || event.target.matches('input')) return;
  const step = Math.min(canvas.width, canvas.height) / 6;
  const act = {ArrowLeft: () => pan(step, 0), ArrowRight: () => pan(-step, 0), ArrowUp: () => pan(0, step),
               ArrowDown: () => pan(0, -step), '+': () => zoom(1.5), '=': () => zoom(1.5), '-': () => zoom(1 / 1.5),
               0: whole, b: next, B: next}[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});
$('in').onclick = () => zoom(2);
$('out').onclick = () => zoom(0.5);
$('whole').onclick = whole;
$('mode').onclick = next;
$('file').onchange = event => { if (event.target.files[0]) open(event.target.files[0]); event.target.value = ''; };
document.addEventListener('dragover', event => event.preventDefault());
document.addEventListener('drop', event => {
  event.preventDefault();
  if (event.dataTransfer.files[0]) open(event.dataTransfer.files[0]);
});
document.addEventListener('paste', event => event.clipboardData.files[0] && open(event.clipboardData.files[0]));
new ResizeObserver(resize).observe(canvas);

(async () => {
  for (const name of await (await get('explore/examples')).json()) {
    const button = document.createElement('button'), image = new Image();
    image.src = `explore/examples/${name}`;
    image.alt = `example: ${name}`;
    button.append(image);
    button.onclick = () => get(image.src).then(async response => open(await response.blob())).catch(fail);
    $('examples').append(button);
  }
})().catch(fail);
