//! Signals between the processes of one database: what one commits, the pages and loops of the others
//! look at at once, and not only at their next look.
//!
//! They go through Redis where it is configured, else through PostgreSQL; SQLite has one process. A
//! [`Wake`] carries no facts, so a signal that is lost or late costs what it costs to be without: the
//! regular look. It is said after the commit that it is about. What came from outside is told to this
//! process alone and never said again.
//!
//! A text is a version, the name of the process that said it, and words: `1 5f0c… head delivery
//! order:ord_…`. Nothing is in it that is not in the log. Words that are not understood are left out:
//! a newer process may have said them.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::cache::{Redis, Subscription};
use crate::clock;
use crate::gateway::{Gateway, Wake};
use crate::store::{Engine, Listener, TEXT_BYTES_MAX};

/// Stands first in every text. To be raised when a word means something else than before.
const FORMAT: &str = "1";

/// How many signals go into one text; the same one twice is said once. An order's is 42 bytes.
const WORDS_MAX: usize = 128;
const _: () = assert!(WORDS_MAX * 48 + 64 < TEXT_BYTES_MAX, "a text fits into what PostgreSQL takes");

/// How long after a text the next one may be said: what happens meanwhile goes into it.
const SAY_EVERY: Duration = Duration::from_millis(20);

/// How often something is said when there is nothing to say. Every process hears its own texts too,
/// and knows by that whether it hears at all.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// After such a silence a subscription is given up and made again.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// How long after a failure to listen the next try is made: twice as long each time, up to the second.
const REST_MIN: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(10);

/// So many failures to listen, one after the other, are told, once: one may be a server's restart.
const TOLD_AFTER: u32 = 2;

/// Waits until something is said that is `wanted`, or until more was said than is kept. All that was
/// said by then counts as heard: whoever waits looks for everything that there is to do.
pub async fn heard(signals: &mut broadcast::Receiver<Wake>, wanted: fn(&Wake) -> bool) {
    loop {
        match signals.recv().await {
            Ok(wake) if !wanted(&wake) => {}
            Ok(_) | Err(RecvError::Lagged(_)) => break,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
    while next(signals).is_some() {}
}

/// The way between processes.
#[derive(Clone)]
enum Line {
    Redis(Arc<Redis>),
    Postgres,
}

/// One end of it.
enum Ear {
    Redis(Subscription),
    Postgres(Listener),
}

/// Says to other processes what this one signals, and signals here what they say, until `stop` says so.
pub async fn run(gateway: Arc<Gateway>, mut stop: watch::Receiver<bool>) {
    let line = match (gateway.cache.shared(), gateway.store.engine()) {
        (Some(redis), _) => Line::Redis(redis),
        (None, Engine::Postgres) => Line::Postgres,
        (None, Engine::Sqlite) => return,
    };
    let own = hex::encode(clock::random::<8>());
    tokio::select! {
        () = say_all(&gateway, &line, &own) => {}
        () = hear_all(&gateway, &line, &own) => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

async fn say_all(gateway: &Gateway, line: &Line, own: &str) {
    let mut said = gateway.said();
    loop {
        let mut wakes = match timeout(HEARTBEAT, said.recv()).await {
            Err(_) => Vec::new(),
            Ok(Ok(wake)) => vec![wake],
            Ok(Err(RecvError::Lagged(_))) => EVERYTHING.to_vec(),
            Ok(Err(RecvError::Closed)) => return,
        };
        while wakes.len() < WORDS_MAX
            && let Some(wake) = next(&mut said)
        {
            if !wakes.contains(&wake) {
                wakes.push(wake);
            }
        }
        let text = text(own, &wakes);
        match line {
            Line::Redis(redis) => redis.publish(&text).await,
            Line::Postgres => {
                if let Err(error) = gateway.store.say(&text).await {
                    // The listener says what is wrong with the database, once.
                    tracing::debug!(%error, "signals for other processes were lost");
                }
            }
        }
        sleep(SAY_EVERY).await;
    }
}

/// Another signal, if there is one already.
fn next(said: &mut broadcast::Receiver<Wake>) -> Option<Wake> {
    loop {
        match said.try_recv() {
            Ok(wake) => return Some(wake),
            Err(broadcast::error::TryRecvError::Lagged(_)) => {}
            Err(_) => return None,
        }
    }
}

async fn hear_all(gateway: &Gateway, line: &Line, own: &str) {
    let (mut rest, mut failures) = (REST_MIN, 0_u32);
    loop {
        match listen(gateway, line).await {
            Ok(mut ear) => {
                if failures >= TOLD_AFTER {
                    tracing::info!("signals of other processes are heard again");
                }
                failures = 0;
                // Whatever was said before is not heard any more.
                EVERYTHING.iter().for_each(|wake| gateway.relay(*wake));
                while let Ok(Some(text)) = timeout(SILENCE_MAX, ear.next()).await {
                    rest = REST_MIN;
                    read(&text, own).into_iter().for_each(|wake| gateway.relay(wake));
                }
            }
            Err(reason) => {
                failures = failures.saturating_add(1);
                if failures == TOLD_AFTER {
                    tracing::warn!("signals of other processes are not heard for now, what they change is seen at the next look: {reason}");
                }
            }
        }
        sleep(rest).await;
        rest = rest.saturating_mul(2).min(REST_MAX);
    }
}

async fn listen(gateway: &Gateway, line: &Line) -> Result<Ear, String> {
    match line {
        Line::Redis(redis) => redis.subscribe().await.map(Ear::Redis).map_err(|trouble| format!("Redis {trouble}")),
        Line::Postgres => {
            let url = gateway.config.database.url.expose();
            Listener::connect(&url).await.map(Ear::Postgres).map_err(|error| error.to_string())
        }
    }
}

impl Ear {
    /// The next text; `None` when there will be none.
    async fn next(&mut self) -> Option<String> {
        match self {
            Self::Redis(subscription) => subscription.next().await,
            Self::Postgres(listener) => listener.next().await.ok().flatten(),
        }
    }
}

/// What is to be looked at when it is not known what happened. A page looks at its order with `Head`.
const EVERYTHING: [Wake; 6] = [Wake::Head, Wake::Delivery, Wake::Look, Wake::Notice, Wake::Inbox, Wake::Job];

fn text(own: &str, wakes: &[Wake]) -> String {
    let mut text = format!("{FORMAT} {own}");
    for wake in wakes {
        // Writing to a text does not fail.
        let _ = match wake {
            Wake::Order(id) => write!(text, " order:{id}"),
            Wake::Head => write!(text, " head"),
            Wake::Delivery => write!(text, " delivery"),
            Wake::Look => write!(text, " look"),
            Wake::Notice => write!(text, " notice"),
            Wake::Inbox => write!(text, " inbox"),
            Wake::Job => write!(text, " job"),
        };
    }
    text
}

/// The signals in a text, unless it is `own`.
fn read(text: &str, own: &str) -> Vec<Wake> {
    let mut words = text.split(' ');
    if text.len() > TEXT_BYTES_MAX || words.next() != Some(FORMAT) || words.next().is_none_or(|who| who == own) {
        return Vec::new();
    }
    let wake = |word: &str| match word {
        "head" => Some(Wake::Head),
        "delivery" => Some(Wake::Delivery),
        "look" => Some(Wake::Look),
        "notice" => Some(Wake::Notice),
        "inbox" => Some(Wake::Inbox),
        "job" => Some(Wake::Job),
        _ => word.strip_prefix("order:").and_then(|id| id.parse().ok()).map(Wake::Order),
    };
    words.filter_map(wake).take(WORDS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tidegate_rules::id::OrderId;
    use tidegate_rules::time::Time;

    use super::*;

    #[tokio::test]
    async fn what_is_said_many_times_is_heard_once() {
        let is_delivery = |wake: &Wake| *wake == Wake::Delivery;
        let (say, mut signals) = broadcast::channel(4);
        let others = [Wake::Head, Wake::Look, Wake::Job];
        others.into_iter().for_each(|wake| drop(say.send(wake)));
        assert!(heard(&mut signals, is_delivery).now_or_never().is_none(), "nothing was said that is wanted");
        [Wake::Delivery; 3].into_iter().chain([Wake::Head]).for_each(|wake| drop(say.send(wake)));
        heard(&mut signals, is_delivery).await;
        assert!(heard(&mut signals, is_delivery).now_or_never().is_none(), "all three are heard");
        // More than is kept: what was wanted may have been among it.
        [Wake::Head; 5].into_iter().for_each(|wake| drop(say.send(wake)));
        heard(&mut signals, is_delivery).await;
        assert!(heard(&mut signals, is_delivery).now_or_never().is_none());
    }

    #[test]
    fn another_process_reads_what_one_said() {
        let order = Wake::Order(OrderId::new(Time::from_secs(1), [7; 10]));
        let all: Vec<Wake> = EVERYTHING.into_iter().chain([order]).collect();
        let said = text("here", &all);
        assert_eq!(read(&said, "there"), all);
        assert_eq!(read(&said, "here"), [], "a process does not hear itself");
        assert_eq!(read(&text("here", &[]), "there"), []);
    }

    #[test]
    fn what_is_not_understood_is_left_out() {
        for (said, heard) in [
            ("1 here head dance look", vec![Wake::Head, Wake::Look]),
            ("1 here order:ord_nonsense order: delivery", vec![Wake::Delivery]),
            ("2 here head", vec![]),
            ("head", vec![]),
            ("1", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(read(said, "there"), heard, "{said}");
        }
        let long = format!("1 here{}", " head".repeat(TEXT_BYTES_MAX));
        assert_eq!(read(&long, "there"), []);
        let many = format!("1 here{}", " head".repeat(WORDS_MAX * 2));
        assert_eq!(read(&many, "there").len(), WORDS_MAX);
    }

    #[test]
    fn the_fullest_text_fits_into_a_notification() {
        let order = Wake::Order(OrderId::new(Time::from_millis(i64::MAX), [0xff; 10]));
        assert!(text(&"f".repeat(16), &[order; WORDS_MAX]).len() <= TEXT_BYTES_MAX);
    }
}
