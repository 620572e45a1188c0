// The checkout page works without this file. What it adds: the page follows the order by itself,
// the countdown runs, values are copied at a touch, and changes are read out.
//
// It knows no order states. On every event it fetches the same fragment that the server put into
// the page and swaps it in. The client's clock is never trusted: only how much time has gone by
// since the server last told its own.
(function () {
  "use strict";

  const POLL_MS = 5000; // while events do not come through
  const CHECK_MS = 30000; // while they do: a safety net under a proxy that holds them back
  const REST_MS = 60000; // when the order is over
  const EVENTS_RETRY_MS = 10000;
  const FETCH_LIMIT_MS = 15000;

  const page = document.documentElement;
  const body = document.body;
  const live = document.getElementById("live");
  const offline = document.getElementById("offline");
  page.classList.add("js");

  const order = document.getElementById("order");
  if (!order) return;

  // --- Time -------------------------------------------------------------------------------

  let serverAt = 0; // the server's time, and the moment here when it was told
  let toldAt = 0;
  let tickedAt = Date.now();
  let askedAtZero = false;

  function tellTime(element, asked) {
    const time = Date.parse(element.dataset.serverTime);
    if (Number.isNaN(time)) return;
    // The answer was made after we asked for it; the start of the request is the safe bound.
    serverAt = time;
    toldAt = asked;
  }

  function left() {
    const expires = Date.parse(order.dataset.expiresAt);
    return expires - (serverAt + (performance.now() - toldAt));
  }

  function two(number) {
    return String(number).padStart(2, "0");
  }

  function countdownText(ms) {
    const s = Math.max(0, Math.ceil(ms / 1000));
    const hours = Math.floor(s / 3600);
    const rest = two(Math.floor(s / 60) % 60) + ":" + two(s % 60);
    return hours > 0 ? hours + ":" + rest : rest;
  }

  function tick() {
    // A gap between ticks means that the device slept or its clock was set: ask the server.
    const now = Date.now();
    if (Math.abs(now - tickedAt) > 5000) refresh();
    tickedAt = now;

    const shown = order.querySelector("[data-countdown]");
    if (!shown) return;
    const ms = left();
    if (Number.isNaN(ms)) return;
    const text = countdownText(ms);
    if (shown.textContent !== text) shown.textContent = text;
    order.classList.toggle("is-soon", ms < 300000 && ms > 0);
    // Hides the address at once, even when the server cannot be asked.
    order.classList.toggle("is-over", ms <= 0);
    if (ms <= 0 && !askedAtZero) {
      askedAtZero = true;
      setTimeout(refresh, 300);
    } else if (ms > 0) {
      askedAtZero = false;
    }
  }

  // --- The fragment -------------------------------------------------------------------------

  // What a part of the page says, without what changes each second and what the reader has done to
  // it.
  function words(part) {
    const copy = document.createElement("div");
    copy.append(part.cloneNode(true));
    for (const shown of copy.querySelectorAll("[data-countdown]")) shown.textContent = "";
    for (const details of copy.querySelectorAll("details")) details.open = false;
    for (const field of copy.querySelectorAll("input[type=text]")) field.removeAttribute("value");
    return copy.innerHTML;
  }

  // What each part said when it was put there: what was copied or told in local time is ours.
  const said = new WeakMap();
  const remember = (part) => said.set(part, words(part));
  Array.from(order.children).forEach(remember);

  // Puts the parts of `next` in place of ours. One that says the same is not touched at all:
  // somebody may be typing in it, selecting the address, or about to let go of a button. True when
  // anything was.
  function replaceParts(next) {
    let mine = Array.from(order.children);
    let touched = false;
    for (const part of Array.from(next.children)) {
      remember(part);
      const same = mine.findIndex((old) => said.get(old) === said.get(part));
      if (same < 0) {
        order.insertBefore(part, mine[0] || null);
        touched = true;
      } else {
        for (const old of mine.slice(0, same)) old.remove();
        touched = touched || same > 0;
        mine = mine.slice(same + 1);
      }
    }
    for (const old of mine) old.remove();
    for (const attribute of next.attributes) order.setAttribute(attribute.name, attribute.value);
    order.className = next.className;
    return touched || mine.length > 0;
  }

  // What the reader has typed or picked, to be put into the next fragment.
  function filled() {
    const touched = Array.from(order.querySelectorAll("input[type=text], select")).filter((field) => {
      if (field.tagName !== "SELECT") return field.value !== field.defaultValue;
      return Array.from(field.options).some((option) => option.selected !== option.defaultSelected);
    });
    return touched.map((field) => [field.id, field.value]);
  }

  // An answer stays until the order's state changes or another takes its place: a fragment that was
  // asked for later knows nothing of it.
  function keepAnswer(next) {
    const shown = order.querySelector("#handin #answer:not([hidden])");
    const place = next.querySelector("#handin #answer[hidden]");
    if (shown && place && next.dataset.announce === order.dataset.announce) place.replaceWith(shown.cloneNode(true));
  }

  let announced = order.dataset.announce;

  let latestAsked = 0;

  // Puts the #order of `html`, which was asked for at `asked`, in place of ours. False when there is
  // none in it.
  function swap(html, asked) {
    const found = new DOMParser().parseFromString(html, "text/html").getElementById("order");
    if (!found) return false;
    // What was asked for earlier than what is shown is older: let it go.
    if (asked < latestAsked) return true;
    latestAsked = asked;
    show(found, asked);
    return true;
  }

  function show(found, asked) {
    const next = document.importNode(found, true);
    keepAnswer(next);
    tellTime(next, asked);
    const focused = order.contains(document.activeElement) ? document.activeElement : null;
    const caret = focused && focused.type === "text" ? [focused.selectionStart, focused.selectionEnd] : null;
    const fields = filled();
    const open = Array.from(order.querySelectorAll("details[open]"), (details) => details.id);
    const [x, y] = [window.scrollX, window.scrollY];
    if (replaceParts(next)) {
      for (const id of open) {
        const details = document.getElementById(id);
        if (details) details.open = true;
      }
      for (const [id, value] of fields) {
        const field = document.getElementById(id);
        if (field && field.value !== value) field.value = value;
      }
      enhance();
      if (focused && !focused.isConnected) {
        const again = focused.id && document.getElementById(focused.id);
        const target = again && !again.disabled ? again : document.getElementById("state-title");
        if (target) target.focus({ preventScroll: true });
        if (caret && target === again) target.setSelectionRange(...caret);
      }
      window.scrollTo(x, y);
    }
    document.title = order.dataset.title;
    if (order.dataset.announce !== announced) {
      announced = order.dataset.announce;
      say(announced);
    }
    tick();
  }

  // What a form is answered is shown whatever was asked for meanwhile: it is said only once. Where
  // the two have crossed, nobody knows which is newer, so the page asks again.
  function showAnswer(html, asked) {
    const found = new DOMParser().parseFromString(html, "text/html").getElementById("order");
    if (!found) return false;
    const crossed = asking || latestAsked > asked;
    latestAsked = performance.now();
    polledAt = latestAsked;
    show(found, asked);
    if (crossed) refresh();
    return true;
  }

  function say(text) {
    live.textContent = "";
    setTimeout(() => (live.textContent = text), 50);
  }

  // One question at a time, and never a lost one: what is asked meanwhile is asked once after.
  let asking = false;
  let askAgain = false;
  let failures = 0;

  async function refresh() {
    if (asking) {
      askAgain = true;
      return;
    }
    asking = true;
    const asked = performance.now();
    try {
      const answer = await request(order.dataset.fragment, {});
      if (answer.ok) swap(await answer.text(), asked);
      failures = answer.ok ? 0 : failures + 1;
    } catch {
      failures += 1;
    }
    asking = false;
    offline.hidden = failures < 2;
    if (askAgain) {
      askAgain = false;
      refresh();
    }
  }

  function request(url, options) {
    const stop = new AbortController();
    const timer = setTimeout(() => stop.abort(), FETCH_LIMIT_MS);
    return fetch(url, Object.assign({ credentials: "same-origin", cache: "no-store", signal: stop.signal }, options)).finally(
      () => clearTimeout(timer),
    );
  }

  // --- Events and polling -------------------------------------------------------------------

  let events = null;
  let eventsWork = false;
  let polledAt = performance.now();

  function listen() {
    if (!("EventSource" in window) || events) return;
    events = new EventSource(order.dataset.events);
    events.addEventListener("order", () => {
      eventsWork = true;
      refresh();
    });
    events.onerror = () => {
      eventsWork = false;
      // While CONNECTING the browser tries again; CLOSED means that it gave up.
      if (events.readyState === EventSource.CLOSED) {
        events = null;
        setTimeout(listen, EVENTS_RETRY_MS);
      }
    };
  }

  function poll() {
    const pause = order.dataset.live !== "true" ? REST_MS : eventsWork ? CHECK_MS : POLL_MS;
    if (document.hidden || performance.now() - polledAt < pause) return;
    polledAt = performance.now();
    refresh();
  }

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) refresh();
  });
  window.addEventListener("online", refresh);
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) refresh();
  });
  window.addEventListener("pagehide", () => {
    if (events) events.close();
    events = null;
    eventsWork = false;
  });
  window.addEventListener("pageshow", listen);

  // --- Copying ------------------------------------------------------------------------------

  async function copyText(text) {
    if (navigator.clipboard && window.isSecureContext) {
      try {
        await navigator.clipboard.writeText(text);
        return true;
      } catch {
        // Some wallets' browsers refuse; the old way below may still work.
      }
    }
    const area = document.createElement("textarea");
    area.value = text;
    area.readOnly = true;
    area.className = "unseen";
    body.append(area);
    const focused = document.activeElement;
    area.select();
    area.setSelectionRange(0, text.length);
    let done = false;
    try {
      done = document.execCommand("copy");
    } catch {
      done = false;
    }
    area.remove();
    if (focused instanceof HTMLElement) focused.focus({ preventScroll: true });
    return done;
  }

  async function copy(button) {
    const done = await copyText(button.dataset.copy);
    const text = done ? body.dataset.copied : body.dataset.copyFailed;
    say(text);
    const source = !done && button.dataset.copyFrom && document.getElementById(button.dataset.copyFrom);
    if (source) window.getSelection().selectAllChildren(source);
    const label = button.querySelector("[data-copy-text]");
    if (!label) return;
    if (!label.dataset.before) label.dataset.before = label.textContent;
    label.textContent = text;
    button.classList.toggle("is-copied", done);
    clearTimeout(button.copyTimer);
    button.copyTimer = setTimeout(() => {
      label.textContent = label.dataset.before;
      button.classList.remove("is-copied");
    }, 2000);
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest && event.target.closest("[data-copy]");
    if (button) copy(button);
  });

  // --- Forms --------------------------------------------------------------------------------

  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (!form.hasAttribute || !form.hasAttribute("data-swap")) return;
    event.preventDefault();
    if (form.getAttribute("aria-busy") === "true") return;
    const data = new URLSearchParams(new FormData(form));
    if (event.submitter && event.submitter.name) data.append(event.submitter.name, event.submitter.value);
    const error = form.querySelector(".form-error");
    if (error) error.hidden = true;
    form.setAttribute("aria-busy", "true");
    const asked = performance.now();
    let done = false;
    try {
      const answer = await request(form.action, { method: "POST", body: data, headers: { Accept: "text/html" } });
      const html = await answer.text();
      // The answer leads back to the page itself; anything else that went well is looked up.
      const swapped = showAnswer(html, asked);
      if (swapped) {
        const told = order.querySelector(".answer:not([hidden])");
        if (told) say(told.textContent);
      }
      if (!swapped && answer.ok) refresh();
      done = swapped || answer.ok;
    } catch {
      done = false;
    }
    form.removeAttribute("aria-busy");
    if (!done) {
      if (error) {
        error.textContent = body.dataset.formFailed;
        error.hidden = false;
      }
      refresh();
    }
  });

  // --- Start --------------------------------------------------------------------------------

  // Times of the day in the reader's own zone.
  function enhance() {
    for (const time of order.querySelectorAll("time[data-clock]")) {
      const at = new Date(time.dateTime);
      if (Number.isNaN(at.getTime())) continue;
      try {
        time.textContent = at.toLocaleString(page.lang, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });
      } catch {
        // The text from the server stays: it is in UTC and says so.
      }
    }
  }

  // The page's own time of birth is the safe bound for when the server made it.
  tellTime(order, 0);
  enhance();
  tick();
  setInterval(tick, 500);
  setInterval(poll, 1000);
  if (document.readyState === "complete") listen();
})();
