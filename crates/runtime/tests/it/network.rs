//! A dyno's network: listening is noticed, and the bridge is the only way in.

use std::{
    io::Read,
    net::{IpAddr, SocketAddr, TcpStream},
    process::Command as Process,
};

use dozen_api::shim::{Event, Network};

use crate::dyno::{LONG, Setup};

/// A bridge of the test's own, named and numbered by its process and a count.
struct Bridge {
    name: String,
    subnet: (u8, u8),
}

impl Bridge {
    fn new() -> Self {
        static COUNT: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let id = std::process::id();
        let bridge = Self { name: format!("dzt{id}x{count}"), subnet: ((id % 200) as u8, count) };
        let name = bridge.name.as_str();
        ip(&["link", "add", name, "type", "bridge"]);
        ip(&["addr", "add", &format!("{}/24", bridge.v4(1)), "dev", name]);
        ip(&["-6", "addr", "add", &format!("{}/64", bridge.v6(1)), "dev", name, "nodad"]);
        ip(&["link", "set", name, "up"]);
        bridge
    }

    fn v4(&self, host: u8) -> IpAddr {
        IpAddr::from([10, 254 - self.subnet.1, self.subnet.0, host])
    }

    fn v6(&self, host: u16) -> IpAddr {
        IpAddr::from([0xfd12, 0, u16::from(self.subnet.0), u16::from(self.subnet.1), 0, 0, 0, host])
    }

    fn network(&self, host: u8) -> Network {
        Network::Bridge {
            bridge: self.name.clone(),
            addresses: vec![(self.v4(host), 24), (self.v6(host.into()), 64)],
            gateways: vec![self.v4(1), self.v6(1)],
        }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        ip(&["link", "del", &self.name]);
    }
}

fn ip(arguments: &[&str]) {
    let done = Process::new("ip").args(arguments).status().expect("iproute2 is installed");
    assert!(done.success(), "ip {arguments:?}");
}

fn greeting(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect_timeout(&address, LONG).expect("it accepts");
    stream.set_read_timeout(Some(LONG)).expect("a timeout");
    let mut bytes = [0; 18];
    stream.read_exact(&mut bytes).expect("a greeting");
    String::from_utf8_lossy(&bytes).into_owned()
}

fn listening(bridge: &Bridge, host: u8, address: &str, only_v6: bool) -> Vec<IpAddr> {
    let only = if only_v6 { "1" } else { "0" };
    let mut dyno = Setup::probe(&["listen", address, "5000", only])
        .with(|spec| {
            spec.port = Some(5000);
            spec.sandbox.network = bridge.network(host);
        })
        .start();
    let addresses = dyno.wait_for(|event| match event {
        Event::Bound { addresses, .. } => Some(addresses.clone()),
        _ => None,
    });
    for address in &addresses {
        assert_eq!(greeting(*address), "hello from inside\n");
    }
    addresses.iter().map(SocketAddr::ip).collect()
}

#[test]
fn a_dyno_is_reached_at_its_own_addresses_however_it_listens() {
    let bridge = Bridge::new();
    assert_eq!(listening(&bridge, 2, "0.0.0.0", false), [bridge.v4(2)]);
    assert_eq!(listening(&bridge, 3, "::", false), [bridge.v4(3), bridge.v6(3)]);
    assert_eq!(listening(&bridge, 4, "::", true), [bridge.v6(4)]);
}

#[test]
fn a_dyno_that_boots_is_not_looked_at_until_it_listens() {
    let bridge = Bridge::new();
    let mut dyno = Setup::bash("sleep 2; exec /opt/probe probe listen 0.0.0.0 5000")
        .with(|spec| {
            spec.port = Some(5000);
            spec.sandbox.network = bridge.network(2);
        })
        .start();
    let started = crate::dyno::switches(dyno.shim);
    dyno.wait_for(|event| matches!(event, Event::Bound { .. }).then_some(()));
    // A look every 20 ms would be a hundred.
    let woken = crate::dyno::switches(dyno.shim) - started;
    assert!(woken < 50, "the shim woke {woken} times");
}

#[test]
fn listening_elsewhere_first_does_not_hide_the_port() {
    let bridge = Bridge::new();
    let script = "/opt/probe probe listen 0.0.0.0 6000 & sleep 0.2; exec /opt/probe probe listen :: 5000";
    let mut dyno = Setup::bash(script)
        .with(|spec| {
            spec.port = Some(5000);
            spec.sandbox.network = bridge.network(2);
        })
        .start();
    let addresses = dyno.wait_for(|event| match event {
        Event::Bound { addresses, .. } => Some(addresses.clone()),
        _ => None,
    });
    assert_eq!(greeting(addresses[0]), "hello from inside\n");
}

#[test]
fn listening_for_itself_alone_does_not_count() {
    let bridge = Bridge::new();
    let mut dyno = Setup::probe(&["listen", "127.0.0.1", "5000"])
        .with(|spec| {
            spec.port = Some(5000);
            spec.boot_ms = 300;
            spec.sandbox.network = bridge.network(2);
        })
        .start();
    dyno.wait_for(|event| {
        assert!(!matches!(event, Event::Bound { .. }), "{event:?}");
        matches!(event, Event::BootTimeout { .. }).then_some(())
    });
}

#[test]
fn dynos_do_not_reach_each_other() {
    let bridge = Bridge::new();
    let mut server = Setup::probe(&["listen", "0.0.0.0", "5000"])
        .with(|spec| {
            spec.port = Some(5000);
            spec.sandbox.network = bridge.network(2);
        })
        .start();
    server.wait_for(|event| matches!(event, Event::Bound { .. }).then_some(()));
    let (peer, gateway) = (bridge.v4(2), bridge.v4(1));
    // The gateway refuses, so it was reached; the other dyno does not even answer.
    let script = format!(
        "exec 2>&1; timeout 5 bash -c '< /dev/tcp/{gateway}/1' ; timeout 1 bash -c '< /dev/tcp/{peer}/5000'; echo $?"
    );
    let mut client = Setup::bash(&script).with(|spec| spec.sandbox.network = bridge.network(3)).start();
    client.exit();
    let output = client.output();
    assert!(output.contains("Connection refused"), "{output}");
    assert!(output.ends_with("124\n") || output.contains("No route to host"), "{output}");
}

#[test]
fn a_bridge_that_is_not_there_fails_the_start() {
    let network = Network::Bridge { bridge: "dozen-nowhere".to_owned(), addresses: vec![], gateways: vec![] };
    let error = Setup::bash("true").with(|spec| spec.sandbox.network = network).try_start().err().expect("it fails");
    assert!(error.contains("to the bridge dozen-nowhere: No such device"), "{error}");
}

#[test]
fn in_the_machines_network_the_router_comes_by_loopback() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let mut dyno = Setup::probe(&["listen", "::", &free.to_string()])
        .with(|spec| {
            spec.port = Some(free);
            spec.sandbox.network = Network::Host;
        })
        .start();
    let addresses = dyno.wait_for(|event| match event {
        Event::Bound { addresses, .. } => Some(addresses.clone()),
        _ => None,
    });
    assert_eq!(addresses[0], SocketAddr::from(([127, 0, 0, 1], free)));
    assert_eq!(greeting(addresses[0]), "hello from inside\n");
}

#[test]
fn a_dyno_without_a_network_has_its_loopback() {
    let mut dyno =
        Setup::bash("cat /proc/net/dev | tail -n +3 | cut -d: -f1; cat < /dev/null > /dev/tcp/127.0.0.1/1").start();
    dyno.exit();
    assert!(dyno.output().contains("lo\n") && dyno.output().contains("Connection refused"), "{}", dyno.output());
}
