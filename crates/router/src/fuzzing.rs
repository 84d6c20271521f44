//! What must hold whatever bytes arrive: the bodies of the fuzz targets in `fuzz/`, and a short seeded run of each as an
//! ordinary test.
//!
//! Each takes bytes and panics when something is wrong. It is compiled for tests and for fuzzing (`cfg(fuzzing)`) alone.

use std::collections::BTreeMap;

use dozen_api::{
    frame,
    routes::{self, Assembly, Message, Mode},
};
use dozen_domain::{ids::AppId, limits::Limits};
use uuid::Uuid;

use crate::{
    edge::proxy_protocol,
    headers,
    table::Table,
    wire::{
        buffer::Buffer,
        chunks::{Broken, Chunks, Step},
        head::{Head, Scan, scan},
        http1::put,
    },
};

/// Heads: found in the same place however their bytes arrive, and what is accepted can be written down and read again
/// with the same meaning.
pub fn head(data: &[u8]) {
    let limits = Limits::default();
    let longest = limits.router_header_line_bytes as usize;
    let whole = scan(data, &mut 0, longest);
    let step = 1 + data.first().map_or(0, |byte| usize::from(*byte) % 7);
    let (mut from, mut in_pieces) = (0, Scan::More);
    for end in (0..=data.len()).step_by(step).chain([data.len()]) {
        in_pieces = scan(&data[..end], &mut from, longest);
        if in_pieces != Scan::More {
            break;
        }
    }
    assert_eq!(whole, in_pieces, "a head is where it is however it arrives");
    // Heads that were given up are read as well, so that their app can be told.
    let end = if let Scan::Whole(end) = whole { end } else { data.len() };
    let mut head = Head::default();
    let judged = head.request(&data[..end], &limits);
    let told = (headers::host(&head), headers::request_id(&head), headers::forwarded(&head, "::1"));
    assert!(told.1.len() >= 20);
    if judged.is_ok() && matches!(whole, Scan::Whole(_)) {
        let mut text = [head.method(), b" ", head.path(), b" HTTP/1.1\r\n"].concat();
        if head.lacks_slash() {
            text.insert(head.method().len() + 1, b'/');
        }
        head.fields().for_each(|field| put(&mut text, field.name, field.value));
        text.extend_from_slice(b"\r\n");
        let mut again = Head::default();
        // A line may have become longer by the space after its colon, or a target by its slash.
        let roomy =
            Limits { router_header_line_bytes: u64::MAX, router_request_line_bytes: u64::MAX, ..Limits::default() };
        let version = head.version;
        let read = again.request(&text, &roomy);
        assert!(read.is_ok(), "{:?} became {:?}", data.escape_ascii(), text.escape_ascii());
        assert_eq!(again.length, head.length, "version {version:?}");
        let fields =
            |head: &Head| head.fields().map(|field| (field.name.to_vec(), field.value.to_vec())).collect::<Vec<_>>();
        assert_eq!(fields(&again), fields(&head));
        assert_eq!(again.method(), head.method());
        for field in head.fields() {
            assert!(!field.value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "{:?}", field.value);
        }
    }
    let _ = Head::default().response(&data[..end], &limits);
    let _ = Head::default().trailers(&data[..end]);
}

/// A body out of chunks: what it is, whether it has ended, how many trailers it has, or that it is broken.
pub(crate) fn decode<'a>(mut pieces: impl Iterator<Item = &'a [u8]>) -> Result<(Vec<u8>, bool, Option<usize>), Broken> {
    let (mut chunks, mut body, mut held) = (Chunks::new(), Vec::new(), Vec::new());
    loop {
        let mut input = Buffer::holding(&held);
        let step = chunks.step(&mut input)?;
        held = input.bytes().to_vec();
        match step {
            Step::More => match pieces.next() {
                Some(piece) => held.extend_from_slice(piece),
                None => return Ok((body, false, None)),
            },
            Step::Data(count) => {
                assert!(count > 0 && count <= held.len());
                body.extend(held.drain(..count));
                chunks.consume(count);
            }
            Step::End => return Ok((body, true, chunks.trailers.map(|head| head.fields().count()))),
        }
    }
}

/// Chunked bodies: the same however their bytes arrive, and never more than arrived.
pub fn chunks(data: &[u8]) {
    let Some((seed, data)) = data.split_first() else { return };
    let whole = decode(std::iter::once(data));
    let size = 1 + usize::from(seed % 5);
    let in_pieces = decode(data.chunks(size));
    assert_eq!(whole, in_pieces, "{}", data.escape_ascii());
    if let Ok((body, ended, _)) = whole {
        assert!(body.len() <= data.len() && (!ended || data.len() >= body.len() + 5));
    }
}

/// The PROXY protocol: whatever is taken of the first version says exactly what was sent.
pub fn proxy(data: &[u8]) {
    if let Ok(Some(read)) = proxy_protocol::parse_text(data) {
        let again = format!(
            "PROXY {} {} {} {} {}\r\n",
            if read.source.is_ipv4() { "TCP4" } else { "TCP6" },
            read.source.ip(),
            read.destination.ip(),
            read.source.port(),
            read.destination.port()
        );
        // An IPv6 address can be written in several ways.
        assert!(read.source.is_ipv6() || again.as_bytes() == data, "{} is not {again:?}", data.escape_ascii());
    }
    if let [command, family, rest @ ..] = data
        && let Ok(Some(read)) = proxy_protocol::parse_binary(*command, *family, rest)
    {
        assert_eq!(*command, 0x21);
        assert_eq!(read.source.is_ipv4(), read.destination.is_ipv4());
    }
}

/// Hosts and apps that the made-up streams of [`routes`] are about.
const HOSTS: [&str; 8] = ["a.test", "b.test", "*.test", "*.a.test", "x.a.test", "C.Test", "app-1.apps.test", "*"];

fn app(number: u8, hosts: u8) -> routes::App {
    let named = HOSTS.iter().enumerate().filter(|(index, _)| hosts & (1 << index) != 0);
    let id = AppId(Uuid::from_u128(u128::from(number) + 1));
    named_app(id, &format!("app-{number}"), named.map(|(_, host)| *host))
}

/// An app without dynos that has these hosts.
pub(crate) fn named_app<'a>(id: AppId, name: &str, hosts: impl Iterator<Item = &'a str>) -> routes::App {
    routes::App {
        id,
        name: name.parse().expect("a name"),
        hosts: hosts.map(str::to_owned).collect(),
        mode: Mode::Serving,
        web_quantity: 1,
        dynos: vec![],
        error_page_url: None,
        maintenance_page_url: None,
        edge: routes::Edge::default(),
        dialogue: routes::Dialogue::default(),
    }
}

/// Messages out of bytes: frames as they are on the socket, or three bytes for a made-up one.
fn messages(data: &[u8]) -> Vec<Message> {
    let Some((kind, mut rest)) = data.split_first() else { return Vec::new() };
    let mut all = Vec::new();
    if kind & 1 == 0 {
        while let Ok(Some(message)) = read_frame(&mut rest) {
            all.push(message);
        }
        return all;
    }
    for (index, operation) in rest.chunks_exact(3).enumerate() {
        let (generation, entry) = (index as u64, app(operation[1] % 6, operation[2]));
        all.push(match operation[0] % 4 {
            0 => Message::Remove { generation, app: entry.id },
            1 => Message::Part { apps: vec![entry] },
            2 => Message::Snapshot { generation, apps: vec![entry] },
            _ => Message::Upsert { generation, app: Box::new(entry) },
        });
    }
    all
}

/// As [`frame::read_blocking`], without room for more than is there.
fn read_frame(rest: &mut &[u8]) -> std::io::Result<Option<Message>> {
    let claimed = rest.first_chunk().map_or(0, |length| u32::from_le_bytes(*length) as usize);
    if claimed > rest.len() { Ok(None) } else { frame::read_blocking(rest) }
}

/// The route table's stream: hosts lead to an app that claims them and is known, wildcards are counted right, and the
/// table that is written down is the table that is read.
pub fn routes(data: &[u8]) {
    let (table, mut assembly) = (Table::new("apps.test"), Assembly::default());
    let mut known = BTreeMap::new();
    for message in messages(data) {
        let Some(message) = assembly.take(message) else { continue };
        match &message {
            Message::Part { .. } => unreachable!("parts are kept"),
            Message::Snapshot { apps, .. } => known = apps.iter().map(|app| (app.id, app.clone())).collect(),
            Message::Upsert { app, .. } => drop(known.insert(app.id, (**app).clone())),
            Message::Remove { app, .. } => drop(known.remove(app)),
        }
        table.apply(message);
    }
    let claims = |app: &routes::App, host: &str| {
        format!("{}.apps.test", app.name) == host || app.hosts.iter().any(|own| own.eq_ignore_ascii_case(host))
    };
    let own = known.values().map(|app| format!("{}.apps.test", app.name));
    let hosts: Vec<String> = known.values().flat_map(|app| app.hosts.iter().cloned()).chain(own).collect();
    for host in hosts.iter().map(|host| host.to_ascii_lowercase()) {
        if let Some(found) = table.find(&host) {
            let view = found.view();
            let wild = host.match_indices('.').any(|(dot, _)| claims(&view.app, &["*", &host[dot..]].concat()));
            assert!(!view.gone && known.get(&found.id) == Some(&view.app), "{host}: an app that is not known");
            assert!(claims(&view.app, &host) || wild, "{host}: an app that does not claim it");
        }
    }
    let copy = Table::new("apps.test");
    copy.apply(table.snapshot());
    assert_eq!(table.size().1, known.len() as u64);
    assert_eq!(copy.size().1, table.size().1);
    for app in known.into_keys() {
        table.apply(Message::Remove { generation: 1, app });
    }
    assert_eq!(
        (table.size().1, table.size().2, table.find("any.test").is_some()),
        (0, 0, false),
        "what is gone is gone"
    );
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// Runs everything in a target's corpus, and seeded changes of it.
    fn run(target: &str, check: fn(&[u8]), rounds: usize) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
        let mut paths: Vec<_> =
            fs::read_dir(&folder).expect("a corpus").map(|entry| entry.expect("a file").path()).collect();
        paths.sort();
        let corpus: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).expect("a file")).collect();
        assert!(!corpus.is_empty(), "nothing in {}", folder.display());
        corpus.iter().for_each(|bytes| check(bytes));
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..rounds {
            let mut bytes = corpus[random.usize(..corpus.len())].clone();
            for _ in 0..random.usize(1..6) {
                let at = random.usize(..=bytes.len());
                match random.u8(..6) {
                    0 => bytes.insert(at, random.u8(..)),
                    1 => bytes.insert(at, b"\r\n\t :;,0\0\x7f"[random.usize(..10)]),
                    2 if at < bytes.len() => drop(bytes.remove(at)),
                    3 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
                    4 => bytes.truncate(at),
                    _ => {
                        let other = &corpus[random.usize(..corpus.len())];
                        bytes.extend_from_slice(&other[random.usize(..=other.len())..]);
                    }
                }
            }
            check(&bytes);
        }
    }

    #[test]
    fn heads_hold_for_whatever_arrives() {
        run("head", head, 20_000);
    }

    #[test]
    fn chunks_hold_for_whatever_arrives() {
        run("chunks", chunks, 20_000);
    }

    #[test]
    fn headers_of_the_proxy_protocol_hold_for_whatever_arrives() {
        run("proxy", proxy, 20_000);
    }

    #[test]
    fn route_tables_hold_for_whatever_arrives() {
        run("routes", routes, 2_000);
    }
}
