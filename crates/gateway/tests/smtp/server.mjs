// A mail server that keeps what it is given: smtp-server of Nodemailer, on a port of its own.
// Driven by tests/it/mail.rs, which sets:
//
//   TIDEGATE_NPM                  the folder of smtp-server
//   MAIL_USER, MAIL_PASSWORD      optional: nobody sends without them
//   MAIL_KEY, MAIL_CERT           optional: files for TLS, which is offered after STARTTLS
//   MAIL_TLS=1                    TLS from the first byte
//
// Prints "listening PORT", and one JSON line a mail. How it treats a recipient is in the address:
// "busy-2@…" is put off twice, "refused@…" is refused for good.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const { MAIL_USER, MAIL_PASSWORD, MAIL_KEY, MAIL_CERT, MAIL_TLS, TIDEGATE_NPM } = process.env;
assert(TIDEGATE_NPM, "TIDEGATE_NPM is not set");
const { SMTPServer } = createRequire(join(TIDEGATE_NPM, "x.js"))("smtp-server");
const say = (text) => process.stdout.write(`${text}\n`);
const put = new Map();

const refusal = (responseCode, text) => Object.assign(new Error(text), { responseCode });

// `=?utf-8?b?…?=` and `=?utf-8?q?…?=`; white space between two of them means nothing.
function words(text) {
  return text.replace(/(\?=)\s+(=\?)/g, "$1$2").replace(/=\?utf-8\?([bq])\?([^?]*)\?=/gi, (_, form, body) =>
    form.toLowerCase() === "b" ? Buffer.from(body, "base64").toString() : quotedPrintable(body.replace(/_/g, " ")),
  );
}

function quotedPrintable(text) {
  const bytes = text.replace(/=\r?\n/g, "").replace(/=([0-9A-F]{2})/gi, (_, hex) => String.fromCharCode(parseInt(hex, 16)));
  return Buffer.from(bytes, "latin1").toString();
}

function read(raw) {
  const at = raw.indexOf("\r\n\r\n");
  const head = raw.slice(0, at).replace(/\r\n[ \t]+/g, " ");
  const headers = head.split("\r\n").map((line) => [line.slice(0, line.indexOf(":")), words(line.slice(line.indexOf(":") + 1).trim())]);
  const encoding = headers.find(([name]) => name.toLowerCase() === "content-transfer-encoding")?.[1] ?? "7bit";
  const body = raw.slice(at + 4);
  const text = encoding === "base64" ? Buffer.from(body, "base64").toString() : encoding === "quoted-printable" ? quotedPrintable(body) : body;
  return { headers, text };
}

const server = new SMTPServer({
  secure: MAIL_TLS === "1",
  ...(MAIL_KEY ? { key: readFileSync(MAIL_KEY), cert: readFileSync(MAIL_CERT) } : {}),
  disabledCommands: MAIL_KEY ? [] : ["STARTTLS"],
  authOptional: !MAIL_USER,
  allowInsecureAuth: true,
  logger: false,
  onAuth(auth, _session, done) {
    const right = auth.username === MAIL_USER && auth.password === MAIL_PASSWORD;
    done(right ? null : refusal(535, "5.7.8 Authentication credentials invalid"), { user: auth.username });
  },
  onRcptTo({ address }, _session, done) {
    const [, times] = /^busy-(\d+)@/.exec(address) ?? [];
    const tries = (put.get(address) ?? 0) + 1;
    put.set(address, tries);
    if (address.startsWith("refused@")) return done(refusal(550, "5.1.1 No such mailbox here"));
    done(times && tries <= Number(times) ? refusal(451, "4.3.0 Busy, come back later") : null);
  },
  onData(stream, session, done) {
    const parts = [];
    stream.on("data", (part) => parts.push(part));
    stream.on("end", () => {
      const to = session.envelope.rcptTo.map(({ address }) => address);
      const mail = { from: session.envelope.mailFrom.address, to, user: session.user ?? null, secure: Boolean(session.secure), ...read(Buffer.concat(parts).toString()) };
      say(JSON.stringify(mail));
      done();
    });
  },
});
server.on("error", () => {}); // a client that hangs up is nobody's failure
server.listen(0, "127.0.0.1", () => say(`listening ${server.server.address().port}`));
