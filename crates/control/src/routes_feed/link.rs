//! One connection of a router: the table and its changes out, acknowledgements in.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dozen_api::{
    frame,
    routes::{self, Ack, Report},
};
use tokio::net::{UnixListener, UnixStream};

use super::Feed;

/// Accepts routers until cancelled. Normally there is one.
pub(super) async fn serve(feed: Arc<Feed>, listener: UnixListener) {
    let next = AtomicU64::new(1);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (feed, router) = (feed.clone(), next.fetch_add(1, Ordering::Relaxed));
                tokio::spawn(async move {
                    tracing::info!(router, "a router follows the route table");
                    let ended = talk(&feed, router, stream).await;
                    feed.leave(router);
                    if let Err(error) = ended {
                        tracing::info!(router, %error, "a router has gone");
                    }
                });
            }
            Err(error) => {
                tracing::error!(%error, "cannot accept the router");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn talk(feed: &Feed, router: u64, mut stream: UnixStream) -> std::io::Result<()> {
    // From here on a stop waits for this router, which is about to get the table.
    feed.acknowledge(router, Ack::default());
    let mut changes = feed.subscribe();
    let (mut from, mut to) = stream.split();
    let tell = async {
        while let Some(message) = changes.recv().await {
            for message in routes::cut(message) {
                frame::write(&mut to, &message).await?;
            }
        }
        Err(std::io::Error::other("it fell too far behind"))
    };
    let hear = async {
        while let Some(report) = frame::read(&mut from).await? {
            match report {
                Report::Ack(ack) => feed.acknowledge(router, ack),
                Report::Traffic(traffic) => feed.take(traffic).await,
            }
        }
        Ok(())
    };
    tokio::select! {
        ended = tell => ended,
        ended = hear => ended,
    }
}
