//! Into a running dyno: finding it by name and connecting from inside it, for whoever proved that they may.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use dozen_api::engine::{Connection, Dyno};
use dozen_domain::{dyno::State, ids::AppId};

use crate::{Context, reconcile::driver::chain};

/// The dyno itself, by the name that is tried everywhere it may listen.
pub(crate) const ITSELF: &str = "localhost";
/// Most addresses of a name that are tried.
const ADDRESSES: usize = 4;

/// The live dyno of this name.
pub(crate) fn find(context: &Context, app: AppId, name: &str) -> Option<Dyno> {
    let mut dynos = context.engine.dynos(app).into_iter();
    dynos.rfind(|dyno| dyno.name.to_string() == name && matches!(dyno.state, State::Up { .. } | State::Starting { .. }))
}

/// Connects from inside a dyno. For the dyno itself wherever it listens: its loopback, then its own addresses.
pub(crate) async fn dial(context: &Context, dyno: &Dyno, host: &str, port: u16) -> Option<Box<dyn Connection>> {
    let candidates: Vec<SocketAddr> = if is_itself(host) {
        let own = match &dyno.state {
            State::Up { addresses, .. } => addresses.iter().map(SocketAddr::ip).collect(),
            _ => Vec::new(),
        };
        let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
        loopback.into_iter().chain(own).map(|ip| SocketAddr::new(ip, port)).collect()
    } else {
        tokio::net::lookup_host((host.trim_matches(['[', ']']), port)).await.ok()?.take(ADDRESSES).collect()
    };
    for to in candidates {
        match context.engine.dial(dyno.id, to).await {
            Ok(connection) => return Some(connection),
            Err(error) => tracing::debug!(dyno = %dyno.name, error = %chain(&error), "not connected from a dyno"),
        }
    }
    None
}

/// Names by which a client means the dyno that it is connected to.
fn is_itself(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host.eq_ignore_ascii_case(ITSELF) || address.is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dyno_itself_has_several_names() {
        for name in ["0.0.0.0", "localhost", "127.0.0.1", "::1", "[::]", "LOCALHOST"] {
            assert!(is_itself(name), "{name}");
        }
        for name in ["10.0.0.1", "example.com", "localhost.example.com"] {
            assert!(!is_itself(name), "{name}");
        }
    }
}
