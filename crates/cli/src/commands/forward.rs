//! Ports of a running dyno at ports of this machine: each connection to one is handed over by the API.

use std::{io, net::Ipv4Addr, sync::Arc, time::Duration};

use serde_json::json;
use tokio::{io::copy_bidirectional, net::TcpListener, sync::mpsc};

use super::Session;
use crate::{Error, Printer};

/// Pause after a failed accept, so that it is not a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// `9229` or `9090:9229`: here, and in the dyno.
fn ports(text: &str) -> Result<(u16, u16), Error> {
    let wrong = || Error::Usage(format!("{text} is invalid: it must be PORT or HERE:THERE, like 9229 or 9090:9229"));
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let (here, there) = text.split_once(':').unwrap_or((text, text));
    // Any free port here may be asked for with 0.
    let here = if here == "0" { Some(0) } else { port(here) };
    Ok((here.ok_or_else(wrong)?, port(there).ok_or_else(wrong)?))
}

pub(super) async fn run(
    session: &Session,
    app: &str,
    dyno: &str,
    wanted: &[String],
    printer: &mut Printer<'_>,
) -> Result<(), Error> {
    let pairs = wanted.iter().flat_map(|text| text.split(',')).map(ports).collect::<Result<Vec<_>, _>>()?;
    // Whether there is such a dyno is known before anybody connects.
    let _: serde_json::Value = session.api.get(&format!("/apps/{app}/dynos/{dyno}")).await?;
    let (complaints, mut complained) = mpsc::channel(16);
    let mut open = Vec::new();
    for (here, there) in pairs {
        let failed = |source| Error::Io { operation: format!("listen on port {here} of 127.0.0.1"), source };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, here)).await.map_err(failed)?;
        let here = listener.local_addr().map_err(failed)?.port();
        open.push((here, there));
        let path: Arc<str> = format!("/apps/{app}/dynos/{dyno}/ports/{there}").into();
        tokio::spawn(accept(listener, session.api.clone(), path, complaints.clone()));
    }
    if printer.is_json() {
        let shown: Vec<_> = open.iter().map(|(here, there)| json!({ "local": here, "remote": there })).collect();
        printer.json(&shown)?;
    } else {
        for (here, there) in &open {
            printer.line(&format!("127.0.0.1:{here} -> {dyno}:{there}"))?;
        }
    }
    printer.note("Forwarding until Ctrl-C.");
    while let Some(complaint) = complained.recv().await {
        printer.note(&complaint);
    }
    Ok(())
}

async fn accept(
    listener: TcpListener,
    api: dozen_api::client::Client,
    path: Arc<str>,
    complaints: mpsc::Sender<String>,
) {
    loop {
        match listener.accept().await {
            Ok((mut here, _)) => {
                let (api, path, complaints) = (api.clone(), path.clone(), complaints.clone());
                tokio::spawn(async move {
                    let carried = async {
                        here.set_nodelay(true)?;
                        let mut there = api.upgrade(&path).await.map_err(io::Error::other)?;
                        // How a connection ends is its two ends' business.
                        _ = copy_bidirectional(&mut here, &mut there).await;
                        io::Result::Ok(())
                    };
                    if let Err(error) = carried.await {
                        _ = complaints.send(error.to_string()).await;
                    }
                });
            }
            Err(error) => {
                _ = complaints.send(error.to_string()).await;
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_the_official_client_has_them() {
        assert_eq!(ports("9229").expect("valid"), (9229, 9229));
        assert_eq!(ports("9090:9229").expect("valid"), (9090, 9229));
        assert_eq!(ports("0:9229").expect("valid"), (0, 9229));
        for bad in ["", "x", "9090:", ":9229", "70000", "1:0", "1:2:3"] {
            assert!(ports(bad).is_err(), "{bad}");
        }
    }
}
