//! One question at a time, whoever asks it: all who ask meanwhile get the same answer, and it may be
//! kept for a moment. What is asked a hundred times a second costs as much as asked once.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// One question and its newest answer.
pub struct SingleFlight<T>(Mutex<Option<Asked<T>>>);

struct Asked<T> {
    at: Instant,
    answer: watch::Receiver<Option<T>>,
}

impl<T> Default for SingleFlight<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone + Send + Sync + 'static> SingleFlight<T> {
    /// The answer that is on its way, or one to a question not older than `kept`, or what `ask` finds
    /// out. `ask` runs in a task of its own, to its end even if whoever asked goes away: so it must
    /// end by itself. `None` when it panicked.
    pub async fn get(&self, kept: Duration, ask: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let mut answer = self.answer(kept, ask);
        answer.wait_for(Option::is_some).await.ok()?.clone()
    }

    fn answer(&self, kept: Duration, ask: impl Future<Output = T> + Send + 'static) -> watch::Receiver<Option<T>> {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Asked { at, answer }) = &*asked {
            let is_known = answer.borrow().is_some();
            // Without an answer and without anybody who could give one it panicked.
            let is_under_way = !is_known && answer.has_changed().is_ok();
            if is_under_way || (is_known && at.elapsed() < kept) {
                return answer.clone();
            }
        }
        let (sender, answer) = watch::channel(None);
        tokio::spawn(async move { sender.send_replace(Some(ask.await)) });
        *asked = Some(Asked { at: Instant::now(), answer: answer.clone() });
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    use super::*;

    const KEPT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn many_who_ask_are_answered_by_one_question() {
        let (flight, asked) = (SingleFlight::default(), Arc::new(AtomicU32::new(0)));
        let ask = || {
            let asked = Arc::clone(&asked);
            async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                asked.fetch_add(1, SeqCst)
            }
        };
        let (one, other) = tokio::join!(flight.get(Duration::ZERO, ask()), flight.get(Duration::ZERO, ask()));
        assert_eq!((one, other), (Some(0), Some(0)));
        assert_eq!(flight.get(KEPT, ask()).await, Some(0), "it is kept");
        assert_eq!(flight.get(Duration::ZERO, ask()).await, Some(1), "it is too old");
        tokio::time::sleep(KEPT).await;
        assert_eq!(flight.get(KEPT, ask()).await, Some(2));
    }

    #[tokio::test]
    async fn a_question_that_panicked_is_asked_again() {
        let flight = SingleFlight::default();
        assert_eq!(flight.get(KEPT, async { panic!("on purpose") }).await, None::<u32>);
        assert_eq!(flight.get(KEPT, async { 1 }).await, Some(1));
    }
}
