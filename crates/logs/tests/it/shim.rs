//! A shim's output side, played by the test: bytes by offset, sent from where the role asks, kept until acknowledged.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use dozen_api::{
    frame,
    shim::{Hello, Output, Record},
    socket,
};
use dozen_domain::{
    ids::{AppId, DynoId},
    release::Version,
    size::Size,
};
use tokio::{
    io::{AsyncWriteExt, BufWriter},
    net::UnixStream,
    sync::{Notify, watch},
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use crate::role::LONG;

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    start: u64, // offset of the first byte still there
    ended: bool,
    connections: Vec<u64>, // from which offsets it was asked
}

pub(crate) struct Shim {
    pub(crate) dyno: DynoId,
    pub(crate) directory: PathBuf,
    state: Arc<Mutex<State>>,
    more: Arc<Notify>,
    acknowledged: watch::Receiver<Option<u64>>,
    server: JoinHandle<()>,
}

impl Shim {
    /// Makes the dyno's directory and answers on its socket; pieces hold `piece` bytes at most.
    pub(crate) fn start(dynos: &Path, app: AppId, name: &str, piece: usize) -> Self {
        Self::start_as(dynos, app, name, piece, true)
    }

    pub(crate) fn start_as(dynos: &Path, app: AppId, name: &str, piece: usize, logged: bool) -> Self {
        let dyno = DynoId::random();
        let record = Record {
            dyno,
            app,
            name: name.parse().unwrap(),
            size: Size::Basic,
            version: Version(1),
            command: "test".to_owned(),
            created_at: 1_704_067_200_000_000,
            logged,
            engine: BTreeMap::new(),
        };
        let directory = dynos.join(dyno.to_string());
        std::fs::create_dir(&directory).unwrap();
        let listener = socket::bind(&directory.join("shim.sock")).unwrap();
        std::fs::write(directory.join("dyno.json"), serde_json::to_vec(&record).unwrap()).unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let more = Arc::new(Notify::new());
        let (acknowledge, acknowledged) = watch::channel(None);
        let acknowledge = Arc::new(acknowledge);
        let server = tokio::spawn({
            let (state, more) = (state.clone(), more.clone());
            async move {
                let mut connections = JoinSet::new(); // they end with the shim
                loop {
                    let (connection, _) = listener.accept().await.unwrap();
                    let (state, more, acknowledge) = (state.clone(), more.clone(), acknowledge.clone());
                    connections.spawn(async move { serve(connection, &state, &more, &acknowledge, piece).await });
                }
            }
        });
        Self { dyno, directory, state, more, acknowledged, server }
    }

    /// The dyno writes.
    pub(crate) fn write(&self, bytes: impl AsRef<[u8]>) {
        self.state.lock().unwrap().bytes.extend_from_slice(bytes.as_ref());
        self.more.notify_waiters();
    }

    /// The dyno ends.
    pub(crate) fn end(&self) {
        self.state.lock().unwrap().ended = true;
        self.more.notify_waiters();
    }

    /// The backlog overflows: all that is not sent yet is dropped.
    pub(crate) fn overflow(&self) -> u64 {
        let mut state = self.state.lock().unwrap();
        let dropped = state.bytes.len() as u64;
        state.start += dropped;
        state.bytes.clear();
        dropped
    }

    pub(crate) fn connections(&self) -> Vec<u64> {
        self.state.lock().unwrap().connections.clone()
    }

    pub(crate) fn acknowledged_now(&self) -> Option<u64> {
        *self.acknowledged.borrow()
    }

    /// Waits until this offset is acknowledged.
    pub(crate) async fn acknowledged(&self, offset: u64) {
        let mut acknowledged = self.acknowledged.clone();
        timeout(LONG, acknowledged.wait_for(|to| *to >= Some(offset))).await.unwrap().unwrap();
    }

    /// The shim dies; its directory stays.
    pub(crate) fn die(&self) {
        self.server.abort();
    }

    /// The shim and its directory are gone.
    pub(crate) fn clean(&self) {
        self.server.abort();
        std::fs::remove_dir_all(&self.directory).unwrap();
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(
    mut connection: UnixStream,
    state: &Mutex<State>,
    more: &Notify,
    acknowledge: &watch::Sender<Option<u64>>,
    piece: usize,
) {
    let hello: std::io::Result<Option<Hello>> = frame::read(&mut connection).await;
    let from = match hello {
        Ok(Some(Hello::Output { from, ack: true })) => from,
        Ok(None) | Err(_) => return, // the role was killed
        Ok(hello) => panic!("the logs role said {hello:?}"),
    };
    state.lock().unwrap().connections.push(from);
    let (mut reader, writer) = connection.into_split();
    let mut writer = BufWriter::with_capacity(64 << 10, writer);
    let send = async {
        let mut at = from;
        loop {
            let notified = more.notified();
            let output = {
                let state = state.lock().unwrap();
                let dropped = state.start.saturating_sub(at);
                let offset = at.max(state.start);
                let rest = &state.bytes[usize::try_from(offset - state.start).unwrap()..];
                let bytes = rest[..rest.len().min(piece)].to_vec();
                let now = dozen_api::clock::now();
                (!bytes.is_empty() || state.ended).then_some(Output { offset, at: now, dropped, bytes })
            };
            let Some(output) = output else {
                writer.flush().await?;
                notified.await;
                continue;
            };
            frame::write_bytes(&mut writer, &output.encode()).await?;
            at = output.offset + output.bytes.len() as u64;
            if output.bytes.is_empty() {
                writer.flush().await?;
                std::future::pending::<()>().await;
            }
        }
    };
    let receive = async {
        while let Ok(Some(to)) = frame::read::<_, u64>(&mut reader).await {
            let mut state = state.lock().unwrap();
            let free = usize::try_from(to.saturating_sub(state.start)).unwrap();
            state.bytes.drain(..free);
            state.start = state.start.max(to);
            acknowledge.send_replace(Some(to));
        }
    };
    let send = async {
        let sent: std::io::Result<()> = send.await;
        drop(sent);
    };
    tokio::select! {
        () = send => {}
        () = receive => {}
    }
}
