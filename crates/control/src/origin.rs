//! How a caller reaches the platform, so that the addresses in an answer lead back the same way.
//!
//! A platform has as many names as there are ways to it: `localhost` on its own machine, a host name from elsewhere, the
//! port of a forwarder on the caller's machine (`dozen connect`). Over TLS the `Host` header says which one the caller
//! took, and log streams, rendezvous and uploads are promised there. Plain HTTP has the configured addresses, for other
//! protocols need TLS. Nothing is judged by this: an answer goes to nobody but the caller who named the host.

use std::net::Ipv4Addr;

use dozen_domain::network::ssh_addresses;
use http::{HeaderMap, header, uri::Authority};

use crate::{listen::Via, state::Settings};

tokio::task_local! {
    static HOST: Option<Authority>;
}

/// Runs what answers a request of a caller who reaches the platform by this name.
pub async fn scope<F: Future>(host: Option<Authority>, answering: F) -> F::Output {
    HOST.scope(host, answering).await
}

/// The name by which a caller over TLS reaches the platform.
pub fn host(via: Option<Via>, headers: &HeaderMap) -> Option<Authority> {
    via.filter(|via| via.tls)?;
    let authority: Authority = headers.get(header::HOST)?.to_str().ok()?.parse().ok()?;
    (!authority.as_str().contains('@')).then_some(authority)
}

/// Base of the addresses in answers, without a slash at the end.
pub fn url(settings: &Settings) -> String {
    let of = |host: &Option<Authority>| host.as_ref().map(|host| format!("https://{host}"));
    HOST.try_with(of).ok().flatten().unwrap_or_else(|| settings.api_url.clone())
}

/// `host[:port]` of git remotes.
pub fn git(settings: &Settings) -> String {
    let of = |host: &Option<Authority>| host.as_ref().map(Authority::to_string);
    HOST.try_with(of).ok().flatten().unwrap_or_else(|| settings.git_host.clone())
}

/// `host:port` of the TLS port, as the caller reaches it.
pub fn tls(settings: &Settings) -> String {
    let of = |host: &Option<Authority>| {
        // A port that goes without saying has to be said in a rendezvous.
        host.as_ref().map(|host| host.port().map_or_else(|| format!("{host}:443"), |_| host.to_string()))
    };
    let configured = || settings.tls_url.trim_start_matches("https://").to_owned();
    HOST.try_with(of).ok().flatten().unwrap_or_else(configured)
}

/// Where a forwarder on the caller's machine lets SSH in: the address of the loopback at which the caller reached it.
pub fn ssh(settings: &Settings) -> Option<Ipv4Addr> {
    let host = HOST.try_with(Clone::clone).ok().flatten()?;
    // At the platform's own address there is no forwarder between.
    let own = settings.tls_url.trim_start_matches("https://") == host.as_str();
    host.host().parse().ok().filter(|address| !own && ssh_addresses().any(|one| one == *address))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use http::HeaderValue;

    use super::*;

    async fn seen(tls: bool, host: &'static str) -> (String, String) {
        let via = Via { peer: ([127, 0, 0, 1], 9).into(), tls };
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static(host));
        let settings = Settings::of_directory(PathBuf::from("/nowhere"));
        let answering = async { (url(&settings), super::tls(&settings)) };
        scope(super::host(Some(via), &headers), answering).await
    }

    #[tokio::test]
    async fn ssh_comes_in_where_a_forwarder_was_reached() {
        let seen = async |host: &'static str| {
            let mut settings = Settings::of_directory(PathBuf::from("/nowhere"));
            settings.tls_url = "https://127.0.0.9:5443".to_owned();
            scope(Some(Authority::from_static(host)), async { ssh(&settings) }).await
        };
        assert_eq!(seen("127.0.0.3:41000").await, Some(Ipv4Addr::new(127, 0, 0, 3)));
        for other in ["127.0.0.9:5443", "localhost:41000", "127.0.0.1:41000", "192.0.2.1:5443", "127.0.0.3.example.com"]
        {
            assert_eq!(seen(other).await, None, "{other}");
        }
    }

    #[tokio::test]
    async fn addresses_lead_back_where_the_caller_came_from() {
        let own = ("http://localhost:5000".to_owned(), "localhost:5443".to_owned());
        let named = |host: &str, tls: &str| (format!("https://{host}"), tls.to_owned());
        assert_eq!(seen(true, "paas.example.com:8443").await, named("paas.example.com:8443", "paas.example.com:8443"));
        assert_eq!(seen(true, "paas.example.com").await, named("paas.example.com", "paas.example.com:443"));
        assert_eq!(seen(true, "[2001:db8::1]").await, named("[2001:db8::1]", "[2001:db8::1]:443"));
        for other in ["", "a b", "user@example.com", "a/b"] {
            assert_eq!(seen(true, other).await, own, "{other}");
        }
        assert_eq!(seen(false, "paas.example.com").await, own);
        assert_eq!(url(&Settings::of_directory(PathBuf::from("/nowhere"))), own.0, "outside of a request");
    }
}
