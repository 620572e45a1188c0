//! How often something may happen, counted in Redis for all processes of a database together.
//!
//! The rule is the generic cell rate algorithm (ITU-T I.371, where it polices ATM cells; explained for
//! requests at <https://brandur.org/rate-limiting>), which `governor` counts by in the process too. All
//! that is kept of somebody is one time, the *theoretical arrival time*: when everything that was let
//! in would have come at the even pace. The script reads, decides and writes in one step, by the clock
//! of Redis, so that neither many who ask at once nor processes whose clocks differ let more in.

use std::num::NonZeroU32;
use std::sync::LazyLock;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, Value, cmd};
use sha1::{Digest as _, Sha1};

use super::{Redis, Trouble, code_of, unexpected};

/// Answers 0 to what is let in, else the microseconds until the next may be. `KEYS[1]` holds the
/// theoretical arrival time in microseconds, `ARGV[1]` is the even pace, `ARGV[2]` how many may come at
/// once. A time farther ahead than it can be is none of ours, or the clock went back: it counts as
/// the farthest. Microseconds since 1970 are exact in Lua's numbers until the year 2255.
const SCRIPT: &str = r"
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local every = tonumber(ARGV[1])
local ahead_max = every * tonumber(ARGV[2])
local kept = redis.pcall('GET', KEYS[1])
local arrival = type(kept) == 'string' and tonumber(kept) or now
arrival = math.min(math.max(arrival, now), now + ahead_max) + every
local wait = arrival - now - ahead_max
if wait > 0 then
  return wait
end
redis.call('SET', KEYS[1], string.format('%.0f', arrival), 'PX', math.ceil((arrival - now) / 1000))
return 0
";

/// The name that Redis knows the script by.
static SCRIPT_NAME: LazyLock<String> = LazyLock::new(|| hex::encode(Sha1::digest(SCRIPT.as_bytes())));

/// What came of counting.
enum Counted {
    /// Let in, where it is zero.
    Wait(Duration),
    /// Redis does not count for us, and the code of its error.
    Forbidden(String),
}

impl Redis {
    /// Counts one more under a name, of which `burst` may come at once and one more after each `every`.
    /// Zero where it is let in, else how long until there is room. `None` where Redis does not tell.
    /// Takes at most [`WAIT_MAX`](super::WAIT_MAX).
    pub async fn count(&self, name: &str, every: Duration, burst: NonZeroU32) -> Option<Duration> {
        let link = self.link();
        if !link.counting.is_open() {
            return None;
        }
        let key = format!("{}:rate:{name}", self.prefix);
        match link.ask(|connection| count(connection, key, every, burst)).await? {
            Counted::Wait(wait) => {
                link.counting.granted();
                Some(wait)
            }
            Counted::Forbidden(code) => {
                link.counting.refused(&link.url, &code);
                None
            }
        }
    }
}

async fn count(mut connection: MultiplexedConnection, key: String, every: Duration, burst: NonZeroU32) -> Result<Counted, Trouble> {
    let every_us = u64::try_from(every.as_micros()).unwrap_or(u64::MAX).max(1);
    let call = |how: &str, script: &str| -> Cmd { cmd(how).arg(script).arg(1).arg(&key).arg(every_us).arg(burst.get()).clone() };
    let mut reply = connection.send_packed_command(&call("EVALSHA", &SCRIPT_NAME)).await?;
    // A Redis that has just started, or forgot its scripts.
    if matches!(&reply, Value::ServerError(error) if error.code() == "NOSCRIPT") {
        reply = connection.send_packed_command(&call("EVAL", SCRIPT)).await?;
    }
    match reply {
        Value::Int(wait_us) => Ok(Counted::Wait(Duration::from_micros(u64::try_from(wait_us).unwrap_or(0)))),
        // Which of the two it is where a command inside the script is not allowed depends on the version.
        Value::ServerError(error) if matches!(error.code(), "NOPERM" | "ERR") => Ok(Counted::Forbidden(code_of(&error))),
        other => Err(unexpected("EVALSHA", &other)),
    }
}
