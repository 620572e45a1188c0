// Reads the documentation of the API in Chromium, and opens one call of it. Driven by
// tests/it/headers.rs, which sets TIDEGATE_BASE_URL, TIDEGATE_NPM and TIDEGATE_CHROMIUM. Ends with 1
// when something that the page needs is against its content security policy. Swagger UI tries to set
// a style inline, which is refused as it should be; the page is whole without it.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { join } from "node:path";

const env = (name) => {
  assert(process.env[name], `${name} is not set`);
  return process.env[name];
};
const base = env("TIDEGATE_BASE_URL");
const { chromium } = createRequire(join(env("TIDEGATE_NPM"), "x.js"))("playwright-core");

const browser = await chromium.launch({
  executablePath: env("TIDEGATE_CHROMIUM"),
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"],
});
const page = await browser.newPage();
page.setDefaultTimeout(30_000);
const wrong = [];
const isRefusedStyle = (text) => text.startsWith("Applying inline style violates");
page.on("console", (message) => {
  if (message.type() === "error" && !isRefusedStyle(message.text())) wrong.push(`console: ${message.text()}`);
});
page.on("pageerror", (error) => wrong.push(`script: ${error}`));
page.on("request", (request) => {
  const url = new URL(request.url());
  if (url.protocol !== "data:" && url.origin !== new URL(base).origin) wrong.push(`another host: ${url}`);
});
await page.goto(`${base}/docs/`);
const call = page.locator(".opblock-post").filter({ hasText: "/api/v1/orders" }).first();
await call.click();
await call.getByText("Responses").first().waitFor();
await browser.close();
assert.deepEqual(wrong, []);
