//! Drains to real syslog servers: rsyslog and syslog-ng of Debian, over TCP and TLS.

use std::fs;

use dozen_api::logs::Source;
use dozen_domain::{ids::AppId, limits::Limits};
use dozen_testkit::{receivers::Certificate, syslog_servers::SyslogServer};
use tokio::task::spawn_blocking;

use crate::{
    receivers::{drain, set},
    role::{Role, line},
};

/// Drains a few thousand lines to both URLs and checks what the server wrote: `FACILITY.SEVERITY HOST APP PROCESS TEXT`.
async fn check(role: &Role, server: SyslogServer) {
    const LINES: usize = 1_000; // as many as may wait for the slower of the two
    let (app, sender) = (AppId::random(), role.sender());
    let urls = [server.tcp.clone(), server.tls.clone()];
    let drains: Vec<_> = urls.iter().map(|url| drain(app, url)).collect();
    set(role, &drains).await;
    let long = "x".repeat(5_000);
    for n in 0..LINES {
        sender.send(line(app, Source::App, "web.1", &format!("line {n} caf\u{e9} [x] <y> \"z\"")));
    }
    sender.send(line(app, Source::Heroku, "router", &long));
    sender.send(line(app, Source::Heroku, "web.1", "the end"));
    let both = |text: &str| text.matches("the end\n").count() == 2;
    let written = spawn_blocking(move || server.until(both)).await.unwrap();
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

/// A role that trusts this certificate.
async fn role(certificate: &Certificate) -> Role {
    let mut role = Role::stopped(Limits::default());
    fs::write(role.directory.path().join("trust.pem"), certificate.pem()).unwrap();
    role.run().await;
    role
}

#[tokio::test]
async fn rsyslog_takes_messages_over_tcp_and_tls() {
    let certificate = Certificate::of("localhost");
    check(&role(&certificate).await, SyslogServer::rsyslog(&certificate)).await;
}

#[tokio::test]
async fn syslog_ng_takes_messages_over_tcp_and_tls() {
    let certificate = Certificate::of("localhost");
    check(&role(&certificate).await, SyslogServer::syslog_ng(&certificate)).await;
}
