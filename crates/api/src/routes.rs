//! The route table's stream from control to router, over `run/routes.sock`.
//!
//! Control listens; the router connects, gets one [`Message::Snapshot`] and then changes in order. The router answers
//! each message with an [`Ack`] once requests see it, and tells there which dynos that left the table still work on
//! requests from before, so that control may stop old dynos only after that. The router
//! keeps its last table in `run/routes.json` and starts from it when control is away.

use std::net::SocketAddr;

use dozen_domain::{
    config::Secret,
    ids::{AppId, DynoId},
    name::{AppName, DynoName},
};
use serde::{Deserialize, Serialize};

use crate::traffic::Traffic;

/// Counts the changes of the table, from 1, never reused within one control process's life.
pub type Generation = u64;

/// What an app's requests meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Requests go to web dynos.
    Serving,
    /// H80.
    Maintenance,
    /// Nothing was ever released: H81.
    Blank,
}

/// What the router may do with one web dyno.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DynoState {
    /// It accepts connections.
    Up,
    /// It has not bound its port yet: requests wait (H20 in the end).
    Starting,
    /// It crashed (H10 when no other is up or starting).
    Crashed,
}

/// One web dyno.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dyno {
    /// Which.
    pub id: DynoId,
    /// `web.1`.
    pub name: DynoName,
    /// Addresses in the order to try (an IPv6-only server refuses the first).
    pub addresses: Vec<SocketAddr>,
    /// Whether it can be used.
    pub state: DynoState,
}

/// Everything that the router knows of one app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// Which.
    pub id: AppId,
    /// Its name.
    pub name: AppName,
    /// Host names in lower case, without port: the app's own and custom domains. `*.example.com` is a wildcard.
    pub hosts: Vec<String>,
    /// What requests meet.
    pub mode: Mode,
    /// Wanted web dynos; 0 is H14.
    pub web_quantity: u32,
    /// Web dynos in any usable or crashed state.
    pub dynos: Vec<Dyno>,
    /// Page shown in place of the built-in error page (`ERROR_PAGE_URL`).
    pub error_page_url: Option<String>,
    /// Page shown during maintenance (`MAINTENANCE_PAGE_URL`).
    pub maintenance_page_url: Option<String>,
    /// What is done to its requests before they reach a dyno.
    #[serde(default)]
    pub edge: Edge,
    /// How its dynos are spoken to.
    #[serde(default)]
    pub dialogue: Dialogue,
}

/// How the router speaks to an app's dynos.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dialogue {
    /// Connections are kept for further requests.
    pub keep_alive: bool,
    /// HTTP/2 in clear text without asking, which gRPC needs.
    pub http2: bool,
    /// A client that waits for `100 Continue` waits for the dyno's word, not the router's.
    pub end_to_end_continue: bool,
}

impl Default for Dialogue {
    fn default() -> Self {
        Self { keep_alive: true, http2: false, end_to_end_continue: false }
    }
}

/// What of an app concerns the router's outer side: TLS, redirects, and which dyno a browser gets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Edge {
    /// Certificates of its custom domains. Other names are served with the default one.
    pub certificates: Vec<Certificate>,
    /// Answers that a certificate authority is about to ask for.
    pub challenges: Vec<Challenge>,
    /// Plain HTTP is answered with a redirect to HTTPS.
    pub https_redirect: bool,
    /// The requests of one browser go to one dyno.
    pub session_affinity: bool,
}

/// A certificate and the domains that are served with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Domains of the app as they are in [`App::hosts`].
    pub hosts: Vec<String>,
    /// The chain in PEM, the leaf first.
    pub chain: String,
    /// The leaf's private key in PEM.
    pub key: Secret,
}

/// How a domain shows a certificate authority that it is this platform's (RFC 8555, section 8; RFC 8737).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Challenge {
    /// `GET /.well-known/acme-challenge/<token>` over plain HTTP.
    Http {
        /// The domain.
        host: String,
        /// What the path ends with.
        token: String,
        /// What the answer holds.
        answer: String,
    },
    /// A handshake whose only protocol is `acme-tls/1`.
    Tls {
        /// The domain.
        host: String,
        /// The certificate that is shown, in PEM.
        chain: String,
        /// Its key in PEM.
        key: Secret,
    },
}

/// Control to router.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// Some apps of the snapshot that follows, which is too long for one frame.
    Part {
        /// The apps.
        apps: Vec<App>,
    },
    /// The whole table in place of whatever was known: these apps and those of the parts before.
    Snapshot {
        /// The table's generation.
        generation: Generation,
        /// All apps, or the rest of them.
        apps: Vec<App>,
    },
    /// One app is new or has changed.
    Upsert {
        /// The table's generation after this change.
        generation: Generation,
        /// The app, whole.
        app: Box<App>,
    },
    /// One app is gone.
    Remove {
        /// The table's generation after this change.
        generation: Generation,
        /// Which.
        app: AppId,
    },
}

impl Message {
    /// Which app it is about; none when it is about all of them.
    pub fn app(&self) -> Option<AppId> {
        match self {
            Self::Part { .. } | Self::Snapshot { .. } => None,
            Self::Upsert { app, .. } => Some(app.id),
            Self::Remove { app, .. } => Some(*app),
        }
    }
}

/// About how many bytes of apps go into one frame of a snapshot: far below [`crate::frame::MAX`], and little enough that
/// neither side holds the table's text as a whole.
const PART: usize = 4 << 20;

impl App {
    /// About how many bytes it is in a frame.
    fn weight(&self) -> usize {
        let edge = &self.edge;
        let hosts = self.hosts.iter().chain(edge.certificates.iter().flat_map(|certificate| &certificate.hosts));
        let chains =
            edge.certificates.iter().map(|certificate| certificate.chain.len() + certificate.key.expose().len());
        512 + hosts.map(|host| host.len() + 3).sum::<usize>()
            + chains.sum::<usize>()
            + 2_048 * edge.challenges.len()
            + 256 * self.dynos.len()
    }
}

/// Cuts a snapshot into messages that each fit in a frame; other messages stay whole.
pub fn cut(message: Message) -> impl Iterator<Item = Message> {
    let (generation, mut rest, single) = match message {
        Message::Snapshot { generation, apps } => (generation, Some(apps.into_iter().peekable()), None),
        other => (0, None, Some(other)),
    };
    let parts = std::iter::from_fn(move || {
        let apps = rest.as_mut()?;
        let (mut part, mut weight) = (Vec::new(), 0);
        while let Some(app) = apps.next_if(|app| part.is_empty() || weight + app.weight() <= PART) {
            weight += app.weight();
            part.push(app);
        }
        if apps.peek().is_some() {
            return Some(Message::Part { apps: part });
        }
        rest = None;
        Some(Message::Snapshot { generation, apps: part })
    });
    parts.chain(single)
}

/// Puts the parts of one connection's snapshots together again.
#[derive(Debug, Default)]
pub struct Assembly(Vec<App>);

impl Assembly {
    /// Takes a message in; gives one that can be put into force, unless it was a part.
    pub fn take(&mut self, message: Message) -> Option<Message> {
        match message {
            Message::Part { apps } => {
                self.0.extend(apps);
                None
            }
            Message::Snapshot { generation, apps } => {
                self.0.extend(apps);
                Some(Message::Snapshot { generation, apps: std::mem::take(&mut self.0) })
            }
            other => Some(other),
        }
    }
}

/// Router to control.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Report {
    /// An answer to a [`Message`].
    Ack(Ack),
    /// How apps' requests went, about once a second while there are any.
    Traffic(Traffic),
}

/// Router to control: requests that arrive from now on see this generation. Said again, with the same generation, when
/// fewer dynos are busy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The generation in force.
    pub generation: Generation,
    /// Dynos that are out of the table and still have requests from before: being connected to, sent or answered.
    #[serde(default)]
    pub busy: Vec<DynoId>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame;

    #[test]
    fn a_table_of_any_size_goes_over_in_frames_and_comes_out_whole() {
        let certificate = |number: usize| Certificate {
            hosts: vec![format!("www.a{number}.example.com")],
            chain: "c".repeat(6_000),
            key: Secret::new("k".repeat(2_000)),
        };
        let app = |number: usize| App {
            id: AppId::random(),
            name: format!("app-{number}").parse().expect("a name"),
            hosts: vec![format!("www.a{number}.example.com")],
            mode: Mode::Serving,
            web_quantity: 1,
            dynos: vec![],
            error_page_url: None,
            maintenance_page_url: None,
            edge: Edge { certificates: vec![certificate(number)], ..Edge::default() },
            dialogue: Dialogue::default(),
        };
        for count in [0, 1, 3_000] {
            let apps: Vec<App> = (0..count).map(app).collect();
            let (mut assembly, mut frames, mut whole) = (Assembly::default(), 0, None);
            for message in cut(Message::Snapshot { generation: 7, apps: apps.clone() }) {
                let frame = frame::encode(&message).expect("a frame");
                assert!(frame.len() < 2 * PART, "{} bytes", frame.len());
                frames += 1;
                assert!(whole.is_none(), "nothing follows the snapshot");
                whole = assembly.take(serde_json::from_slice(&frame[4..]).expect("a message"));
            }
            assert!(matches!(whole, Some(Message::Snapshot { generation: 7, apps: told }) if told == apps));
            assert_eq!(frames > 1, count == 3_000);
        }
        let gone = AppId::random();
        let removal: Vec<Message> = cut(Message::Remove { generation: 8, app: gone }).collect();
        assert!(matches!(removal[..], [Message::Remove { generation: 8, app }] if app == gone));
    }
}
