/* The view of one captioned photo: its words light the places that the model looked at.

     <link rel="stylesheet" href="viewer.css"> <script src="viewer.js"></script>
     const view = Attention.view(element, record, photo, {name: 'dog.jpg'});

   element  is emptied and filled. record is the JSON record of core/inference/captioner.py:
            {"grid": [rows, cols], "captions": [{"words", "probabilities", "alphas", "betas", "locations",
            "log_prob", "score", "ended", "boxes"}, ...], "error": text where there is no caption}. "alphas" is a list
            of lists, or base64 of one byte a word and place (core/viewer/gallery.py). "boxes" may be missing.
   photo    is the address of the picture (a data: or blob: one will do), null where there is none. It must show what
            the encoder sees, as the light covers all of it.
   options  name: for the photo's description. missing: text shown where there is no photo.
   view     .word(i) lights a word, -1 none; .caption(k) shows the k-th best; .focus(); .stop() ends playing and
            hands the keys back.
   Keys while the focus is inside: left, right, Home, End: words; up, down: captions; p: play; a click on the photo
   puts the light out. Attention.lamp is the light alone, over any element that holds a picture, and
   Attention.theme(button) makes a button that changes between light, dark and the system's choice.

   Texts come from strangers: they are set as textContent and never parsed. No address outside is asked for. */
'use strict';

const Attention = (() => {
  const DARKEST = 0.2;  // brightness of a place without attention, as in core/viewer/attention_pictures.py
  const PIXELS = 112;   // of the map of light, which the browser scales up smoothly
  const MOVE = 180;     // milliseconds that the light takes from word to word
  const STEP = 900;     // milliseconds of a word while playing
  const calm = matchMedia('(prefers-reduced-motion: reduce)');

  /** An element with a class, attributes and children (elements or texts). */
  function make(tag, name, attributes, ...children) {
    const made = document.createElement(tag);
    if (name) made.className = name;
    for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  const signed = value => value.toFixed(2).replace('-', '−');

  /** The distribution function of the normal distribution (Abramowitz and Stegun 7.1.26). */
  function normal(x) {
    const z = Math.abs(x) / Math.SQRT2, t = 1 / (1 + 0.3275911 * z);
    const tail = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    const half = 0.5 * tail * Math.exp(-z * z);
    return x < 0 ? half : 1 - half;
  }

  /** How much of each cell's weight reaches each pixel of a row: blocks spread by half a cell, edges continued. */
  function spread(cells) {
    const rows = [];
    for (let i = 0; i < PIXELS; i++) {
      const x = (i + 0.5) * cells / PIXELS, row = new Float32Array(cells);
      for (let j = 0; j < cells; j++) {
        const left = j === 0 ? 0 : normal((j - x) / 0.5), right = j === cells - 1 ? 1 : normal((j + 1 - x) / 0.5);
        row[j] = right - left;
      }
      rows.push(row);
    }
    return rows;
  }

  /** The weights of a word over PIXELS x PIXELS, 1 at the strongest: `core.viewer.attention_pictures.smooth`. */
  function smooth(alpha, grid, across, down) {
    const [rows, cols] = grid, map = new Float32Array(PIXELS * PIXELS), line = new Float32Array(cols);
    let strongest = 1e-12;
    for (let y = 0; y < PIXELS; y++) {
      line.fill(0);
      for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) line[c] += down[y][r] * alpha[r * cols + c];
      for (let x = 0; x < PIXELS; x++) {
        let sum = 0;
        for (let c = 0; c < cols; c++) sum += across[x][c] * line[c];
        map[y * PIXELS + x] = sum;
        if (sum > strongest) strongest = sum;
      }
    }
    return map.map(value => value / strongest);
  }

  /** A light over `holder`, which holds a picture: show(alpha, location, boxes), alpha null for full light. */
  function lamp(holder, grid) {
    const canvas = make('canvas', 'light', {width: PIXELS, height: PIXELS, 'aria-hidden': 'true'});
    const marks = make('div', 'marks', {'aria-hidden': 'true'});
    holder.append(canvas, marks);
    const context = canvas.getContext('2d'), image = context.createImageData(PIXELS, PIXELS);
    const across = spread(grid[1]), down = spread(grid[0]), full = new Float32Array(PIXELS * PIXELS).fill(1);
    let now = full, timer = 0;

    function paint(map) {
      for (let i = 0; i < map.length; i++) image.data[4 * i + 3] = 255 * (1 - DARKEST) * (1 - map[i]) + 0.5;
      context.putImageData(image, 0, 0);
      now = map;
    }

    function move(target) {
      cancelAnimationFrame(timer);
      canvas.dataset.state = 'moving';
      const from = now, began = performance.now();
      const frame = time => {
        const part = calm.matches ? 1 : Math.min(1, Math.max(0, (time - began) / MOVE)), t = part * (2 - part);
        paint(part < 1 ? from.map((value, i) => value + t * (target[i] - value)) : target);
        if (part < 1) timer = requestAnimationFrame(frame);
        else canvas.dataset.state = 'still';
      };
      timer = requestAnimationFrame(frame);
    }

    function mark(name, left, top, right, bottom) {
      const box = make('div', name);
      const percent = value => `${100 * value}%`;
      Object.assign(box.style, {left: percent(left), top: percent(top), width: percent(right - left),
        height: percent(bottom - top)});
      marks.append(box);
    }

    return {
      show(alpha, location = null, boxes = []) {
        move(alpha ? smooth(alpha, grid, across, down) : full);
        marks.replaceChildren();
        for (const box of boxes) mark('box', ...box);
        if (location === null) return;
        const [rows, cols] = grid, row = Math.floor(location / cols), col = location % cols;
        mark('location', col / cols, row / rows, (col + 1) / cols, (row + 1) / rows);
      },
      remove() {
        cancelAnimationFrame(timer);
        canvas.remove();
        marks.remove();
      },
    };
  }

  /** The attention of every word of a caption: an array of arrays of rows * cols weights. */
  function alphas(caption, grid) {
    if (typeof caption.alphas !== 'string') return caption.alphas;
    const bytes = Uint8Array.from(atob(caption.alphas), letter => letter.charCodeAt(0)), size = grid[0] * grid[1];
    return caption.words.map((_, i) => bytes.subarray(i * size, (i + 1) * size));
  }

  /** What the light needs for one word of a caption. */
  function word(caption, grid, i) {
    const boxes = (caption.boxes || []).filter(box => box.words.includes(i)).map(box => box.rectangle);
    return [alphas(caption, grid)[i], caption.locations ? caption.locations[i] : null, boxes];
  }

  /** Where the strongest place lies, in words: for those who do not see the light. */
  function whereabouts(alpha, grid) {
    let best = 0;
    for (let i = 1; i < alpha.length; i++) if (alpha[i] > alpha[best]) best = i;
    const third = (value, n, names) => names[Math.min(2, Math.floor(3 * (value + 0.5) / n))];
    const row = third(Math.floor(best / grid[1]), grid[0], ['top', 'middle', 'bottom']);
    const col = third(best % grid[1], grid[1], ['left', 'centre', 'right']);
    const parts = [row, col].filter(part => part !== 'middle' && part !== 'centre');
    return parts.length ? `at the ${parts.join(' ')}` : 'in the centre';
  }

  /** A labelled bar from 0 to 1. */
  function meter(label, title) {
    const value = make('output', 'value'), fill = make('i');
    const row = make('div', 'meter', {title}, make('span', 'label', null, label), make('span', 'track', null, fill),
      value);
    return {row, set(amount) {
      row.hidden = amount === null || amount === undefined;
      fill.style.width = `${100 * (amount || 0)}%`;
      value.textContent = row.hidden ? '' : amount.toFixed(2);
    }};
  }

  function picture(photo, options) {
    const frame = make('div', 'frame');
    const missing = () => {
      frame.classList.add('no-photo');
      frame.prepend(make('p', 'missing', null, options.missing || 'The photo is missing.'));
    };
    if (photo) {
      const image = make('img', '', {alt: options.name ? `Photo ${options.name}` : 'The photo', decoding: 'async'});
      image.onerror = () => { image.remove(); missing(); };
      image.src = photo;
      frame.append(image);
    } else missing();
    return frame;
  }

  function view(element, record, photo, options = {}) {
    element.replaceChildren();
    const captions = record.captions || [];
    const root = make('div', 'attention', {tabindex: '-1', role: 'group', 'aria-label': 'Caption and attention'});
    const frame = picture(photo, options), side = make('div', 'side');
    root.append(frame, side);
    element.append(root);
    const finished = {word() {}, caption() {}, stop() {}, focus: () => root.focus({preventScroll: true})};
    if (record.error || !captions.length) {
      side.append(make('p', 'notice', {role: 'alert'}, record.error || 'No caption.'));
      return finished;
    }

    const sentence = make('p', 'sentence', {role: 'group', 'aria-label': 'Words: arrow keys light one'});
    const shown = make('span', 'shown'), place = make('span', 'place');
    const chance = meter('p', 'Probability of the word'), gate = meter('β', 'Gate: how far the picture was let in');
    const play = make('button', 'play', {type: 'button'}, 'Play');
    const readout = make('div', 'readout', null, play, make('div', '', {role: 'status'},
      make('p', 'now', null, shown, place), chance.row, gate.row));
    const list = make('div', 'n-best', {role: 'group', 'aria-label': 'Captions, best first'});
    side.append(sentence, readout, list);
    const light = lamp(frame, record.grid), gated = captions.some(c => c.betas.some(beta => beta !== 1));
    let k = 0, chosen = -1, buttons = [], player = 0;

    function show(i) {
      const caption = captions[k], lit = i >= 0;
      light.show(...(lit ? word(caption, record.grid, i) : [null]));
      buttons.forEach((button, j) => button.classList.toggle('lit', j === i));
      readout.classList.toggle('idle', !lit);
      shown.textContent = lit ? caption.words[i] : 'The whole photo';
      place.textContent = lit ? `brightest ${whereabouts(word(caption, record.grid, i)[0], record.grid)}`
        : 'point at a word, or press →';
      chance.set(lit && caption.probabilities ? caption.probabilities[i] : null);
      gate.set(lit && gated ? caption.betas[i] : null);
    }

    function choose(i, focus = false) {
      chosen = Math.max(-1, Math.min(i, buttons.length - 1));
      buttons.forEach((button, j) => {
        button.setAttribute('aria-pressed', String(j === chosen));
        button.tabIndex = j === Math.max(chosen, 0) ? 0 : -1;
      });
      if (focus && chosen >= 0) buttons[chosen].focus({preventScroll: true});
      show(chosen);
    }

    function fill() {
      const caption = captions[k], named = new Set((caption.boxes || []).flatMap(box => box.words));
      buttons = caption.words.map((text, i) => {
        const bar = make('i');
        bar.style.width = `${100 * caption.betas[i]}%`;
        const button = make('button', named.has(i) ? 'word named' : 'word', {type: 'button'}, text);
        if (gated) button.append(make('span', 'gate', {'aria-hidden': 'true'}, bar));
        button.onclick = () => { stop(); choose(i); };
        button.onfocus = () => { if (i !== chosen) choose(i); };
        button.onpointerenter = event => { if (event.pointerType === 'mouse' && !player) show(i); };
        return button;
      });
      sentence.replaceChildren(...(buttons.length ? buttons.flatMap((b, i) => i ? [' ', b] : [b]) : ['(no word)']));
      if (!caption.ended) sentence.append(make('span', 'cut', {title: 'Cut at the longest length'}, ' …'));
      [...list.children].forEach((row, j) => row.setAttribute('aria-pressed', String(j === k)));
      play.disabled = !buttons.length;
    }

    function pick(number) {
      const focused = buttons.includes(document.activeElement);
      k = Math.max(0, Math.min(number, captions.length - 1));
      fill();
      choose(Math.min(chosen, buttons.length - 1), focused);
      if (focused && chosen < 0) root.focus({preventScroll: true});
    }

    function stop() {
      clearInterval(player);
      player = 0;
      play.textContent = 'Play';
    }

    function start() {
      const next = () => { if (chosen + 1 < buttons.length) choose(chosen + 1); else { stop(); choose(-1); } };
      if (chosen === buttons.length - 1) choose(-1);
      player = setInterval(next, STEP);
      play.textContent = 'Stop';
      next();
    }

    const step = i => { stop(); choose(i, true); };
    const keys = {
      ArrowRight: () => step(chosen + 1), ArrowLeft: () => step(chosen - 1), Home: () => step(0),
      End: () => step(buttons.length - 1), ArrowDown: () => pick(k + 1), ArrowUp: () => pick(k - 1),
      p: () => play.click(),
    };
    root.onkeydown = event => {
      const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
      if (!Object.hasOwn(keys, key) || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      keys[key]();
    };
    sentence.onpointerleave = () => { if (!player) show(chosen); };
    frame.onclick = () => { stop(); choose(-1); };
    play.onclick = () => { if (player) stop(); else start(); };

    if (captions.length > 1) {
      captions.forEach((caption, j) => {
        const row = make('button', 'candidate', {type: 'button'}, make('span', 'rank', null, String(j + 1)),
          make('span', 'text', null, caption.words.join(' ') || '(no word)'));
        if (typeof caption.score === 'number') {
          row.append(make('span', 'value', {title: 'Score that ranks it'}, signed(caption.score)));
        }
        row.onclick = () => { stop(); pick(j); };
        list.append(row);
      });
    } else list.hidden = true;
    fill();
    choose(-1);
    return {word: choose, caption: pick, stop: () => { stop(); light.remove(); }, focus: finished.focus};
  }

  /** A button through the system's colours, light and dark; the choice is kept where the browser allows it. */
  function theme(button) {
    const names = ['auto', 'light', 'dark'], signs = {auto: '◐', light: '○', dark: '●'};
    const stored = () => { try { return localStorage.getItem('theme'); } catch { return null; } };
    let now = names.includes(stored()) ? stored() : 'auto';
    const apply = () => {
      if (now === 'auto') delete document.documentElement.dataset.theme;
      else document.documentElement.dataset.theme = now;
      button.textContent = `${signs[now]} ${now}`;
      button.setAttribute('aria-label', `Colours: ${now}. Change`);
    };
    button.onclick = () => {
      now = names[(names.indexOf(now) + 1) % names.length];
      try { localStorage.setItem('theme', now); } catch { /* kept for this visit only */ }
      apply();
    };
    apply();
  }

  return {view, lamp, word, theme, make, signed};
})();
