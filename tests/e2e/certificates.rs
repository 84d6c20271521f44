//! Certificates of custom domains: brought by people, and got from an authority (Debian's `pebble`).

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use dozen_testkit::{App, LONG, TestPlatform, wait_until};
use serde_json::{Value, json};

use crate::platform;

/// Asks for a path over TLS, trusting `authority` alone; status and body.
fn https(platform: &TestPlatform, host: &str, authority: &Path) -> Option<String> {
    let address = platform.address("DOZEN_ROUTER_TLS_LISTEN");
    let port = address.rsplit(':').next().expect("a port");
    let answer = Command::new("curl")
        .args(["-sS", "--max-time", "20", "--resolve", &format!("{host}:{port}:127.0.0.1")])
        .args(["-o", "/dev/null", "-w", "%{http_code}", "--cacert"])
        .arg(authority)
        .arg(format!("https://{host}:{port}/"))
        .output()
        .expect("curl");
    answer.status.success().then(|| String::from_utf8_lossy(&answer.stdout).into_owned())
}

#[test]
fn people_bring_certificates_with_the_cli() {
    let platform = platform().start();
    let app = App::create(&platform, "secured");
    let folder = platform.scratch("certificates");
    let heroku = |arguments: &[&str]| {
        let words: Vec<&str> = arguments.iter().copied().chain(["-a", "secured"]).collect();
        platform.heroku_in(&folder, &words)
    };
    drop(heroku(&["certs"]).success().says("has no SSL certificates"));
    drop(heroku(&["certs:generate", "www.example.com", "--selfsigned", "--now"]).success());
    drop(heroku(&["certs:add", "www.example.com.crt", "www.example.com.key"]).success().says("www.example.com"));
    drop(heroku(&["domains:add", "www.example.com"]).success());
    let (_, endpoints) = platform.api("GET", "/apps/secured/sni-endpoints", None);
    let name = endpoints[0]["name"].as_str().expect("a name");
    drop(heroku(&["certs"]).success().says(name));
    drop(heroku(&["certs:info", "--show-domains"]).success().says("self signed"));
    let trusted = folder.join("www.example.com.crt");
    wait_until("the certificate to be shown", LONG, || https(&platform, "www.example.com", &trusted).is_some());
    assert_eq!(https(&platform, "www.example.com", &trusted).as_deref(), Some("503"), "the page of a blank app");

    // The key of another certificate is refused with the reason.
    drop(heroku(&["certs:generate", "other.example.com", "--selfsigned", "--now"]).success());
    drop(heroku(&["certs:add", "www.example.com.crt", "other.example.com.key"]).failure().says("does not belong"));
    drop(heroku(&["certs:generate", "www.example.com", "--selfsigned", "--now"]).success());
    let update = ["certs:update", "www.example.com.crt", "www.example.com.key", "--confirm", "secured"];
    drop(heroku(&update).success().says("Updated certificate details"));
    wait_until("the other one", LONG, || https(&platform, "www.example.com", &trusted).is_some());
    drop(heroku(&["domains:update", "www.example.com", "--cert", name]).success());
    drop(heroku(&["certs:remove", "--name", name, "--confirm", "secured"]).success());
    wait_until("the default one", LONG, || https(&platform, "www.example.com", &trusted).is_none());
    drop(app);
}

/// A certificate authority for tests, with a name server that leads every name to this machine.
struct Pebble {
    processes: Vec<Child>,
}

impl Drop for Pebble {
    fn drop(&mut self) {
        for process in &mut self.processes {
            _ = process.kill();
            _ = process.wait();
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

fn port_of(address: &str) -> u16 {
    address.rsplit(':').next().expect("a port").parse().expect("a number")
}

impl Pebble {
    /// Listens at `port`, and looks for names at these ports.
    fn start(folder: &Path, port: u16, http: u16, tls: u16) -> Self {
        let configuration = json!({"pebble": {
            "listenAddress": format!("127.0.0.1:{port}"), "managementListenAddress": format!("127.0.0.1:{}", free_port()),
            "certificate": folder.join("pebble.pem"), "privateKey": folder.join("pebble.key"),
            "httpPort": http, "tlsPort": tls, "ocspResponderURL": "", "externalAccountBindingRequired": false,
        }});
        let file = folder.join("pebble.json");
        fs::write(&file, configuration.to_string()).expect("a file");
        let names = free_port();
        let quiet = |command: &mut Command| {
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("pebble (./test --install-only)")
        };
        let server = quiet(Command::new("pebble-challtestsrv").args([
            "-defaultIPv4=127.0.0.1",
            "-defaultIPv6=",
            "-http01=",
            "-https01=",
            "-tlsalpn01=",
            &format!("-dns01=127.0.0.1:{names}"),
            &format!("-management=127.0.0.1:{}", free_port()),
        ]));
        let authority = quiet(
            Command::new("pebble")
                .arg("-config")
                .arg(file)
                .arg(format!("-dnsserver=127.0.0.1:{names}"))
                .env("PEBBLE_VA_NOSLEEP", "1"),
        );
        let pebble = Self { processes: vec![server, authority] };
        let listens = |port: u16| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        wait_until("the certificate authority", LONG, || listens(port));
        pebble
    }
}

/// A certificate for `localhost`, which is its own authority.
fn own_certificate(folder: &Path) -> PathBuf {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=pebble"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-keyout", "pebble.key", "-out", "pebble.pem"])
        .current_dir(folder)
        .output()
        .expect("openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    folder.join("pebble.pem")
}

fn domain(platform: &TestPlatform, host: &str) -> Value {
    platform.api("GET", &format!("/apps/managed/domains/{host}"), None).1
}

#[test]
fn an_authority_is_asked_for_certificates_and_asked_again_when_it_fails() {
    let folder = tempfile::tempdir().expect("a folder");
    let trusted = own_certificate(folder.path());
    let port = free_port();
    let platform = platform()
        .variable("DOZEN_ACME_DIRECTORY", &format!("https://localhost:{port}/dir"))
        .variable("DOZEN_ACME_CA_FILE", &trusted.display().to_string())
        .variable("DOZEN_ACME_EMAIL", "ops@example.com")
        .limit("acme_look_seconds", 1)
        .limit("acme_retry_seconds", 1)
        .limit("acme_retry_max_seconds", 1)
        .start();
    let app = App::create(&platform, "managed");
    drop(app.heroku(&["certs:auto"]).says("disabled"));
    let add = |host: &str| {
        let body = json!({"hostname": host, "sni_endpoint": null});
        assert_eq!(platform.api("POST", "/apps/managed/domains", Some(&body)).0, 201);
    };
    add("www.example.com");
    assert_eq!(domain(&platform, "www.example.com")["acm_status"], Value::Null);

    // Nobody listens at the authority's address: told, and tried again.
    drop(app.heroku(&["certs:auto:enable"]));
    let status = |host: &str, wanted: &str| {
        wait_until(&format!("{host} to be {wanted}"), LONG, || domain(&platform, host)["acm_status"] == wanted);
    };
    status("www.example.com", "failing");
    app.wait_for_log("heroku[acm]: No certificate for www.example.com: the certificate authority cannot be used");
    drop(app.heroku(&["certs:auto"]).says("Failing"));

    // The authority looks by HTTP-01 and finds the token.
    let (http, tls) =
        (port_of(&platform.address("DOZEN_ROUTER_LISTEN")), port_of(&platform.address("DOZEN_ROUTER_TLS_LISTEN")));
    let pebble = Pebble::start(folder.path(), port, http, tls);
    status("www.example.com", "cert issued");
    app.wait_for_log("heroku[acm]: Certificate for www.example.com issued");
    drop(app.heroku(&["certs:auto"]).says("Cert issued"));
    let issuer = |host: &str| {
        let (_, all) = platform.api("GET", "/apps/managed/sni-endpoints", None);
        let of = |one: &&Value| one["ssl_cert"]["cert_domains"] == json!([host]);
        all.as_array().expect("a list").iter().find(of).map(|one| one["ssl_cert"].clone())
    };
    let certificate = issuer("www.example.com").expect("its certificate");
    assert_eq!(certificate["acm"], true);
    assert!(certificate["issuer"].as_str().is_some_and(|issuer| issuer.contains("Pebble")), "{certificate}");
    wait_until("it to be shown", LONG, || shown(&platform, "www.example.com").contains("Pebble"));
    drop(pebble);

    // Another authority at the same address, which has forgotten the account, and finds names by TLS-ALPN-01 alone.
    let pebble = Pebble::start(folder.path(), port, free_port(), tls);
    add("api.example.com");
    status("api.example.com", "cert issued");
    assert!(issuer("api.example.com").is_some());
    add("*.example.com");
    status("*.example.com", "failed");
    drop(pebble);

    drop(app.heroku(&["certs:auto:disable", "--confirm", "managed"]));
    assert_eq!(platform.api("GET", "/apps/managed/sni-endpoints", None).1, json!([]));
    wait_until("the default certificate", LONG, || !shown(&platform, "www.example.com").contains("Pebble"));
}

/// What `openssl` says of the certificate that a name is shown.
fn shown(platform: &TestPlatform, host: &str) -> String {
    let address = platform.address("DOZEN_ROUTER_TLS_LISTEN");
    let said = Command::new("openssl")
        .args(["s_client", "-connect", &address, "-servername", host])
        .stdin(Stdio::null())
        .output()
        .expect("openssl");
    String::from_utf8_lossy(&said.stdout).into_owned()
}
