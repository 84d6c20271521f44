//! Real syslog servers: rsyslog and syslog-ng of Debian, over TCP and TLS. `./test --install-only` unpacks them.
//!
//! What a server takes it writes as `FACILITY.SEVERITY HOST APP PROCESS TEXT`, a line a message.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{LONG, receivers::Certificate, wait_for, wait_until};

/// A server with its files; it ends with the test.
#[derive(Debug)]
pub struct SyslogServer {
    child: Child,
    directory: tempfile::TempDir,
    /// Where it listens for plain connections.
    pub tcp: String,
    /// Where it listens for TLS.
    pub tls: String,
}

impl Drop for SyslogServer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl SyslogServer {
    /// Starts rsyslog, with this certificate.
    ///
    /// # Panics
    /// When it does not start.
    pub fn rsyslog(certificate: &Certificate) -> Self {
        let directory = directory(certificate);
        let at = directory.path().display();
        let config = format!(
            r#"global(workDirectory="{at}" maxMessageSize="64k" defaultNetstreamDriverCAFile="{at}/cert.pem"
                defaultNetstreamDriverCertFile="{at}/cert.pem" defaultNetstreamDriverKeyFile="{at}/key.pem"
                parser.escapeControlCharactersOnReceive="off")
            module(load="imtcp")
            template(name="plain" type="string"
                string="%syslogfacility-text%.%syslogseverity-text% %HOSTNAME% %APP-NAME% %PROCID% %msg%\n")
            input(type="imtcp" address="127.0.0.1" port="0" listenPortFileName="{at}/tcp.port")
            input(type="imtcp" address="127.0.0.1" port="0" listenPortFileName="{at}/tls.port"
                StreamDriver.Name="ossl" StreamDriver.Mode="1" StreamDriver.AuthMode="anon")
            action(type="omfile" file="{at}/out.txt" template="plain")"#
        );
        let modules = holding("imtcp.so") + ":" + &holding("lmnsd_ossl.so");
        let (file, pid) = (format!("{at}/server.conf"), format!("{at}/pid")); // it leaves the directory before it looks
        let arguments = ["-n", "-f", &file, "-i", &pid, "-M", &modules];
        let mut server = Self::start("rsyslogd", &arguments, directory, &config);
        let mut port = |name: &str| {
            let path = server.directory.path().join(name);
            wait_for("rsyslog to listen", LONG, || {
                let ended = server.child.try_wait().expect("a child of our own");
                assert!(ended.is_none(), "rsyslog ended with {ended:?}: {}", server.log());
                fs::read_to_string(&path).ok()?.trim().parse::<u16>().ok()
            })
        };
        let (tcp, tls) = (port("tcp.port"), port("tls.port"));
        server.listens(tcp, tls);
        server
    }

    /// Starts syslog-ng, with this certificate.
    ///
    /// # Panics
    /// When it does not start.
    pub fn syslog_ng(certificate: &Certificate) -> Self {
        // It cannot choose ports and tell them, so two that are free now are named. If another has taken one of them when
        // it starts, it ends, and is started with two others.
        wait_for("syslog-ng to have its ports", LONG, || Self::try_syslog_ng(certificate))
    }

    fn try_syslog_ng(certificate: &Certificate) -> Option<Self> {
        let directory = directory(certificate);
        let at = directory.path().display();
        let bound = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
        let [tcp, tls] = bound.each_ref().map(|listener| listener.local_addr().expect("an address").port());
        drop(bound);
        let config = format!(
            r#"@version: 3.38
            options {{ keep-hostname(yes); use-dns(no); dns-cache(no); log-msg-size(65536); }};
            source tcp {{ syslog(ip("127.0.0.1") port({tcp}) transport("tcp") flags(no-multi-line)); }};
            source tls {{ syslog(ip("127.0.0.1") port({tls}) transport("tls")
                tls(key-file("{at}/key.pem") cert-file("{at}/cert.pem") peer-verify(optional-untrusted))); }};
            destination out {{ file("{at}/out.txt"
                template("$FACILITY.$PRIORITY $HOST $PROGRAM $PID $MSG\n") flush-lines(1)); }};
            log {{ source(tcp); source(tls); destination(out); }};"#
        );
        let modules = format!("--module-path={}", holding("libafsocket.so"));
        let arguments = [
            "-F",
            "--no-caps",
            "-f",
            "server.conf",
            "--persist-file=persist",
            "--pidfile=pid",
            "--control=ctl",
            &modules,
        ];
        let mut server = Self::start("syslog-ng", &arguments, directory, &config);
        let mut ended = false;
        wait_until("syslog-ng to listen or end", LONG, || {
            ended = server.child.try_wait().expect("a child of our own").is_some();
            ended || [tcp, tls].iter().all(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok())
        });
        if ended {
            let log = server.log();
            assert!(log.contains("Address already in use"), "{log}");
            return None;
        }
        server.listens(tcp, tls);
        Some(server)
    }

    fn start(program: &str, arguments: &[&str], directory: tempfile::TempDir, config: &str) -> Self {
        let at = directory.path();
        fs::write(at.join("server.conf"), config).expect("a file");
        let log = fs::File::create(at.join("server.log")).expect("a file");
        let child = Command::new(find(program))
            .args(arguments)
            .env("LD_LIBRARY_PATH", libraries())
            .current_dir(at)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .spawn()
            .expect("the server");
        Self { child, directory, tcp: String::new(), tls: String::new() }
    }

    fn listens(&mut self, tcp: u16, tls: u16) {
        self.tcp = format!("syslog://127.0.0.1:{tcp}");
        self.tls = format!("syslog+tls://localhost:{tls}");
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("server.log")).unwrap_or_default()
    }

    /// What it has written so far.
    pub fn written(&self) -> String {
        fs::read(self.directory.path().join("out.txt"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Waits until what it has written is this, and gives it.
    ///
    /// # Panics
    /// When it does not become so.
    #[track_caller]
    pub fn until(&self, enough: impl Fn(&str) -> bool) -> String {
        let end = std::time::Instant::now() + LONG;
        loop {
            let written = self.written();
            if enough(&written) {
                return written;
            }
            let last: Vec<&str> = written.lines().rev().take(3).collect();
            assert!(std::time::Instant::now() < end, "the last written: {last:?}\n{}", self.log());
            std::thread::sleep(std::time::Duration::from_millis(20)); // a file tells nobody that it grew
        }
    }
}

fn directory(certificate: &Certificate) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("cert.pem"), certificate.pem()).expect("a file");
    fs::write(directory.path().join("key.pem"), certificate.key_pem()).expect("a file");
    directory
}

/// Where `./test` unpacks the servers.
fn unpacked() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/syslog-servers")
}

fn find(name: &str) -> PathBuf {
    let places = [unpacked().join("usr/sbin"), PathBuf::from("/usr/sbin")];
    let found = places.iter().map(|place| place.join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("there is no {name}: run ./test --install-only"))
}

/// The directories below `usr/lib` that hold this file, with colons between.
fn holding(file: &str) -> String {
    fn search(directory: &Path, file: &str, depth: u8, found: &mut Vec<String>) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_name() == file {
                found.push(directory.display().to_string());
            } else if depth > 0 && path.is_dir() {
                search(&path, file, depth - 1, found);
            }
        }
    }
    let mut found = Vec::new();
    for root in [unpacked().join("usr/lib"), PathBuf::from("/usr/lib")] {
        search(&root, file, 3, &mut found);
    }
    assert!(!found.is_empty(), "there is no {file}: run ./test --install-only");
    found.join(":")
}

/// Where the libraries of the unpacked servers are.
fn libraries() -> String {
    let mut all = Vec::new();
    for lib in ["usr/lib", "lib"].map(|lib| unpacked().join(lib)) {
        let below = fs::read_dir(&lib).into_iter().flatten().flatten().map(|entry| entry.path());
        all.extend(below.filter(|path| path.is_dir()).map(|path| path.display().to_string()));
    }
    all.join(":")
}
