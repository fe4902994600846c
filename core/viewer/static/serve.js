/* The page of caption.py --serve: photos that are dropped, chosen or pasted go to POST /caption, one request each, and
   what comes back is shown by viewer.js. Names and captions are set as texts, never parsed. */
'use strict';

(() => {
  const {view, theme, make} = Attention;
  const by = id => document.getElementById(id);
  const drop = by('drop'), choose = by('choose'), results = by('results'), status = by('status');
  const AT_ONCE = 4;      // requests under way: the server decodes together what comes together
  const queue = [];
  let limits = {max_bytes: Infinity}, underway = 0, done = 0, wanted = 0;

  theme(by('theme'));
  fetch('about').then(answer => answer.json()).then(about => {
    limits = about;
    const beam = about.beam_width > 1 ? `beam of ${about.beam_width}` : 'greedy search';
    by('about').textContent = `${about.run}, step ${about.step}: ${about.encoder}, `
      + `${about.grid[0]} × ${about.grid[1]} places, ${beam}`;
    by('limits').textContent = `${about.formats.join(', ')}; up to ${Math.round(about.max_bytes / 1e6)} MB each. `
      + 'Photos are not kept.';
  }).catch(() => { status.textContent = 'The server does not answer.'; });

  function card(name) {
    const remove = make('button', 'remove', {type: 'button', 'aria-label': `Remove ${name}`}, '✕');
    const body = make('div', '', null, make('p', 'waiting', null, 'waiting …'));
    const element = make('article', 'result', {'aria-label': name}, make('header', '', null,
      make('h2', '', null, name), remove), body);
    results.prepend(element);
    return {element, body, remove};
  }

  function add(files) {
    for (const file of files) {
      const name = file.name || 'pasted photo', shown = card(name), job = {file, name, shown};
      shown.remove.onclick = () => {
        if (job.view) job.view.stop();
        job.removed = true;
        shown.element.remove();
        drop.focus();
      };
      wanted += 1;
      queue.push(job);
    }
    advance();
  }

  function advance() {
    while (underway < AT_ONCE && queue.length) {
      const job = queue.shift();
      underway += 1;
      caption(job).catch(error => show(job, {error: error.message})).finally(() => {
        underway -= 1;
        done += 1;
        advance();
      });
    }
    status.textContent = done < wanted ? `${done} of ${wanted} photos` : '';
  }

  async function caption(job) {
    if (job.removed) return;
    if (job.file.size > limits.max_bytes) {
      throw new Error(`${job.name} has ${(job.file.size / 1e6).toFixed(1)} MB; up to `
        + `${Math.round(limits.max_bytes / 1e6)} MB are taken`);
    }
    const form = new FormData();
    form.append('photo', job.file, job.name);
    const answer = await fetch('caption', {method: 'POST', body: form})
      .catch(() => { throw new Error('The server does not answer.'); });
    const said = await answer.json().catch(() => ({error: `The server answered ${answer.status}.`}));
    show(job, answer.ok ? said.results[0] : {error: said.error});
  }

  function show(job, record) {
    if (job.removed) return;
    if (record.error) {
      job.shown.body.replaceChildren(make('p', 'notice', {role: 'alert'}, record.error));
      return;
    }
    job.view = view(job.shown.body, record, record.photo, {name: job.name});
    if (!results.contains(document.activeElement)) job.view.focus();
  }

  choose.onchange = () => { add(choose.files); choose.value = ''; };
  for (const kind of ['dragenter', 'dragover']) {
    addEventListener(kind, event => { event.preventDefault(); drop.classList.add('over'); });
  }
  addEventListener('dragleave', event => { if (!event.relatedTarget) drop.classList.remove('over'); });
  addEventListener('drop', event => {
    event.preventDefault();
    drop.classList.remove('over');
    if (event.dataTransfer.files.length) add(event.dataTransfer.files);
    else status.textContent = 'That is no file: save the picture first, then drop it.';
  });
  addEventListener('paste', event => {
    const files = [...event.clipboardData.files];
    if (files.length) add(files);
    else status.textContent = 'There is no picture on the clipboard.';
  });
})();
