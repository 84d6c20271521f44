//! A timer for deadlines that move with every byte: it is set anew only when it has gone off too early.
//!
//! A request has several deadlines in its life and nearly never meets one, so keeping the time must cost nothing: the
//! runtime's timer stays where it was while the deadline moves on.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// Ready at the deadline, which may differ from call to call.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if deadline < sleep.deadline() {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(context));
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use super::*;

    #[tokio::test]
    async fn it_goes_off_at_the_deadline_it_was_given_last() {
        for (first, last) in [(10, 60), (60_000, 30)] {
            let (mut alarm, start) = (Alarm::default(), Instant::now());
            let mut polls = 0;
            let at = |millis| start + Duration::from_millis(millis);
            poll_fn(|context| {
                polls += 1;
                if polls == 1 {
                    assert!(alarm.poll(context, at(first)).is_pending());
                }
                alarm.poll(context, at(last))
            })
            .await;
            assert!(start.elapsed() >= Duration::from_millis(last) && start.elapsed() < Duration::from_secs(50));
        }
    }
}
