//! A connection that leads to a port of a dyno: bytes both ways, until both ends have ended it.
//!
//! An end that has nothing more to send may still want an answer, so the other half stays; but not for ever, since nobody
//! may be left who would end it.

use std::{io, time::Duration};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};

use super::activity::Activity;

/// Most bytes on the way in one direction.
const PIECE: usize = 32 << 10;

/// Carries bytes until both ends have ended, one of them breaks, or one has ended and the other said nothing for
/// `patience`.
pub(crate) async fn carry<A, B>(one: A, other: B, patience: Duration)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let activity = Activity::new();
    let ((mut from_one, mut to_one), (mut from_other, mut to_other)) = (split(one), split(other));
    let there = copy(&mut from_one, &mut to_other, &activity);
    let back = copy(&mut from_other, &mut to_one, &activity);
    tokio::pin!(there, back);
    let ended = tokio::select! {
        ended = &mut there => ended.map(|()| true),
        ended = &mut back => ended.map(|()| false),
    };
    let rest = async {
        match ended {
            Ok(true) => back.await,
            Ok(false) => there.await,
            Err(broken) => Err(broken),
        }
    };
    tokio::select! {
        // How a connection ends is its two ends' business.
        _ = rest => {}
        () = activity.quiet(patience) => {}
    }
}

async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    activity: &Activity,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let count = from.read(&mut piece).await?;
        activity.note();
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&piece[..count]).await?;
        to.flush().await?;
        activity.note();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    const NEVER: Duration = Duration::from_secs(3600);

    /// Both outer ends, and what carries between them.
    fn between(patience: Duration) -> (DuplexStream, DuplexStream, tokio::task::JoinHandle<()>) {
        let ((near, one), (other, far)) = (duplex(1 << 10), duplex(1 << 10));
        (near, far, tokio::spawn(carry(one, other, patience)))
    }

    #[tokio::test]
    async fn an_answer_comes_after_the_end_of_the_question() {
        let (mut near, mut far, carrying) = between(NEVER);
        near.write_all(b"question").await.expect("sent");
        near.shutdown().await.expect("ended");
        let mut asked = String::new();
        far.read_to_string(&mut asked).await.expect("a question");
        far.write_all(b"answer").await.expect("sent");
        drop(far);
        let mut answered = String::new();
        near.read_to_string(&mut answered).await.expect("an answer");
        assert_eq!((asked.as_str(), answered.as_str()), ("question", "answer"));
        carrying.await.expect("no panic");
    }

    #[tokio::test]
    async fn one_end_that_has_ended_waits_for_the_other_but_not_for_ever() {
        let (mut near, _far, carrying) = between(Duration::from_millis(1));
        near.shutdown().await.expect("ended");
        carrying.await.expect("no panic");
    }
}
