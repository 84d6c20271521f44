//! Classic buildpacks from a tarball's URL, as a web server hands them out: whole, moved, missing, damaged, changed.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::Path,
};

use crate::workbench::{Built, Workbench};

const DETECT: (&str, &str) = ("bin/detect", "#!/bin/sh\necho Shop\n");
const COMPILE: (&str, &str) = ("bin/compile", "#!/bin/sh\ncat \"$(dirname \"$0\")/../lib/word\" > \"$1/made\"\n");
const RELEASE: (&str, &str) = ("bin/release", "#!/bin/sh\nprintf 'default_process_types:\\n  web: made here\\n'\n");
const WORD: (&str, &str) = ("lib/word", "a word");

/// A gzipped tar of files whose modes say nothing about running them.
fn tarball(folder: &str, files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("{folder}{name}"), content.as_bytes()).expect("a member");
    }
    tar.into_inner().expect("whole").finish().expect("whole")
}

fn whole(folder: &str) -> Vec<u8> {
    tarball(folder, &[DETECT, COMPILE, RELEASE, WORD])
}

/// A web server that lives as long as the test's process: path to status line, headers and body.
fn serve(answers: BTreeMap<&'static str, (&'static str, Vec<u8>)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            answer(stream.expect("a connection"), &answers);
        }
    });
    address
}

fn answer(mut stream: TcpStream, answers: &BTreeMap<&'static str, (&'static str, Vec<u8>)>) {
    let mut lines = BufReader::new(stream.try_clone().expect("a handle")).lines();
    let request = lines.next().expect("a request").expect("text");
    while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    let path = request.split(' ').nth(1).expect("a path");
    let (head, body) = match answers.get(path) {
        Some((head, body)) => (*head, body.as_slice()),
        None => ("404 Not Found", &[][..]),
    };
    // A client that has seen enough may be gone.
    let _ = write!(stream, "HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(body);
}

fn build(url: &str) -> (Workbench, Built) {
    let mut bench = Workbench::new(&[("shop.conf", "")]);
    // The server of the test is not behind the machine's proxy.
    bench.environment.insert("NO_PROXY".into(), "127.0.0.1".into());
    bench.spec.buildpacks = vec![url.parse().expect("a buildpack's URL")];
    let built = bench.build();
    (bench, built)
}

fn made(app: &Path) -> String {
    std::fs::read_to_string(app.join("made")).expect("compiled")
}

#[test]
fn a_tarball_is_fetched_unpacked_and_run_wherever_its_files_lie() {
    let server = serve(BTreeMap::from([
        ("/flat.tgz", ("200 OK", whole(""))),
        ("/folder.tar.gz", ("200 OK", whole("heroku-buildpack-shop-1a2b3c/"))),
        // This one's name is also that of something an app may hold, so it is found by what is in it.
        ("/build.tgz", ("200 OK", whole("build/"))),
        ("/moved.tgz", ("302 Found\r\nLocation: /folder.tar.gz", Vec::new())),
    ]));
    for path in ["flat.tgz", "folder.tar.gz", "build.tgz", "moved.tgz"] {
        let (bench, built) = build(&format!("{server}/{path}"));
        assert_eq!(built.types(), [("web", "made here")], "{path}: {}", built.output);
        assert_eq!(made(bench.app()), "a word");
        assert!(!bench.app().join("lib").exists(), "the buildpack itself is no part of the app");
    }
}

#[test]
fn a_pinned_tarball_is_used_only_while_it_is_the_same_file() {
    let bytes = whole("");
    let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
    let sum: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let server = serve(BTreeMap::from([("/a.tgz", ("200 OK", bytes)), ("/b.tgz", ("200 OK", whole("other/")))]));
    let (_, built) = build(&format!("{server}/a.tgz#sha256:{sum}"));
    assert_eq!(built.status, 0, "{}", built.output);
    let (_, built) = build(&format!("{server}/b.tgz#sha256:{sum}"));
    assert_eq!(built.status, 1);
    assert!(built.output.contains("it is not the file that its checksum is for."), "{}", built.output);
    assert!(built.output.contains("Its SHA-256 is "), "{}", built.output);
}

#[test]
fn whatever_keeps_a_tarball_from_coming_is_told() {
    let mut cut = whole("");
    cut.truncate(cut.len() / 2);
    let server = serve(BTreeMap::from([
        ("/secret.tgz", ("403 Forbidden", b"no".to_vec())),
        ("/loop.tgz", ("302 Found\r\nLocation: /loop.tgz", Vec::new())),
        ("/file.tgz", ("302 Found\r\nLocation: file:///etc/passwd", Vec::new())),
        ("/page.tgz", ("200 OK", b"<html>Please sign in</html>".to_vec())),
        ("/cut.tgz", ("200 OK", cut)),
        ("/climbs.tgz", ("200 OK", climbing())),
        ("/no-compile.tgz", ("200 OK", tarball("", &[DETECT]))),
        ("/empty.tgz", ("200 OK", tarball("", &[]))),
    ]));
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    for (url, expected) in [
        (format!("{server}/missing.tgz"), "its server answered 404."),
        (format!("{server}/secret.tgz"), "its server answered 403."),
        (format!("{server}/loop.tgz"), "it redirects more than ten times."),
        (format!("{server}/file.tgz"), "it redirects to something that is neither http nor https."),
        (format!("{server}/page.tgz"), "its archive cannot be used."),
        (format!("{server}/cut.tgz"), "its archive cannot be used."),
        (format!("{server}/climbs.tgz"), "leaves the root"),
        (format!("{server}/no-compile.tgz"), "it has no executable bin/compile."),
        (format!("{server}/empty.tgz"), "it has no executable bin/detect."),
        (format!("http://{free}/a.tgz"), "nothing answers there."),
        ("http://no-such-host.invalid/a.tgz".to_owned(), "the name of its host is not known."),
    ] {
        let (bench, built) = build(&url);
        assert_eq!(built.status, 1, "{url}: {}", built.output);
        assert!(built.output.contains(expected), "{url}: {}", built.output);
        assert!(built.output.contains("heroku buildpacks"), "{url}: what to do is not told: {}", built.output);
        assert!(!bench.app().join("made").exists());
    }
}

/// A tarball with a file beside its root, which no tool makes by itself.
fn climbing() -> Vec<u8> {
    let mut header = tar::Header::new_old();
    header.set_size(0);
    header.set_mode(0o755);
    let path = b"../../escaped";
    header.as_old_mut().name[..path.len()].copy_from_slice(path);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend([0; 1024]);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&bytes).expect("written");
    gz.finish().expect("whole")
}

#[test]
fn a_tarball_over_the_limit_is_not_taken() {
    let server = serve(BTreeMap::from([("/a.tgz", ("200 OK", vec![0; 2_000_001]))]));
    let mut bench = Workbench::new(&[("shop.conf", "")]);
    bench.environment.insert("NO_PROXY".into(), "127.0.0.1".into());
    bench.spec.buildpacks = vec![format!("{server}/a.tgz").parse().expect("a buildpack's URL")];
    bench.spec.limits.source_bytes = 2_000_000;
    let built = bench.build();
    assert_eq!(built.status, 1);
    assert!(built.output.contains("it is larger than 2 MB."), "{}", built.output);
}
