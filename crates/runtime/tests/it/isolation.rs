//! What a dyno on the platform's network reaches, and what not.

use std::net::{Ipv4Addr, TcpListener};

use dozen_api::engine::Engine;
use dozen_domain::limits::Limits;

use crate::platform::{Platform, SERVE};

async fn run(p: &Platform, command: &str) -> String {
    let dyno = p.engine.run(p.one_off(&format!("run.{}", fastrand::u16(1000..)), command)).await.expect("started");
    let mut text = String::new();
    let mut output = p.engine.output(dyno.id).await.expect("output");
    tokio::io::AsyncReadExt::read_to_string(&mut output, &mut text).await.expect("text");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dyno_reaches_neither_the_machine_nor_its_neighbours_nor_private_networks() {
    let p = Platform::start(Limits::default()).await;
    p.engine.apply(p.wanted(1, &[("web", SERVE, 1)])).await.expect("applied");
    p.settle(&["web.1 up"]).await;
    let service = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a service of the machine");
    let port = service.local_addr().expect("an address").port();
    let neighbour = p.address("web.1");
    let gateway = {
        let std::net::IpAddr::V4(address) = neighbour.ip() else { panic!("IPv4 first") };
        Ipv4Addr::from(u32::from(address) & (u32::MAX << 12) | 1)
    };
    for (host, port) in [
        (gateway.to_string(), port),
        ("127.0.0.1".to_owned(), port),
        (neighbour.ip().to_string(), neighbour.port()),
        ("169.254.169.254".to_owned(), 80),
        ("192.168.1.1".to_owned(), 80),
    ] {
        let said = run(&p, &format!("timeout 2 bash -c '</dev/tcp/{host}/{port}' 2>/dev/null && echo reached")).await;
        assert_eq!(said, "", "{host}:{port}");
    }
    p.end().await;
}
