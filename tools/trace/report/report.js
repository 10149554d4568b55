'use strict';
// Draws the page from the traces in #data. One moment (a sample of the shown run) is shown everywhere.

const runs = JSON.parse(document.getElementById('data').textContent);
const byId = (id) => document.getElementById(id);
const LEVELS = 15;      // Held: all lists hold a position
const LEFT = 62, RIGHT = 12;  // of a panel's plot
const state = { run: 0, axis: 'ms', at: 0 };

// ---- Data --------------------------------------------------------------------------------------------------------

function bytesOf(base64) {
  const text = atob(base64), out = new Uint8Array(text.length);
  for (let i = 0; i < text.length; ++i) out[i] = text.charCodeAt(i);
  return out;
}

// Runs of one level, as {level, begin, end}, from Held.runs (schema/trace.fbs).
function decodeRuns(bytes) {
  const out = [];
  let begin = 0;
  for (let at = 0; at < bytes.length;) {
    const level = bytes[at] >> 4;
    let length = bytes[at++] & 15;
    for (let scale = 1, more = length === 0; more; scale *= 128) {
      more = bytes[at] > 127;
      length += (bytes[at++] & 127) * scale;
    }
    out.push({ level, begin, end: begin + length });
    begin += length;
  }
  return out;
}

// A series that never changes came as one number.
for (const run of runs) {
  const s = run.samples, all = (v) => Array.isArray(v) ? v : Array(s.count).fill(v);
  for (const key of Object.keys(s)) {
    if (key === 'tags') s.tags = s.tags.map(all);
    else if (key !== 'count') s[key] = all(s[key]);
  }
  s.private = s.anonymous.map((bytes, i) => bytes + s.swapped[i]);
  for (const picture of run.held) picture.runs = decodeRuns(bytesOf(picture.runs));
  // Tags by size at the peak; the small ones are one.
  const order = run.tag_names.map((_, tag) => tag).sort((a, b) => run.totals.peak_tags[b] - run.totals.peak_tags[a]);
  run.bands = order.slice(0, 6).map((tag, i) => ({ name: run.tag_names[tag], tags: [tag], colour: `var(--t${i})` }));
  if (order.length > 6) run.bands.push({ name: 'other', tags: order.slice(6), colour: 'var(--t6)' });
  for (const band of run.bands) band.values = s.ms.map((_, i) => band.tags.reduce((sum, tag) => sum + s.tags[tag][i], 0));
}

const last = (list) => list[list.length - 1];
// The last of `list` (with .ms, in order) at or before `ms`; undefined when there is none.
function latest(list, ms) {
  let low = 0, high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle].ms <= ms) low = middle + 1; else high = middle;
  }
  return list[low - 1];
}

// Runs at a moment: the last picture, and whole what came after it.
function runsAt(run, i) {
  const picture = latest(run.held, run.samples.ms[i]), position = run.samples.position[i];
  const out = picture ? picture.runs.filter((r) => r.begin < position) : [];
  const end = out.length ? last(out).end : 0;
  if (end < position) out.push({ level: LEVELS, begin: end, end: position });
  return out;
}
function remembered(run, i) {
  let held = 0, gone = 0;
  for (const r of runsAt(run, i)) {
    held += r.level / LEVELS * (r.end - r.begin);
    if (r.level === 0) gone += r.end - r.begin;
  }
  return { share: held / Math.max(run.samples.position[i], 1), gone };
}

// ---- Words -------------------------------------------------------------------------------------------------------

const count = (n) => Math.round(n).toLocaleString('en-US');
const percent = (x) => `${(100 * x).toFixed(100 * x < 10 ? 1 : 0)} %`;
function bytes(n) {
  const magnitude = Math.abs(n);
  if (magnitude >= 1 << 30) return `${(n / (1 << 30)).toFixed(2)} GiB`;
  if (magnitude >= 1 << 20) return `${(n / (1 << 20)).toFixed(magnitude < 100 << 20 ? 2 : 1)} MiB`;
  return magnitude >= 1024 ? `${(n / 1024).toFixed(1)} KiB` : `${n} B`;
}
function clock(ms) {
  const s = ms / 1000;
  if (s < 60) return `${s.toFixed(s < 10 ? 1 : 0)} s`;
  const rest = Math.floor(s % 60), minutes = Math.floor(s / 60);
  return minutes < 60 ? `${minutes}:${String(rest).padStart(2, '0')} min` : `${(s / 3600).toFixed(1)} h`;
}
const rate = (perSecond) => perSecond === null || perSecond === undefined ? '–' : perSecond.toFixed(1);
const escape = (text) => text.replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c]);

// ---- Summary -----------------------------------------------------------------------------------------------------

const rows = [
  ['Cap', (r) => r.totals.cap, bytes],
  ['Peak private memory', (r) => r.totals.private_peak, bytes],
  ['Peak of the ledger', (r) => r.totals.ledger_peak, bytes],
  ['Conversation, tokens', (r) => r.totals.position, count],
  ['Cache, tokens of a list', (r) => r.cache_tokens, count],
  ['Remembered at the end', (r) => remembered(r, r.samples.count - 1).share, percent],
  ['Evictions', (r) => r.totals.evictions, count],
  ['Time spent evicting', (r) => r.totals.eviction_ms / Math.max(r.totals.ms, 1), percent],
  ['Reading, tokens/s', (r) => r.totals.prefill, rate],
  ['Writing, tokens/s', (r) => r.totals.decode, rate],
  ['Major page faults', (r) => r.totals.major, count],
  ['Length', (r) => r.totals.ms, clock],
];

function drawSummary() {
  if (runs.length > 1) {
    const cell = (of, format, run) => `<td>${format(of(run))}</td>`;
    const difference = (of, format) => {
      const [a, b] = [of(runs[0]), of(runs[1])];
      if (a === null || b === null || a === b) return '<td>–</td>';
      const relative = format === percent || a === 0 ? '' : ` (${b > a ? '+' : ''}${percent(b / a - 1)})`;
      return `<td>${b > a ? '+' : ''}${format(b - a)}${relative}</td>`;
    };
    const two = runs.length === 2;
    byId('summary').innerHTML = `<div class="tile"><table><thead><tr><th></th>` +
      runs.map((r) => `<th>${escape(r.name)}</th>`).join('') + `${two ? '<th>difference</th>' : ''}</tr></thead><tbody>` +
      `<tr><th>Policy, cache</th>${runs.map((r) => `<td>${escape(r.policy)}, ${escape(r.kv_type)}</td>`).join('')}` +
      `${two ? '<td></td>' : ''}</tr>` +
      rows.map(([name, of, format]) => `<tr><th>${name}</th>${runs.map((r) => cell(of, format, r)).join('')}` +
        `${two ? difference(of, format) : ''}</tr>`).join('') + '</tbody></table></div>';
    return;
  }
  const run = runs[0], t = run.totals, end = remembered(run, run.samples.count - 1);
  const tile = (label, value, more, meter) => `<div class="tile"><div class="label">${label}</div>` +
    `<div class="value">${value}</div>` +
    (meter === undefined ? '' : `<div class="meter"><i style="width:${Math.min(100, 100 * meter)}%"></i></div>`) +
    `<div class="more">${more}</div></div>`;
  byId('summary').innerHTML = `<div class="tiles">` +
    tile('Peak private memory', bytes(t.private_peak), `${percent(t.private_peak / t.cap)} of the cap of ${bytes(t.cap)}`,
      t.private_peak / t.cap) +
    tile('Remembered at the end', percent(end.share), `${count(end.gone)} of ${count(t.position)} tokens forgotten by all`,
      end.share) +
    tile('Evictions', count(t.evictions), `${clock(t.eviction_ms)} in all, ${percent(t.eviction_ms / Math.max(t.ms, 1))} of the time`) +
    tile('Writing, tokens/s', rate(t.decode), `reading ${rate(t.prefill)}`) +
    tile('Conversation', `${count(t.position)}`, `tokens in ${clock(t.ms)}`) +
    tile('Page faults', count(t.major), `major; ${count(t.minor)} minor`) + '</div>';
}

// ---- Panels ------------------------------------------------------------------------------------------------------

function niceTicks(most, wanted, step = 10) {
  const raw = most / wanted;
  let unit = 1;
  while (unit * step <= raw) unit *= step;
  const size = (step === 2 ? [1] : [1, 2, 5, 10]).map((f) => f * unit).find((u) => u >= raw) || unit * step;
  const out = [];
  for (let v = 0; v <= most; v += size) out.push(v);
  return out;
}
const xOf = (run) => run.samples[state.axis];
const xMost = () => Math.max(...runs.map((r) => last(xOf(r))), 1);

// Splits a line where values are missing; a value that stands alone becomes a short stroke.
function path(xs, ys) {
  let out = '', pen = false;
  for (let i = 0; i < ys.length; ++i) {
    if (ys[i] === null) continue;
    out += `${pen ? 'L' : 'M'}${xs[i].toFixed(1)} ${ys[i].toFixed(1)}`;
    pen = true;
  }
  return out;
}

function drawPanel(el, panel) {
  const width = Math.max(el.clientWidth, 300), { height } = panel, bottom = panel.axis ? 22 : 6;
  const most = xMost(), plot = width - LEFT - RIGHT;
  const x = (v) => LEFT + plot * v / most;
  const top = Math.max(...panel.top(), 1e-9) * 1.04;
  const y = (v) => height - bottom - (height - bottom - 6) * v / top;
  let svg = '';
  for (const v of niceTicks(top, height / 45, panel.binary ? 2 : 10)) {
    svg += `<line class="grid" x1="${LEFT}" x2="${width - RIGHT}" y1="${y(v)}" y2="${y(v)}"/>` +
      `<text x="${LEFT - 8}" y="${y(v) + 4}" text-anchor="end">${panel.format(v).replace('.00', '')}</text>`;
  }
  if (panel.axis) {
    for (const v of niceTicks(most, plot / 110)) {
      svg += `<text x="${x(v)}" y="${height - 6}" text-anchor="middle">${state.axis === 'ms' ? clock(v) : count(v)}</text>`;
    }
  }
  const run = runs[state.run], xs = xOf(run).map(x);
  if (panel.bands) {
    let below = xs.map(() => 0);
    for (const band of panel.bands) {
      const above = below.map((v, i) => v + band.values[i]);
      svg += `<path fill="${band.colour}" d="${path(xs, above.map(y))}${path([...xs].reverse(), [...below].reverse().map(y)).replace('M', 'L')}Z"/>`;
      below = above;
    }
  }
  if (panel.between) {
    const [low, high] = panel.between;
    svg += `<path fill="${panel.colour}" fill-opacity=".25" d="${path(xs, high.map(y))}` +
      `${path([...xs].reverse(), [...low].reverse().map(y)).replace('M', 'L')}Z"/>`;
  }
  for (const line of panel.lines) {
    const at = xOf(line.run || run).map(x);
    const d = path(at, line.values.map((v) => v === null ? null : y(v)));
    if (line.halo) svg += `<path fill="none" stroke="var(--card)" stroke-width="5" stroke-opacity=".85" d="${d}"/>`;
    svg += `<path fill="none" stroke="${line.colour}" stroke-width="${line.width || 1.5}" stroke-linejoin="round"` +
      `${line.dashes ? ` stroke-dasharray="${line.dashes}"` : ''} d="${d}"/>`;
  }
  svg += `<line class="axis" x1="${LEFT}" x2="${width - RIGHT}" y1="${y(0)}" y2="${y(0)}"/>` +
    `<line class="cursor" y1="6" y2="${y(0)}"/>`;
  el.querySelector('.plot').innerHTML =
    `<svg height="${height}" role="img" aria-label="${panel.says()}">${svg}</svg>`;
  el.plot = { x, xs };
}

function smooth(values, reach) {
  const out = [];
  for (let i = 0; i < values.length; ++i) {
    let sum = 0, n = 0;
    for (let j = Math.max(0, i - reach); j <= Math.min(values.length - 1, i + reach); ++j) {
      if (values[j] !== null) { sum += values[j]; ++n; }
    }
    out.push(n ? sum / n : null);
  }
  return out;
}

function panelsOf(run) {
  const s = run.samples, others = runs.filter((r) => r !== run);
  const known = (list) => list.map((v) => v || null);
  return [
    {
      title: 'Memory: the ledger by tag, and what the system counts', height: 280, binary: true, format: bytes,
      bands: run.bands, top: () => [...s.cap, ...s.private, ...others.flatMap((r) => r.samples.private)],
      lines: [
        { name: 'cap', values: s.cap, colour: 'var(--bad)', dashes: '6 4' },
        { name: 'private (RssAnon + swap)', values: s.private, colour: 'var(--private)', width: 2, halo: true },
        ...(s.swapped.some((v) => v) ? [{ name: 'of it swapped', values: s.swapped, colour: 'var(--t1)' }] : []),
        ...others.map((r) => ({ name: `private, ${r.name}`, values: r.samples.private, run: r, colour: 'var(--other)', dashes: '3 3', width: 2, halo: true })),
      ],
      says: () => `Memory over time. Cap ${bytes(run.totals.cap)}, peak of private memory ${bytes(run.totals.private_peak)}.`,
    },
    {
      title: 'Cache: tokens of a list, from the shortest to the longest', height: 120, format: count, colour: 'var(--t0)',
      between: [s.shortest, s.longest], top: () => s.longest,
      lines: [{ name: 'longest', values: s.longest, colour: 'var(--t0)' },
        ...(s.longest.some((v, i) => v !== s.shortest[i]) ? [{ name: 'shortest', values: s.shortest, colour: 'var(--t2)' }] : [])],
      says: () => `Tokens in the cache over time, ${count(run.totals.evictions)} evictions.`,
    },
    {
      title: 'Speed of writing, tokens/s', height: 110, format: (v) => v.toFixed(0),
      top: () => [...smooth(s.decode, 3), ...others.flatMap((r) => smooth(r.samples.decode, 3))],
      lines: [{ name: 'decode', values: smooth(s.decode, 3), colour: 'var(--t2)' },
        ...others.map((r) => ({ name: r.name, values: smooth(r.samples.decode, 3), run: r, colour: 'var(--other)', dashes: '3 3' }))],
      says: () => `Speed of writing: ${rate(run.totals.decode)} tokens a second on average.`,
    },
    {
      title: 'Beside the cap: mapped files, clean pages that the system may drop', height: 110, binary: true, format: bytes, axis: true,
      top: () => [...s.file, ...s.pss],
      lines: [{ name: 'resident (RssFile)', values: s.file, colour: 'var(--t5)' },
        { name: 'PSS', values: known(s.pss), colour: 'var(--t3)' }],
      says: () => `Resident pages of files: ${bytes(run.totals.file)} at the end.`,
    },
  ];
}

let panels = [];
function drawPanels() {
  const host = byId('panels'), run = runs[state.run];
  panels = panelsOf(run);
  host.innerHTML = panels.map((panel) =>
    `<div class="panel"><h3>${panel.title}</h3><div class="legend"></div><div class="plot"></div></div>`).join('');
  panels.forEach((panel, i) => {
    const el = host.children[i];
    drawPanel(el, panel);
    const seek = (event) => {
      if (event.type === 'pointermove' && event.buttons === 0 && event.pointerType !== 'mouse') return;
      const at = event.clientX - el.getBoundingClientRect().left, xs = el.plot.xs;
      let best = 0;
      for (let j = 1; j < xs.length; ++j) if (Math.abs(xs[j] - at) < Math.abs(xs[best] - at)) best = j;
      show(best);
    };
    el.querySelector('.plot').addEventListener('pointerdown', seek);
    el.querySelector('.plot').addEventListener('pointermove', (event) => { if (event.buttons) seek(event); });
  });
}

function moveCursor() {
  const run = runs[state.run], i = state.at;
  panels.forEach((panel, p) => {
    const el = byId('panels').children[p], x = el.plot.xs[i].toFixed(1), line = el.querySelector('.cursor');
    line.setAttribute('x1', x);
    line.setAttribute('x2', x);
    const key = (name, colour, value, kind) =>
      `<span><span class="key ${kind}" style="${kind ? 'border-color' : 'background'}:${colour}"></span>${escape(name)} <b>${value}</b></span>`;
    const at = (line) => {
      if (!line.run) return line.values[i];
      const j = line.run.samples.ms.findIndex((_, k) => xOf(line.run)[k] >= xOf(run)[i]);
      return line.values[j < 0 ? line.values.length - 1 : j];
    };
    el.querySelector('.legend').innerHTML =
      panel.lines.map((l) => {
        const value = at(l);
        return key(l.name, l.colour, value === null || value === undefined ? '–' : panel.format(value), `stroke ${l.dashes ? 'dashed' : ''}`);
      }).join('') + (panel.bands || []).map((band) => key(band.name, band.colour, bytes(band.values[i]), '')).join('');
  });
}

// ---- The peak ----------------------------------------------------------------------------------------------------

function drawPeak() {
  const run = runs[state.run], t = run.totals, over = t.private_peak - t.peak_ledger;
  byId('peak-note').textContent =
    `Private memory was highest ${clock(t.peak_ms)} after the start, at token ${count(t.peak_position)}.`;
  const order = run.tag_names.map((name, tag) => ({ name, bytes: t.peak_tags[tag] })).sort((a, b) => b.bytes - a.bytes);
  const colour = (name) => (run.bands.find((band) => band.name === name) || last(run.bands)).colour;
  const row = (name, size, kind, tint) => `<tr class="${kind}"><th scope="row">${name}</th><td>${bytes(size)}</td>` +
    `<td>${percent(size / t.cap)}</td><td class="bar">` +
    (tint ? `<i style="background:${tint};width:${Math.max(0, Math.min(100, 100 * size / t.cap))}%"></i>` : '') + '</td></tr>';
  byId('peak').innerHTML = '<thead><tr><th scope="col">tag of the ledger</th><th scope="col">bytes</th>' +
    '<th scope="col">of the cap</th><td class="bar"></td></tr></thead><tbody>' +
    order.map((o) => row(escape(o.name), o.bytes, '', colour(o.name))).join('') +
    row('ledger, all tags', t.peak_ledger, 'sum', 'var(--faint)') +
    row('private, as the system counts (RssAnon + swap)', t.private_peak, 'sum', 'var(--private)') +
    row(over > 0 ? 'private beyond the ledger' : 'reserved and not touched', Math.abs(over), 'soft', '') +
    row('cap', t.cap, 'soft', '') + '</tbody>';
}

// ---- What was forgotten ------------------------------------------------------------------------------------------

// Mean level of `columns` even stretches of the positions [0, positions).
function columnsOf(runsOfPositions, columns, positions) {
  const out = new Float32Array(columns), width = positions / columns;
  for (const r of runsOfPositions) {
    if (r.level === 0) continue;
    for (let c = Math.floor(r.begin / width); c < columns && c * width < r.end; ++c) {
      const overlap = Math.min(r.end, (c + 1) * width) - Math.max(r.begin, c * width);
      out[c] += r.level * overlap / width;
    }
  }
  return out;
}

function drawMap() {
  const run = runs[state.run], s = run.samples, host = byId('map');
  const positions = Math.max(...s.position, 1), end = Math.max(last(s.ms), 1);
  byId('map-note').textContent = run.totals.evictions === 0 ? 'Nothing: the cache was never full.' :
    'Every column is a token of the conversation, every row a moment, time going down. Where the colour ends, a token was forgotten.';
  host.innerHTML = `<div class="axis-x"><span>token 0</span><span>token ${count(positions)}</span></div>` +
    `<canvas role="img" aria-label="What the cache held of every token over time"></canvas><div class="rule"></div>` +
    `<div class="axis-x"><span>start at the top, ${clock(end)} at the bottom</span></div>`;
  const canvas = host.querySelector('canvas'), scale = window.devicePixelRatio || 1;
  const width = canvas.width = Math.max(1, Math.round(canvas.clientWidth * scale));
  const height = canvas.height = Math.round(240 * scale);
  const context = canvas.getContext('2d'), image = context.createImageData(width, height);
  const [red, green, blue] = getComputedStyle(document.documentElement).getPropertyValue('--held').split(',').map(Number);
  const grid = getComputedStyle(document.documentElement).getPropertyValue('--grid').trim();
  const gone = [1, 3, 5].map((at) => parseInt(grid.slice(at, at + 2), 16));
  for (let row = 0, i = -1, columns = null; row < height; ++row) {
    const ms = end * (row + 0.5) / height;
    const before = i;
    while (i + 1 < s.count && (i < 0 || s.ms[i + 1] <= ms)) ++i;
    if (i !== before) columns = columnsOf(runsAt(run, i), width, positions);
    const known = s.position[i] / positions * width;
    for (let c = 0, at = 4 * row * width; c < known; ++c, at += 4) {
      const share = columns[c] / LEVELS, tint = share === 0 ? 0 : 0.04 + 0.96 * share;
      image.data[at] = gone[0] + (red - gone[0]) * tint;
      image.data[at + 1] = gone[1] + (green - gone[1]) * tint;
      image.data[at + 2] = gone[2] + (blue - gone[2]) * tint;
      image.data[at + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
  byId('held-legend').innerHTML = `<span>held by few heads<span class="ramp"></span>by all</span>` +
    `<span><span class="key" style="background:var(--grid)"></span>forgotten</span>`;
}

function moveMap() {
  const s = runs[state.run].samples, canvas = byId('map').querySelector('canvas');
  byId('map').querySelector('.rule').style.top =
    `${canvas.offsetTop + canvas.clientHeight * s.ms[state.at] / Math.max(last(s.ms), 1)}px`;
}

// ---- Layers and heads --------------------------------------------------------------------------------------------

function drawHeads() {
  const run = runs[state.run], picture = latest(run.lists, run.samples.ms[state.at]) || run.lists[0];
  const lists = run.layers * run.kv_heads;
  const lengths = Array.isArray(picture.lengths) ? picture.lengths : Array(lists).fill(picture.lengths);
  const most = Math.max(...run.samples.longest, 1), low = Math.min(...lengths), high = Math.max(...lengths);
  byId('heads-note').textContent = low === high ? `Every one of the ${count(lists)} lists holds ${count(low)} tokens.` :
    `The lists hold between ${count(low)} and ${count(high)} tokens. A column is a layer, a row a KV head.`;
  const width = Math.max(byId('heads').clientWidth, 300), left = 62, gap = 2;
  const cell = Math.min(34, (width - left) / run.layers), row = Math.min(26, Math.max(cell, 12));
  let svg = '';
  for (let head = 0; head < run.kv_heads; ++head) {
    svg += `<text x="${left - 8}" y="${head * row + row / 2 + 4}" text-anchor="end">head ${head}</text>`;
    for (let layer = 0; layer < run.layers; ++layer) {
      const length = lengths[layer * run.kv_heads + head];
      svg += `<rect x="${left + layer * cell}" y="${head * row}" width="${cell - gap}" height="${row - gap}" rx="2" ` +
        `fill="rgba(var(--held), ${(0.08 + 0.92 * length / most).toFixed(3)})"><title>layer ${layer}, head ${head}: ` +
        `${count(length)} tokens</title></rect>`;
    }
  }
  const every = Math.max(1, Math.ceil(28 / cell));
  for (let layer = 0; layer < run.layers; layer += every) {
    svg += `<text x="${left + (layer + 0.5) * cell - gap / 2}" y="${run.kv_heads * row + 12}" text-anchor="middle">${layer}</text>`;
  }
  byId('heads').innerHTML = `<svg height="${run.kv_heads * row + 18}" role="img" aria-label="Tokens by layer and head: ` +
    `${count(low)} to ${count(high)}">${svg}</svg>`;
}

// ---- The text ----------------------------------------------------------------------------------------------------

let spans = [], spanLevels = [];
const LATER = LEVELS + 1;
function drawText() {
  const run = runs[state.run], sizes = bytesOf(run.text.sizes), raw = bytesOf(run.text.bytes);
  const box = byId('text'), decoder = new TextDecoder();
  byId('text-section').hidden = sizes.length === 0;
  box.textContent = '';
  spans = [];
  let at = 0;
  for (const size of sizes) {
    const span = document.createElement('span');
    span.textContent = decoder.decode(raw.subarray(at, at + size), { stream: true });
    at += size;
    spans.push(span);
  }
  box.append(...spans);
  spanLevels = new Uint8Array(spans.length).fill(255);
  const left_out = run.text.left_out ? ` The first ${count(run.text.left_out)} tokens are left out of this page.` : '';
  byId('text-note').textContent = `The stronger the colour, the more heads still hold a token; grey text is forgotten, pale ` +
    `text is still to come.${left_out}`;
}

// To where the newest tokens that fit the cache begin.
function scrollText() {
  const run = runs[state.run], box = byId('text');
  const span = spans[Math.max(0, run.totals.position - run.cache_tokens - run.text.first)];
  if (span) box.scrollTop = span.offsetTop - box.clientHeight / 2;
}

function paintText() {
  const run = runs[state.run], first = run.text.first;
  const paint = (i, level) => {
    if (spanLevels[i] === level) return;
    spanLevels[i] = level;
    spans[i].className = level === LATER ? 'later' : level === 0 ? 'gone' : '';
    spans[i].style.background = level === 0 || level === LATER ? '' : `rgba(var(--held), ${(0.06 + 0.3 * level / LEVELS).toFixed(2)})`;
  };
  let end = first;
  for (const r of runsAt(run, state.at)) {
    for (let p = Math.max(r.begin, first); p < Math.min(r.end, first + spans.length); ++p) paint(p - first, r.level);
    end = Math.max(end, r.end);
  }
  for (let i = end - first; i < spans.length; ++i) paint(i, LATER);
}

// ---- The moment --------------------------------------------------------------------------------------------------

function show(i) {
  const run = runs[state.run], s = run.samples;
  state.at = Math.max(0, Math.min(i, s.count - 1));
  byId('moment').max = s.count - 1;
  byId('moment').value = state.at;
  const now = remembered(run, state.at);
  const words = `${clock(s.ms[state.at])}, token ${count(s.position[state.at])}, ${percent(now.share)} remembered`;
  byId('moment-text').innerHTML = `<b>${clock(s.ms[state.at])}</b> · token ${count(s.position[state.at])} · ${percent(now.share)} remembered`;
  byId('moment').setAttribute('aria-valuetext', words);
  moveCursor();
  moveMap();
  drawHeads();
  paintText();
}

function draw(keep) {
  const run = runs[state.run];
  const when = new Date(run.unix_ms).toISOString().slice(0, 16).replace('T', ' ');
  byId('about').textContent = `${run.architecture}, ${run.layers} layers of ${run.kv_heads} KV heads · cap ${bytes(run.totals.cap)} · ` +
    `policy ${run.policy} · ${run.kv_type} cache of ${count(run.cache_tokens)} tokens · ${run.threads} threads · Lethe ${run.library} · ${when} UTC` +
    (run.ended ? '' : ' · the writer was ended from outside: the last moments are missing');
  drawPanels();
  drawPeak();
  drawMap();
  if (!keep) drawText();
  show(keep ? state.at : run.samples.count - 1);
  if (!keep) scrollText();
}

if (runs.length > 1) {
  const tabs = byId('tabs');
  tabs.hidden = false;
  runs.forEach((run, i) => {
    const button = document.createElement('button');
    button.type = 'button';
    button.textContent = run.name;
    button.setAttribute('aria-pressed', i === 0);
    button.addEventListener('click', () => {
      state.run = i;
      [...tabs.children].forEach((other, j) => other.setAttribute('aria-pressed', j === i));
      draw(false);
    });
    tabs.append(button);
  });
}
for (const input of document.querySelectorAll('input[name=axis]')) {
  input.addEventListener('change', () => { state.axis = input.value; draw(true); });
}
byId('moment').addEventListener('input', (event) => show(Number(event.target.value)));
let playing = 0;
byId('play').addEventListener('click', () => {
  const button = byId('play'), total = runs[state.run].samples.count;
  const stop = () => { clearInterval(playing); playing = 0; button.innerHTML = '&#9654;'; button.setAttribute('aria-label', 'Play'); };
  if (playing) return stop();
  button.innerHTML = '&#10074;&#10074;';
  button.setAttribute('aria-label', 'Pause');
  if (state.at >= total - 1) show(0);
  playing = setInterval(() => {
    show(state.at + Math.max(1, Math.round(total / 200)));
    if (state.at >= runs[state.run].samples.count - 1) stop();
  }, 60);
});
let pending = 0;
window.addEventListener('resize', () => { clearTimeout(pending); pending = setTimeout(() => draw(true), 150); });
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => draw(true));
drawSummary();
draw(false);
