// Looks at the checkout page as payers do: in Chromium, on a desk and on a phone, in English and
// in Chinese, from a running `tidegate dev`. Driven by tests/it/checkout_browser.rs, which sets:
//
//   TIDEGATE_BASE_URL, TIDEGATE_API_KEY   the sandbox
//   TIDEGATE_NPM, TIDEGATE_CHROMIUM       the folder of playwright-core, the browser
//   TIDEGATE_SCREENSHOTS                  optional: a folder for pictures of every state
//
// Prints one line a story and ends with 1 at the first thing that is not as it should be. What a
// payer would notice is asked of the page's words and values; ids are used to find the buttons.
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const env = (name) => {
  assert(process.env[name], `${name} is not set`);
  return process.env[name];
};
const base = env("TIDEGATE_BASE_URL");
const pictures = process.env.TIDEGATE_SCREENSHOTS;
const { chromium } = createRequire(join(env("TIDEGATE_NPM"), "x.js"))("playwright-core");

const WAIT_MS = 30_000; // far above what anything takes
const DEVICES = {
  desk: { viewport: { width: 1280, height: 900 } },
  phone: { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true, deviceScaleFactor: 2 },
};
const WORDS = {
  en: { html: "en", pay: "Send your payment", choose: "Choose a network", paid: "Paid", part: "Part of the payment has arrived", expired: "This order has expired", noHash: "not a transaction hash", unknown: "does not know this transaction", found: ["recorded for this order", "it counts"] },
  zh: { html: "zh-CN", pay: "请转账付款", choose: "选择转账网络", paid: "付款成功", part: "已收到部分款项", expired: "订单已过期", noHash: "不是有效的交易哈希", unknown: "没有该笔交易", found: ["已记录到此订单", "已计入此订单"] },
};

const browser = await chromium.launch({
  executablePath: env("TIDEGATE_CHROMIUM"),
  args: [
    "--no-sandbox", // Chromium refuses its sandbox to root, as which CI runs
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});

async function createOrder(body) {
  const answer = await fetch(`${base}/api/v1/orders`, {
    method: "POST",
    headers: { authorization: `Bearer ${env("TIDEGATE_API_KEY")}`, "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  assert.equal(answer.status, 201, await answer.clone().text());
  return answer.json();
}

// A payer's own browser. What it must never do is collected, and checked when it closes.
async function payer(device, lang, options = {}) {
  const context = await browser.newContext({ ...DEVICES[device], locale: lang, ...options });
  if (options.javaScriptEnabled !== false) {
    await context.grantPermissions(["clipboard-read", "clipboard-write"], { origin: base });
  }
  const page = await context.newPage();
  page.setDefaultTimeout(WAIT_MS);
  const wrong = [];
  let loads = 0;
  let eventStreams = 0;
  page.on("console", (message) => message.type() === "error" && wrong.push(`console: ${message.text()}`));
  page.on("pageerror", (error) => wrong.push(`script: ${error}`));
  page.on("request", (request) => {
    const url = new URL(request.url());
    if (url.protocol !== "data:" && url.origin !== new URL(base).origin) wrong.push(`another host: ${url}`);
    if (request.isNavigationRequest()) loads += 1;
  });
  page.on("response", (response) => {
    if (response.status() >= 400) wrong.push(`${response.status()} ${response.url()}`);
    if ((response.headers()["content-type"] ?? "").startsWith("text/event-stream")) eventStreams += 1;
  });
  return {
    page,
    loads: () => loads,
    eventStreams: () => eventStreams,
    async titled(title) {
      try {
        await page.waitForFunction((title) => document.getElementById("state-title")?.innerText.trim() === title, title);
      } catch (error) {
        throw new Error(`the page does not come to say "${title}": ${await page.locator("body").innerText()}`, { cause: error });
      }
    },
    // Nothing is cut off, nothing must be scrolled sideways.
    async fits() {
      const [content, width] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
      assert(content <= width, `${content} px of content on ${width} px of ${device}`);
    },
    async picture(state) {
      if (!pictures) return;
      mkdirSync(pictures, { recursive: true });
      await page.screenshot({ path: join(pictures, `checkout-${state}-${device}-${lang}.png`), fullPage: true });
    },
    async close() {
      assert.deepEqual(wrong, [], `${device}, ${lang}`);
      await context.close();
    },
  };
}

const checkout = (order, lang) => `${base}/pay/${order.id}?lang=${lang}`;

async function readsItOn(device, lang) {
  const order = await createOrder({ amount: "1234.5", network: "tron", expires_in: 1800 });
  const { page, ...it } = await payer(device, lang);
  await page.goto(checkout(order, lang));
  await it.titled(WORDS[lang].pay);
  assert.equal(await page.getAttribute("html", "lang"), WORDS[lang].html);
  await it.fits();

  // The amount and the address, to be read, and to be copied exactly.
  const squeeze = async (selector) => (await page.locator(selector).first().innerText()).replace(/\s/g, "");
  assert.match((await squeeze(".field-amount .figure")).replace(/,/g, ""), /^1234\.50*USDT$/);
  assert.equal(await squeeze("#address"), order.address);
  const copied = async (button) => {
    await page.evaluate(() => navigator.clipboard.writeText("nothing"));
    await page.click(button);
    await page.waitForFunction(async () => (await navigator.clipboard.readText()) !== "nothing");
    return page.evaluate(() => navigator.clipboard.readText());
  };
  assert.match(await copied("#copy-amount"), /^1234\.50*$/);
  assert.equal(await copied("#copy-address"), order.address);

  // A code to scan, large enough for a camera, dark on light with a margin of its own.
  const code = page.locator(".qr svg");
  assert.equal(await code.count(), 1);
  await code.scrollIntoViewIfNeeded();
  const size = await code.boundingBox();
  assert(size.width >= 120 && Math.abs(size.width - size.height) < 2, JSON.stringify(size));

  // The clock runs, downwards, from half an hour.
  const left = async () => {
    const text = await page.locator("[data-countdown]").innerText();
    const [minutes, seconds] = text.match(/^(\d+):(\d\d)$/).slice(1).map(Number);
    return minutes * 60 + seconds;
  };
  const before = await left();
  assert(before > 1700 && before <= 1800, `${before} s left of 1800`);
  await page.waitForFunction((old) => document.querySelector("[data-countdown]").innerText !== old, await page.locator("[data-countdown]").innerText());
  const after = await left();
  assert(after < before && after > before - 10, `${before} s, then ${after} s`);
  await it.picture("pay");
  await it.close();
}

async function watchesItBeingPaid() {
  const order = await createOrder({ amount: "12.5", network: "ethereum", expires_in: 1800 });
  const [payerHere, watcher] = [await payer("desk", "en"), await payer("phone", "zh")];
  await payerHere.page.goto(checkout(order, "en"));
  await watcher.page.goto(checkout(order, "zh"));
  await payerHere.titled(WORDS.en.pay);
  await watcher.titled(WORDS.zh.pay);
  for (const { page } of [payerHere, watcher]) await page.evaluate(() => (window.stillTheSamePage = true));

  // One pays by the panel; both see it, and neither page is loaded again.
  await payerHere.page.click("#sandbox-exact");
  for (const [it, lang] of [[payerHere, "en"], [watcher, "zh"]]) {
    await it.titled(WORDS[lang].paid);
    assert.equal(await it.page.evaluate(() => window.stillTheSamePage), true, "the page was loaded again");
    assert.equal(it.loads(), 1);
    assert(it.eventStreams() >= 1, "no server-sent events");
    assert.equal(await it.page.locator("#copy-address").count(), 0, "a paid order still asks for money");
    await it.fits();
    await it.picture("paid");
  }
  // Opened later, it says the same.
  await watcher.page.goto(checkout(order, "zh"));
  await watcher.titled(WORDS.zh.paid);
  await payerHere.close();
  await watcher.close();
}

async function paysInParts() {
  const order = await createOrder({ amount: "12.5", network: "ethereum", expires_in: 1800 });
  const { page, ...it } = await payer("phone", "en");
  await page.goto(checkout(order, "en"));
  await it.titled(WORDS.en.pay);
  await page.click("#sandbox-less");
  await it.titled(WORDS.en.part);
  const rest = Number(await page.getAttribute("#copy-amount", "data-copy"));
  assert(rest > 0 && rest < 12.5, `the rest is ${rest}`);
  await it.fits();
  await it.picture("part");
  await it.close();
}

async function choosesANetwork(device, lang) {
  const order = await createOrder({ amount: "12.5", expires_in: 1800 });
  const { page, ...it } = await payer(device, lang);
  await page.goto(checkout(order, lang));
  await it.titled(WORDS[lang].choose);
  assert.equal(await page.locator("#address").count(), 0);
  await it.fits();
  await it.picture("choose");
  await page.click("#network-tron");
  await it.titled(WORDS[lang].pay);
  assert.match(await page.getAttribute("#copy-address", "data-copy"), /^T[1-9A-HJ-NP-Za-km-z]{33}$/);
  await it.close();
}

async function seesItExpire(device, lang) {
  const order = await createOrder({ amount: "12.5", network: "ethereum", expires_in: 3 });
  const { page, ...it } = await payer(device, lang);
  await page.goto(checkout(order, lang));
  // Nobody touches anything: the page comes to say so, and takes the address away.
  await it.titled(WORDS[lang].expired);
  assert.equal(it.loads(), 1);
  assert.equal(await page.locator("#copy-address").count(), 0);
  assert(!(await page.content()).includes(order.address), "the address is still there");
  await it.fits();
  await it.picture("expired");
  await page.reload();
  await it.titled(WORDS[lang].expired);
  await it.close();
}

async function paysWithoutScripts() {
  const order = await createOrder({ amount: "12.5", network: "tron", expires_in: 1800 });
  const { page, ...it } = await payer("phone", "en", { javaScriptEnabled: false });
  await page.goto(checkout(order, "en"));
  assert.equal((await page.locator("#address").innerText()).replace(/\s/g, ""), order.address);
  assert(await page.locator(".qr svg").isVisible());
  await it.close();
}

// Types hashes while the page goes on living: what is typed and what was answered stay.
async function handsInAHash(device, lang, options = {}) {
  const order = await createOrder({ amount: "12.5", network: "ethereum", expires_in: 1800 });
  const { page, ...it } = await payer(device, lang, options);
  const look = options.colorScheme ? `-${options.colorScheme}` : "";
  await page.goto(checkout(order, lang));
  await it.titled(WORDS[lang].pay);
  const field = page.locator("#handin-hash");
  assert(!(await field.isVisible()), "the form is in the way of who has not paid");
  await page.click("#handin-summary");
  await field.waitFor({ state: "visible" });
  assert(parseFloat(await field.evaluate((field) => getComputedStyle(field).fontSize)) >= 16, "a phone would zoom in");
  assert(await page.evaluate(() => document.querySelector("label[for=handin-hash]").innerText.trim().length > 0));

  const ask = async (hash) => {
    const before = await page.locator("#answer").innerText();
    await field.fill(hash);
    await page.click("#handin-send");
    await page.waitForFunction((before) => {
      const answer = document.querySelector("#answer:not([hidden])");
      return answer && answer.innerText !== before;
    }, before);
    return page.locator("#answer").innerText();
  };
  assert((await ask("12.5 USDT")).includes(WORDS[lang].noHash));
  const unknown = await ask("0x" + "ab".repeat(32));
  assert(unknown.includes(WORDS[lang].unknown), unknown);
  await it.fits();
  await it.picture(`handed${look}`);

  // The page looks again, as it does every half minute: the answer is still there to be read.
  const shownAt = await page.getAttribute("#order", "data-server-time");
  await page.evaluate(() => window.dispatchEvent(new Event("online")));
  await page.waitForFunction((old) => document.getElementById("order").dataset.serverTime !== old, shownAt);
  assert.equal(await page.locator("#answer").innerText(), unknown);

  // So it is when the page has looked between the question and its answer.
  await page.route("**/transaction?*", async (route) => {
    const answer = await route.fetch();
    const shownAt = await page.getAttribute("#order", "data-server-time");
    await page.evaluate(() => window.dispatchEvent(new Event("online")));
    await page.waitForFunction((old) => document.getElementById("order").dataset.serverTime !== old, shownAt);
    await route.fulfill({ response: answer });
  });
  assert((await ask("neither")).includes(WORDS[lang].noHash));
  await page.unroute("**/transaction?*");

  // Money arrives while the payer types: the page shows it, and leaves him his words and his place.
  await field.fill("0x1234");
  await field.press("ArrowLeft");
  const paid = await fetch(`${base}/pay/${order.id}/sandbox`, {
    method: "POST",
    headers: { "content-type": "application/x-www-form-urlencoded" },
    body: "network=ethereum&kind=less",
    redirect: "manual",
  });
  assert.equal(paid.status, 303);
  await it.titled(WORDS[lang].part);
  assert.equal(await field.inputValue(), "0x1234");
  await field.press("5");
  assert.equal(await field.inputValue(), "0x12354", "the caret has moved");
  // Blocks come and are counted; what says the same as before is left alone, whatever is counted.
  const same = await field.elementHandle();
  const counted = () => page.locator(".transfers .badge").innerText();
  const before = await counted();
  await page.waitForFunction((old) => document.querySelector(".transfers .badge").innerText !== old, before);
  assert(await same.evaluate((field) => field.isConnected && document.activeElement === field), "the field was taken away from who types");
  assert.equal(await page.locator("#answer").isVisible(), false, "an old answer about a new state");

  // The hash of that money finds it, and it says so.
  const known = await fetch(`${base}/api/v1/orders/${order.id}`, { headers: { authorization: `Bearer ${env("TIDEGATE_API_KEY")}` } });
  const [transfer] = (await known.json()).transfers;
  const found = await ask(transfer.tx_hash);
  assert(WORDS[lang].found.some((words) => found.includes(words)), found);
  await it.fits();
  await it.picture(`handed-found${look}`);
  assert.equal(it.loads(), 1);
  await it.close();
}

async function handsItInWithoutScripts() {
  const order = await createOrder({ amount: "12.5", network: "tron", expires_in: 1800 });
  const { page, ...it } = await payer("phone", "zh", { javaScriptEnabled: false });
  await page.goto(checkout(order, "zh"));
  await page.click("#handin-summary");
  await page.fill("#handin-hash", "ab".repeat(32));
  await page.click("#handin-send");
  await page.waitForURL(/\/transaction/);
  const answer = page.locator("#answer");
  assert((await answer.innerText()).includes(WORDS.zh.unknown));
  const { y, height } = await answer.boundingBox();
  assert(y >= 0 && y + height <= DEVICES.phone.viewport.height, "the answer is out of sight");
  await it.picture("handed-plain");
  await it.close();
}

async function asksForNothing() {
  const { page } = await payer("desk", "en");
  const answer = await page.goto(`${base}/pay/ord_nothing`);
  assert.equal(answer.status(), 404);
  assert.match(answer.headers()["content-type"], /^text\/html/);
  assert((await page.locator("h1").innerText()).length > 0);
  await page.context().close();
}

let story = "";
const tell = async (name, act) => {
  story = name;
  const start = Date.now();
  await act();
  console.log(`ok   ${name} (${Date.now() - start} ms)`);
};
try {
  for (const device of Object.keys(DEVICES)) {
    for (const lang of Object.keys(WORDS)) await tell(`reads it on a ${device} in ${lang}`, () => readsItOn(device, lang));
  }
  await tell("watches it being paid", watchesItBeingPaid);
  await tell("pays in parts", paysInParts);
  await tell("chooses a network on a phone", () => choosesANetwork("phone", "en"));
  await tell("chooses a network on a desk", () => choosesANetwork("desk", "zh"));
  await tell("sees it expire on a desk", () => seesItExpire("desk", "en"));
  await tell("sees it expire on a phone", () => seesItExpire("phone", "zh"));
  await tell("pays without scripts", paysWithoutScripts);
  await tell("hands in a hash on a desk", () => handsInAHash("desk", "en"));
  await tell("hands in a hash on a phone", () => handsInAHash("phone", "zh"));
  await tell("hands in a hash on a phone at night", () => handsInAHash("phone", "en", { colorScheme: "dark" }));
  await tell("hands in a hash without scripts", handsItInWithoutScripts);
  await tell("asks for an order that is not there", asksForNothing);
} catch (error) {
  console.log(`FAIL ${story}`);
  console.error(error);
  process.exitCode = 1;
} finally {
  await browser.close();
}
