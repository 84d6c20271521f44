//! The packet filter: one nftables table of the platform's own, put in place by one transaction.
//!
//! Other programs' tables are left alone but for one case: where a filter of the `iptables` kind forwards nothing by
//! default (Docker sets that up), two accepting rules for the bridge are put first in its chain.

use std::{net::IpAddr, path::PathBuf, process::Stdio};

use tokio::{io::AsyncWriteExt, process::Command};

use super::{Chosen, Error, Prefix};

/// Destinations that are nobody's business of a dyno: this host, private, shared, link-local (cloud metadata),
/// multicast and reserved addresses (RFC 6890).
const CLOSED_V4: &str = "0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, \
                         192.168.0.0/16, 224.0.0.0/3";
/// The same for IPv6.
const CLOSED_V6: &str = "::/127, ::ffff:0:0/96, 64:ff9b::/96, fc00::/7, fe80::/10, ff00::/8";

/// Where the `nft` program is. A service's `PATH` often lacks the `sbin` directories.
pub(super) fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|directory| directory.join("nft")).find(|nft| nft.is_file())
}

fn set<'a>(addresses: impl Iterator<Item = &'a IpAddr>) -> String {
    addresses.map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The table as a transaction that replaces what was there.
fn rules(chosen: &Chosen, resolvers: &[IpAddr], allow: &[Prefix], refuse: &str) -> String {
    let Chosen { bridge, table, v4, v6 } = chosen;
    let mut names = String::new();
    for (family, addresses) in [
        ("ip", set(resolvers.iter().filter(|address| address.is_ipv4()))),
        ("ip6", set(resolvers.iter().filter(|address| address.is_ipv6()))),
    ] {
        if !addresses.is_empty() {
            names += &format!("    {family} daddr {{ {addresses} }} meta l4proto {{ tcp, udp }} th dport 53 accept\n");
        }
    }
    let mut open = String::new();
    for prefix in allow {
        let family = if prefix.address.is_ipv4() { "ip" } else { "ip6" };
        open += &format!("    {family} daddr {prefix} accept\n");
    }
    format!(
        r#"table inet {table} {{ }}
delete table inet {table}
table inet {table} {{
  chain input {{
    type filter hook input priority -10; policy accept;
    iifname != "{bridge}" accept
    ct state established,related accept
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
{names}    {refuse}
  }}
  chain forward {{
    type filter hook forward priority -10; policy accept;
    iifname != "{bridge}" oifname != "{bridge}" accept
    ct state established,related accept
    oifname "{bridge}" {refuse}
    ip saddr != {v4} drop
    ip6 saddr != {v6} drop
    tcp flags syn tcp option maxseg size set rt mtu
{names}{open}    ip daddr {{ {CLOSED_V4} }} {refuse}
    ip6 daddr {{ {CLOSED_V6} }} {refuse}
    accept
  }}
  chain leave {{
    type nat hook postrouting priority 100; policy accept;
    ip saddr {v4} oifname != "{bridge}" masquerade
    ip6 saddr {v6} oifname != "{bridge}" masquerade
  }}
}}
"#
    )
}

async fn run(nft: &PathBuf, arguments: &[&str], input: &str) -> Result<String, Error> {
    let refused = |error: std::io::Error| Error::Filter(error.to_string());
    let mut command = Command::new(nft);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(refused)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).await.map_err(refused)?;
    }
    let output = child.wait_with_output().await.map_err(refused)?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(Error::Filter(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

/// Puts the table in place.
pub(super) async fn install(
    nft: &PathBuf,
    chosen: &Chosen,
    resolvers: &[IpAddr],
    allow: &[Prefix],
) -> Result<(), Error> {
    // A kernel without the reject expression drops, which only makes apps wait longer for the same answer.
    let refusing = rules(chosen, resolvers, allow, "reject with icmpx type admin-prohibited");
    if run(nft, &["-f", "-"], &refusing).await.is_err() {
        run(nft, &["-f", "-"], &rules(chosen, resolvers, allow, "drop")).await?;
    }
    pass_other_filter(nft, chosen).await;
    Ok(())
}

/// Rules before those of an `iptables` filter that forwards nothing by default.
async fn pass_other_filter(nft: &PathBuf, chosen: &Chosen) {
    let Ok(chain) = run(nft, &["list", "chain", "ip", "filter", "FORWARD"], "").await else { return };
    let Chosen { bridge, table, .. } = chosen;
    if !chain.contains("policy drop") || chain.contains(table.as_str()) {
        return;
    }
    let rules = format!(
        "insert rule ip filter FORWARD oifname \"{bridge}\" ct state established,related accept comment \"{table}\"\n\
         insert rule ip filter FORWARD iifname \"{bridge}\" accept comment \"{table}\"\n"
    );
    if let Err(error) = run(nft, &["-f", "-"], &rules).await {
        tracing::warn!(%error, "dynos may not reach the internet: this machine's firewall drops what they send");
    }
}

/// Removes the table, and the rules put into another.
pub(super) async fn remove(nft: &PathBuf, chosen: &Chosen) -> Result<(), Error> {
    let table = &chosen.table;
    if let Ok(chain) = run(nft, &["-a", "list", "chain", "ip", "filter", "FORWARD"], "").await {
        for line in chain.lines().filter(|line| line.contains(table.as_str())) {
            if let Some((_, handle)) = line.rsplit_once("# handle ") {
                let _ = run(nft, &["delete", "rule", "ip", "filter", "FORWARD", "handle", handle.trim()], "").await;
            }
        }
    }
    let remove = format!("table inet {table} {{ }}\ndelete table inet {table}\n");
    run(nft, &["-f", "-"], &remove).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_and_allowed_networks_come_before_what_is_closed() {
        let chosen = Chosen {
            bridge: "dz-0a1b2c".to_owned(),
            table: "dozen_0a1b2c".to_owned(),
            v4: "10.88.16.0/20".parse().expect("a network"),
            v6: "fd01::/64".parse().expect("a network"),
        };
        let resolvers = ["10.255.255.53".parse().expect("an address")];
        let allow = ["10.1.0.0/16".parse().expect("a network"), "fd99::/48".parse().expect("a network")];
        let text = rules(&chosen, &resolvers, &allow, "drop");
        let at = |what: &str| text.rfind(what).unwrap_or_else(|| panic!("no {what} in {text}"));
        let closed = at("169.254.0.0/16");
        assert!(at("ip daddr { 10.255.255.53 } meta l4proto { tcp, udp } th dport 53 accept") < closed);
        assert!(at("ip daddr 10.1.0.0/16 accept") < closed && at("ip6 daddr fd99::/48 accept") < closed);
        assert!(!text.contains("ip6 daddr {  }"));
    }
}
