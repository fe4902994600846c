/* The page of evaluate.py --html: a gallery of captioned images that is searched, filtered and sorted, over the view
   of one image (viewer.js). data/records.js calls PAGE.start(info, records); the attention of images, a file of
   `info.chunk` images each, is loaded when one of them is first looked at and calls PAGE.attention(number, captions).
   Cards are made as far as one scrolls, so that any number of images is quick. */
'use strict';

const PAGE = (() => {
  const MORE = 60;  // cards made at a time
  const BARS = 40;  // of the histogram
  const NAMES = {Bleu_1: 'BLEU-1', Bleu_2: 'BLEU-2', Bleu_3: 'BLEU-3', Bleu_4: 'BLEU-4', METEOR: 'METEOR',
    ROUGE_L: 'ROUGE-L', CIDEr: 'CIDEr'};
  const ON_CARD = ['Bleu_4', 'METEOR', 'CIDEr'];
  const {make} = Attention;
  const $ = id => document.getElementById(id);
  const extra = $('extra');  // references and scores, moved beside the photo that is open
  let info, records, metrics, found = [], made = 0, opened = -1, view = null, upward = true, watch, glow = null;

  const hundred = value => (100 * value).toFixed(1);
  const plain = text => ` ${text.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, ' ').trim()}`;
  const pairs = (list, entries) => list.replaceChildren(...entries.map(([name, value, title]) =>
    make('div', '', title ? {title} : {}, make('dt', '', null, name), make('dd', '', null, value))));

  /* ---- attention, loaded when it is wanted */

  const waiting = new Map();  // number of the file -> {promise, done}

  function attention(number, captions) {
    captions.forEach((each, i) => { records[number * info.chunk + i].captions = each; });
    waiting.get(number)?.done();
  }

  function load(record) {
    if (record.captions) return Promise.resolve();
    const number = Math.floor(record.number / info.chunk);
    if (!waiting.has(number)) {
      const entry = {}, name = `data/attention-${String(number).padStart(4, '0')}.js`;
      entry.promise = new Promise((done, failed) => {
        entry.done = done;
        const script = make('script', '', {src: name});
        script.onerror = () => {
          script.remove();
          waiting.delete(number);
          failed(new Error(`${name} is missing beside this page: copy the whole folder.`));
        };
        document.head.append(script);
      });
      waiting.set(number, entry);
    }
    return waiting.get(number).promise;
  }

  /* ---- the head of the page */

  function head() {
    document.title = info.title;
    $('title').textContent = info.title;
    const facts = [`${records.length} images`];
    if (info.step) facts.push(`model of step ${info.step}`);
    if (info.ensemble) facts.push(`together with ${info.ensemble.join(', ')}`);
    for (const [name, value] of Object.entries(info.decoding || {})) facts.push(`${name} ${value}`);
    if (info.decode_context) facts.push(`hard attention, context: ${info.decode_context}`);
    $('facts').textContent = facts.join(' · ');

    const entries = Object.entries(info.coco || {}).map(([name, value]) => [NAMES[name], hundred(value)]);
    for (const [name, value] of Object.entries(info.paper || {})) {
      entries.push([`${NAMES[name]}, paper`, hundred(value), "the paper's scoring: raw references"]);
    }
    const spread = info.attention || {}, varied = info.diversity || {};
    if (spread.n_words) {
      entries.push(['In the box', hundred(spread.mass), `share of attention in the box of what a word names; ${
        hundred(spread.uniform_mass)} if spread evenly`]);
    }
    if (typeof spread.entropy === 'number') {
      entries.push(['Entropy', spread.entropy.toFixed(2), `of the attention, in nats a word; ${
        spread.uniform_entropy.toFixed(2)} if spread evenly`]);
    }
    if (varied.captions) entries.push(['Distinct', `${varied.distinct}`, 'different captions']);
    pairs($('scores'), entries);
    $('scores').hidden = !entries.length;
    $('explain-scores').hidden = !metrics.length;
    $('explain-hard').hidden = info.decode_context === undefined || info.decode_context === 'expected';
    $('explain-boxes').hidden = !info.boxes;
    $('explain-mass').hidden = !spread.n_words;
  }

  /* ---- search, filter, sort */

  function orders() {
    const some = [['order', 'order of the split'], ['name', 'name'],
      ...metrics.map(name => [name, NAMES[name]])];
    if (records.some(record => typeof record.log_prob === 'number')) some.push(['log_prob', 'log p of the model']);
    some.push(['length', 'words']);
    $('sort').replaceChildren(...some.map(([value, name]) => make('option', '', {value}, name)));
  }

  const VALUES = {order: record => record.number, name: record => record.image,
    length: record => record.caption.split(' ').filter(Boolean).length, log_prob: record => record.log_prob};
  const value = (record, key) => VALUES[key] ? VALUES[key](record) : record.scores[key];
  const measured = key => key !== 'order' && key !== 'name';
  const figure = (key, x) => metrics.includes(key) ? hundred(x) : key === 'length' ?
    String(+x.toFixed(1)) : Attention.signed(x);
  const numbers = key => records.map(record => value(record, key)).filter(x => typeof x === 'number');

  function terms() {
    return $('search').value.toLowerCase().split(/\s+/).filter(Boolean).map(text => {
      const without = text.length > 1 && text.startsWith('-');
      const raw = without ? text.slice(1) : text;
      return {without, raw, words: plain(raw)};
    });
  }

  function matches(record, wanted, scope) {
    const texts = scope === 'caption' ? record.inCaption : scope === 'references' ? record.inReferences :
      `${record.inCaption} ${record.inReferences}`;
    return wanted.every(({without, raw, words}) => without !== (
      (words !== ' ' && texts.includes(words)) || (scope === 'all' && record.inName.includes(raw))));
  }

  function range() {
    const key = $('sort').value, values = measured(key) ? numbers(key) : [];
    $('range').hidden = values.length < 2;
    if ($('range').hidden) return;
    const least = Math.min(...values), most = Math.max(...values), width = (most - least) / BARS || 1;
    const counts = new Array(BARS).fill(0);
    for (const x of values) counts[Math.min(BARS - 1, Math.floor((x - least) / width))]++;
    const tallest = Math.sqrt(Math.max(...counts));  // roots, so that a bar of one image is still seen
    $('histogram').replaceChildren(...counts.map(count => {
      const bar = make('i', '', {title: `${count} images`});
      bar.style.height = `${100 * Math.sqrt(count) / tallest}%`;
      return bar;
    }));
    Object.assign($('low'), {min: 0, max: BARS, value: 0});
    Object.assign($('high'), {min: 0, max: BARS, value: BARS});
    $('range').dataset.least = least;
    $('range').dataset.width = width;
    limits();
  }

  /** [least, most] that the sliders let through, or null where they stand at the ends. */
  function limits() {
    if ($('range').hidden) return null;
    const low = Math.min(+$('low').value, +$('high').value), high = Math.max(+$('low').value, +$('high').value);
    const {least, width} = $('range').dataset, at = part => +least + part * width, key = $('sort').value;
    [...$('histogram').children].forEach((bar, i) => bar.classList.toggle('out', i < low || i >= high));
    $('range').querySelector('legend').textContent =
      `${$('sort').selectedOptions[0].textContent} ${figure(key, at(low))} to ${figure(key, at(high))}`;
    for (const slider of [$('low'), $('high')]) {
      slider.setAttribute('aria-valuetext', figure(key, at(+slider.value)));
    }
    return low === 0 && high === BARS ? null : [at(low) - 1e-9, high === BARS ? Infinity : at(high) + 1e-9];
  }

  function update() {
    const key = $('sort').value, wanted = terms(), scope = $('scope').value, bounds = limits(), sign = upward ? 1 : -1;
    found = records.filter(record => matches(record, wanted, scope));
    if (bounds) found = found.filter(record => value(record, key) >= bounds[0] && value(record, key) <= bounds[1]);
    const number = x => typeof x === 'number';
    found.sort((one, other) => {
      const [a, b] = [value(one, key), value(other, key)];
      if (key === 'name') return sign * a.localeCompare(b, undefined, {numeric: true}) || one.number - other.number;
      if (number(a) !== number(b)) return number(a) ? -1 : 1;  // what has no score comes last, whichever way
      return (number(a) ? sign * (a - b) : 0) || one.number - other.number;
    });
    const texts = {order: ['First to last', 'Last to first'], name: ['A to Z', 'Z to A']}[key] ||
      ['Lowest first', 'Highest first'];
    $('direction').textContent = `${upward ? '↑' : '↓'} ${texts[upward ? 0 : 1]}`;
    const values = measured(key) ? found.map(record => value(record, key)).filter(number) : [];
    const counts = [`${found.length} of ${records.length} images`];
    if (values.length) {
      const mean = values.reduce((a, b) => a + b, 0) / values.length;
      counts.push(`mean ${$('sort').selectedOptions[0].textContent} ${figure(key, mean)}`);
    }
    $('count').textContent = counts.join(' · ');
    made = 0;
    glow = null;
    $('gallery').replaceChildren();
    if (!found.length) {
      $('gallery').append(make('p', 'notice', null, 'No image matches. Search for less, or widen the range.'));
    }
    more();
  }

  /* ---- cards */

  function more(upTo = made + MORE) {
    const cards = document.createDocumentFragment(), wanted = terms(), last = Math.min(upTo, found.length);
    while (made < last) cards.append(card(found[made], made++, wanted));
    $('gallery').append(cards);
    watch.disconnect();
    if (made < found.length) watch.observe($('gallery').lastElementChild);
  }

  function card(record, at, wanted) {
    const key = $('sort').value, hit = word => wanted.some(({without, words}) => !without && words !== ' ' &&
      plain(word).startsWith(words));
    const open = make('a', 'photo', {href: `#${record.number}`, 'data-at': at,
      'aria-label': `${record.image}: ${record.caption || 'no word'}`});
    if (record.photo) {
      const image = make('img', '', {alt: '', loading: 'lazy', decoding: 'async'});
      image.onerror = () => image.parentNode.replaceWith(make('span', 'missing', null, 'photo missing'));
      image.src = record.photo;
      open.append(make('span', 'holder', null, image));
    } else open.append(make('span', 'missing', null, 'photo missing'));
    const caption = make('p', 'caption');
    record.caption.split(' ').filter(Boolean).forEach((word, i) => caption.append(i ? ' ' : '',
      make('span', hit(word) ? 'hit' : '', {'data-word': i}, word)));
    if (!record.caption) caption.append('(no word)');
    const best = wanted.length && record.references.find(text => wanted.some(({words, without}) => !without &&
      words !== ' ' && plain(text).includes(words)));
    const names = [...new Set([...(metrics.includes(key) ? [key] : []), ...ON_CARD])].filter(n => n in record.scores);
    const scores = names.slice(0, 3).map(name => [name, NAMES[name], hundred(record.scores[name])]);
    if (key === 'log_prob' && typeof record.log_prob === 'number') {
      scores.unshift([key, 'log p', Attention.signed(record.log_prob)]);
    }
    const text = make('div', 'text', null, caption);
    if (record.references.length) text.append(make('p', 'reference', null, best || record.references[0]));
    text.append(make('p', 'figures', null, ...scores.map(([name, label, figure]) =>
      make('span', name === key ? 'key' : '', null, make('small', '', null, `${label} `), figure))));
    return make('article', 'card', null, open, text);
  }

  /** The word of a card under the pointer lights the card's photo. */
  async function hover(event) {
    const word = event.pointerType === 'mouse' && event.target.closest('.caption [data-word]');
    const box = word && word.closest('.card');
    if (glow && (!word || glow.box !== box)) dim();
    if (!word) return;
    const photo = box.querySelector('.photo'), record = found[photo.dataset.at];
    if (!glow) glow = {box, lamp: Attention.lamp(photo.querySelector('.holder') || photo, record.grid)};
    const mine = glow;
    mine.word?.classList.remove('lit');
    mine.word = word;
    word.classList.add('lit');
    await load(record).catch(() => null);
    if (glow === mine && mine.word === word && record.captions?.length) {
      mine.lamp.show(...Attention.word(record.captions[0], record.grid, +word.dataset.word));
    }
  }

  function dim() {
    if (!glow) return;
    glow.word?.classList.remove('lit');
    glow.lamp.remove();
    glow = null;
  }

  /* ---- one image */

  async function open(at) {
    if (at < 0 || at >= found.length) return;
    const record = found[at];
    if (at >= made) more(at + 1);
    dim();
    opened = at;
    view?.stop();
    view = null;
    if (location.hash !== `#${record.number}`) location.replace(`#${record.number}`);
    $('opened-name').textContent = $('opened-name').title = record.image;
    $('opened-place').textContent = `${at + 1} of ${found.length}`;
    $('before').disabled = at === 0;
    $('after').disabled = at === found.length - 1;
    extra.querySelector('#opened-references').hidden = !record.references.length;
    extra.querySelector('#opened-references ul').replaceChildren(
      ...record.references.map(text => make('li', '', null, text)));
    const scores = metrics.filter(name => name in record.scores);
    extra.querySelector('#opened-scores').hidden = !scores.length;
    pairs(extra.querySelector('#opened-scores dl'), scores.map(name => [NAMES[name], hundred(record.scores[name]),
      info.coco ? `all images: ${hundred(info.coco[name])}` : '']));
    if (!$('opened').open) $('opened').showModal();
    $('opened').scrollTop = 0;
    let shown = record;
    try {
      await load(record);
    } catch (error) {
      shown = {grid: record.grid, error: error.message};
    }
    if (opened !== at) return;  // another one was opened meanwhile
    view = Attention.view($('view'), shown, record.photo, {name: record.image});
    $('view').querySelector('.side').append(extra);
    view.focus();
  }

  function closed() {
    const card = $('gallery').querySelector(`[data-at="${opened}"]`);
    view?.stop();
    view = null;
    opened = -1;
    $('view').replaceChildren();
    if (location.hash.length > 1) history.replaceState(null, '', '#');
    if (card) card.focus();
  }

  function fromAddress() {
    const number = /^#\d+$/.test(location.hash) ? +location.hash.slice(1) : -1;
    if (opened >= 0 && found[opened].number === number) return;
    const at = found.findIndex(record => record.number === number);
    if (at >= 0) open(at);
    else if (opened >= 0) $('opened').close();
  }

  /* ---- keys */

  function galleryKeys(event) {
    const link = event.target.closest('.photo');
    if (!link || event.ctrlKey || event.metaKey || event.altKey) return;
    const cards = $('gallery').children, at = +link.dataset.at, top = cards[0].offsetTop;
    let columns = 1;
    while (columns < cards.length && cards[columns].offsetTop === top) columns++;
    const move = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns}[event.key];
    if (!move) return;
    event.preventDefault();
    if (at + move >= made) more();
    cards[at + move]?.querySelector('.photo').focus();
  }

  function pageKeys(event) {
    if (opened >= 0 && (event.key === 'PageDown' || event.key === 'PageUp')) {
      event.preventDefault();
      open(opened + (event.key === 'PageDown' ? 1 : -1));
    } else if (opened < 0 && event.key === '/' && !/^(INPUT|SELECT)$/.test(document.activeElement.tagName)) {
      event.preventDefault();
      $('search').focus();
    }
  }

  function start(its, all) {
    info = its;
    records = all;
    metrics = Object.keys(NAMES).filter(name => all.some(record => name in record.scores));
    records.forEach((record, number) => Object.assign(record, {number, inCaption: plain(record.caption),
      inReferences: record.references.map(plain).join(' |'), inName: record.image.toLowerCase()}));
    watch = new IntersectionObserver(seen => { if (seen.some(entry => entry.isIntersecting)) more(); },
      {rootMargin: '1200px'});
    head();
    orders();
    range();
    update();
    fromAddress();
  }

  Attention.theme($('theme'));
  $('controls').onsubmit = event => event.preventDefault();
  for (const id of ['search', 'scope', 'low', 'high']) $(id).oninput = () => update();
  $('sort').oninput = () => { upward = !measured($('sort').value); range(); update(); };
  $('direction').onclick = () => { upward = !upward; update(); };
  $('gallery').onpointerover = hover;
  $('gallery').onpointerleave = dim;
  $('gallery').onkeydown = galleryKeys;
  $('gallery').onclick = event => {
    const box = event.target.closest('.card');
    if (!box || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const word = event.target.closest('[data-word]');
    open(+box.querySelector('.photo').dataset.at).then(() => { if (word) view?.word(+word.dataset.word); });
  };
  $('before').onclick = () => open(opened - 1);
  $('after').onclick = () => open(opened + 1);
  $('close').onclick = () => $('opened').close();
  $('opened').onclose = closed;
  $('opened').onclick = event => { if (event.target === $('opened')) $('opened').close(); };
  addEventListener('keydown', pageKeys);
  addEventListener('hashchange', fromAddress);
  return {start, attention};
})();
