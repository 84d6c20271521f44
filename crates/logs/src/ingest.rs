//! Lines that other roles hand over: batches, each stored once and then acknowledged.

use std::io;

use dozen_api::{frame, logs};
use tokio::net::UnixStream;
use uuid::Uuid;

use crate::{
    Role,
    batch::{Batch, Mark, Producer},
    lines,
};

/// Takes batches until the sender goes.
///
/// # Errors
/// When the connection fails or a frame makes no sense.
pub(crate) async fn serve(role: &Role, mut connection: UnixStream, sender: Uuid) -> io::Result<()> {
    while let Some(bytes) = frame::read_bytes(&mut connection).await? {
        let Some((number, mut rest)) = bytes.split_first_chunk() else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a batch of log lines without a number"));
        };
        let mark = Mark { producer: Producer::Sender(sender), position: u64::from_le_bytes(*number) };
        let mut batches = Vec::new();
        while let Some(line) = logs::decode(&mut rest) {
            add(&mut batches, &line, role.options.limits.log_line_bytes);
        }
        for (app, mut batch) in batches {
            batch.mark = Some(mark);
            role.channels.channel(app).append(&batch);
        }
        frame::write_bytes(&mut connection, &[]).await?;
    }
    Ok(())
}

/// Adds a line to its app's batch, as several when it is one in name only.
fn add(batches: &mut Vec<(dozen_domain::ids::AppId, Batch)>, line: &logs::Line, limit: u64) {
    let at = match batches.iter().position(|(app, _)| *app == line.app) {
        Some(at) => at,
        None => {
            batches.push((line.app, Batch::default()));
            batches.len() - 1
        }
    };
    let (_, batch) = &mut batches[at];
    let limit = usize::try_from(limit).unwrap_or(usize::MAX).max(4);
    let text = line.text.strip_suffix('\n').unwrap_or(&line.text);
    for one in text.split('\n') {
        lines::whole(one.as_bytes(), limit, |piece| batch.push(line.at, line.source, &line.process, piece));
    }
}
