// A click answers at once: what was clicked looks busy until the server has answered, and a picked row looks picked.
//
// `events.on` gives every button and every piece of HTML that asks the server the class `answers`, names with
// `fills--<id>` the place that the answer fills, and calls `studioClicks.over` when the answer is there. Marks are
// attributes, which Svelte leaves alone; where gr.HTML renews its cells they are put back before the next frame.
(() => {
  const STAYS_MS = 1500;  // a pick may be renewed by a tick that does not know of it yet
  const FILL_MS = 4000;   // an answer that changes nothing in its place leaves no mark there
  const REVEAL_MS = 6000;
  // Inside HTML of ours: what asks the server. All else there (copy, unfold, the tour) answers by itself.
  const ASKS = 'tr[data-key], [data-tab], [data-language], [data-changes], [data-vote], [data-download], [data-asks]';
  const pending = new Map();  // id of the host -> what is marked
  const calm = () => matchMedia('(prefers-reduced-motion: reduce)').matches;

  const rowOf = (host, key) => host.querySelector(`tr[data-key="${CSS.escape(key)}"]`);
  const pickedIn = (host) => host.querySelector('tr[aria-selected="true"]')?.dataset.key ?? '';

  function set(element, name, value) {
    if (element && element.getAttribute(name) !== value) element.setAttribute(name, value);
  }

  function pick(host, key) {
    for (const row of host.querySelectorAll('tr[data-key]')) {
      set(row, 'aria-selected', row.dataset.key === key ? 'true' : 'false');
    }
  }

  function paint(mark) {
    const element = mark.find();
    if (mark.key !== undefined && rowOf(mark.host, mark.key)) pick(mark.host, mark.key);
    if (mark.over) return;
    set(element, 'aria-busy', 'true');
    if (mark.key === undefined) set(element, 'aria-disabled', 'true');
  }

  function clear(mark) {
    const element = mark.find();
    element?.removeAttribute('aria-busy');
    element?.removeAttribute('aria-disabled');
  }

  function begin(host, mark) {
    forget(host.id);
    const watcher = new MutationObserver(() => paint(mark));
    Object.assign(mark, {host, watcher});
    pending.set(host.id, mark);
    paint(mark);
    watcher.observe(host, {subtree: true, childList: true, attributes: true, attributeFilter: ['aria-busy', 'aria-selected']});
    for (const name of host.classList) if (name.startsWith('fills--')) fill(name.slice(7));
  }

  function forget(id) {
    const mark = pending.get(id);
    if (!mark) return;
    pending.delete(id);
    mark.watcher.disconnect();
    if (!mark.over) clear(mark);
  }

  function fill(id) {
    set(document.getElementById(id), 'aria-busy', 'true');
  }

  function filled(id) {
    const place = document.getElementById(id);
    if (!place || place.getAttribute('aria-busy') !== 'true') return;
    const done = () => { watcher.disconnect(); clearTimeout(late); place.removeAttribute('aria-busy'); };
    const watcher = new MutationObserver(done);
    const late = setTimeout(done, FILL_MS);
    watcher.observe(place, {subtree: true, childList: true, characterData: true});
  }

  function reveal(id) {
    const until = performance.now() + REVEAL_MS;
    const look = () => {
      const box = document.getElementById(id)?.getBoundingClientRect();
      if (!box || !box.height) {
        if (performance.now() < until) setTimeout(look, 50);
        return;
      }
      const seen = box.top >= 0 && Math.min(box.bottom, box.top + 120) <= innerHeight;
      if (!seen) document.getElementById(id).scrollIntoView({block: 'start', behavior: calm() ? 'auto' : 'smooth'});
    };
    look();
  }

  // What asks the server when this is clicked: its host, and how to find it again once the host was renewed.
  function asking(target) {
    const button = target.closest('button.answers');
    if (button) return button.disabled ? null : [button, {find: () => button}];
    const host = target.closest('.block.answers');
    if (!host || target.closest('[data-copy], a, summary')) return null;
    if (target.closest('dialog')) return target.closest('[data-answer="ok"]') ? [host, null] : null;
    const inside = target.closest(ASKS);
    if (!inside || !host.contains(inside)) return null;
    const key = inside.dataset.key;
    if (key !== undefined) return [host, {key, before: pickedIn(host), find: () => rowOf(host, key)}];
    const place = [...host.querySelectorAll('button')].indexOf(inside);
    return [host, {find: () => host.querySelectorAll('button')[place]}];
  }

  document.addEventListener('click', (event) => {
    const found = event.target instanceof Element ? asking(event.target) : null;
    if (!found) return;
    const [host, mark] = found, now = pending.get(host.id);
    if (now && !now.over && (now.key === undefined || now.key === mark?.key)) {
      event.preventDefault();
      event.stopImmediatePropagation();
    } else if (mark) {
      begin(host, mark);
    } else {
      setTimeout(() => {  // the dialog is closed and the focus is back on what opened it
        const opener = document.activeElement?.closest('button.answers');
        if (opener) begin(host, {find: () => opener});
      });
    }
  }, true);

  window.studioClicks = {
    // The server has answered: hosts by id, and what the page is to scroll to.
    over(ids, places, seen) {
      for (const id of ids) {
        const mark = pending.get(id);
        if (!mark || mark.over) continue;
        clear(mark);
        mark.over = true;
        if (mark.key === undefined) forget(id);
        else setTimeout(() => { if (pending.get(id) === mark) forget(id); }, STAYS_MS);
      }
      places.forEach(filled);
      if (seen) reveal(seen);
    },
    // The server has refused: a picked row is given back.
    failed(ids, places) {
      for (const id of ids) {
        const mark = pending.get(id);
        if (!mark) continue;
        forget(id);
        if (mark.key !== undefined) pick(mark.host, mark.before);
      }
      for (const place of places) document.getElementById(place)?.removeAttribute('aria-busy');
    },
  };
})();
