//! Drains to real syslog servers: rsyslog and syslog-ng of Debian, over TCP and TLS. `./test --install-only` unpacks them.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use dozen_api::logs::Source;
use dozen_domain::{ids::AppId, limits::Limits};
use tokio::time::timeout;

use crate::{
    receivers::{drain, set},
    role::{LONG, Role, line},
};

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

/// A server with its files; it ends with the test.
struct Server {
    child: Child,
    output: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Server {
    fn start(program: &str, arguments: &[String], directory: &Path) -> Self {
        let log = fs::File::create(directory.join("server.log")).unwrap();
        let child = Command::new(find(program))
            .args(arguments)
            .env("LD_LIBRARY_PATH", libraries())
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, output: directory.join("out.txt") }
    }

    async fn until(&mut self, what: impl Fn(&str) -> bool) -> String {
        let waited = timeout(LONG, async {
            loop {
                let text = fs::read_to_string(&self.output).unwrap_or_default();
                if what(&text) {
                    return text;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await; // a file tells nobody that it grew
            }
        });
        let log = self.output.with_file_name("server.log");
        waited.await.unwrap_or_else(|_| panic!("{}", fs::read_to_string(log).unwrap()))
    }
}

/// A certificate for localhost that the role trusts; its files in `directory`.
fn certificate(role: &Role, directory: &Path) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    fs::write(directory.join("cert.pem"), certificate.pem()).unwrap();
    fs::write(directory.join("key.pem"), key.serialize_pem()).unwrap();
    fs::write(role.directory.path().join("trust.pem"), certificate.pem()).unwrap();
}

/// Drains a few thousand lines to both URLs and checks what the server wrote: `FACILITY.SEVERITY HOST APP PROCESS TEXT`.
async fn check(role: &Role, server: &mut Server, urls: &[String]) {
    const LINES: usize = 1_000; // as many as may wait for the slower of the two
    let (app, sender) = (AppId::random(), role.sender());
    let drains: Vec<_> = urls.iter().map(|url| drain(app, url)).collect();
    set(role, &drains).await;
    let long = "x".repeat(5_000);
    for n in 0..LINES {
        sender.send(line(app, Source::App, "web.1", &format!("line {n} caf\u{e9} [x] <y> \"z\"")));
    }
    sender.send(line(app, Source::Heroku, "router", &long));
    sender.send(line(app, Source::Heroku, "web.1", "the end"));
    let written = server.until(|text| text.matches("the end\n").count() == urls.len()).await;
    for drain in &drains {
        let token = &drain.token;
        let got: Vec<&str> = written.lines().filter(|line| line.contains(token.as_str())).collect();
        let mut expected: Vec<String> =
            (0..LINES).map(|n| format!("local7.info {token} app web.1 line {n} caf\u{e9} [x] <y> \"z\"")).collect();
        expected.push(format!("local3.info {token} heroku router {long}"));
        expected.push(format!("syslog.notice {token} heroku web.1 the end"));
        assert_eq!(got, expected);
    }
}

async fn role() -> (Role, tempfile::TempDir) {
    let mut role = Role::stopped(Limits::default());
    let directory = tempfile::tempdir().unwrap();
    certificate(&role, directory.path());
    role.run().await;
    (role, directory)
}

#[tokio::test]
async fn rsyslog_takes_messages_over_tcp_and_tls() {
    let (role, directory) = role().await;
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
    fs::write(directory.path().join("server.conf"), config).unwrap();
    let modules = holding("imtcp.so") + ":" + &holding("lmnsd_ossl.so");
    let arguments = ["-n", "-f", "server.conf", "-i", "pid", "-M", &modules].map(str::to_owned);
    let mut server = Server::start("rsyslogd", &arguments, directory.path());
    let port = async |name: &str| {
        let path = directory.path().join(name);
        timeout(LONG, async {
            loop {
                match fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<u16>().ok()) {
                    Some(port) => return port,
                    None => tokio::task::yield_now().await,
                }
            }
        })
        .await
        .unwrap_or_else(|_| panic!("{}", fs::read_to_string(directory.path().join("server.log")).unwrap()))
    };
    let urls = [
        format!("syslog://127.0.0.1:{}", port("tcp.port").await),
        format!("syslog+tls://localhost:{}", port("tls.port").await),
    ];
    check(&role, &mut server, &urls).await;
}

#[tokio::test]
async fn syslog_ng_takes_messages_over_tcp_and_tls() {
    let (role, directory) = role().await;
    let at = directory.path().display();
    // It cannot choose a port and tell it, so two that are free now are named; drains wait until it listens.
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (tcp, tls) = (free(), free());
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
    fs::write(directory.path().join("server.conf"), config).unwrap();
    let modules = format!("--module-path={}", holding("libafsocket.so"));
    let arguments =
        ["-F", "--no-caps", "-f", "server.conf", "--persist-file=persist", "--pidfile=pid", "--control=ctl"];
    let mut arguments: Vec<String> = arguments.map(str::to_owned).to_vec();
    arguments.push(modules);
    let mut server = Server::start("syslog-ng", &arguments, directory.path());
    let urls = [format!("syslog://127.0.0.1:{tcp}"), format!("syslog+tls://localhost:{tls}")];
    check(&role, &mut server, &urls).await;
}
