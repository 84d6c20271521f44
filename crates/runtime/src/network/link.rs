//! The bridge: made, given its addresses, removed.

use std::fs;

use futures_util::TryStreamExt;
use rtnetlink::{Handle, LinkBridge, LinkUnspec, new_connection};

use super::{Chosen, Error, failed};

fn refused(operation: &'static str, chosen: &Chosen) -> impl FnOnce(rtnetlink::Error) -> Error {
    let bridge = chosen.bridge.clone();
    move |source| Error::Link { operation, bridge, source: Box::new(source) }
}

/// Already there is as good as made.
fn or_there(result: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    match result {
        Err(rtnetlink::Error::NetlinkError(message)) if message.raw_code() == -libc::EEXIST => Ok(()),
        other => other,
    }
}

async fn index(handle: &Handle, chosen: &Chosen) -> Result<Option<u32>, Error> {
    let mut links = handle.link().get().match_name(chosen.bridge.clone()).execute();
    match links.try_next().await {
        Ok(link) => Ok(link.map(|link| link.header.index)),
        Err(rtnetlink::Error::NetlinkError(message)) if message.raw_code() == -libc::ENODEV => Ok(None),
        Err(error) => Err(refused("look for bridge", chosen)(error)),
    }
}

/// Makes the bridge with its addresses unless it is there.
pub(super) async fn bridge(chosen: &Chosen) -> Result<(), Error> {
    let (connection, handle, _) = new_connection().map_err(failed("open", "netlink".as_ref()))?;
    let connection = tokio::spawn(connection);
    let made = make(&handle, chosen).await;
    connection.abort();
    made
}

async fn make(handle: &Handle, chosen: &Chosen) -> Result<(), Error> {
    let made = handle.link().add(LinkBridge::new(&chosen.bridge).build()).execute().await;
    or_there(made).map_err(refused("make bridge", chosen))?;
    let Some(index) = index(handle, chosen).await? else {
        return Err(refused("find bridge", chosen)(rtnetlink::Error::RequestFailed));
    };
    // Without this the bridge's IPv6 address is of no use until the first dyno has come.
    let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{}/accept_dad", chosen.bridge), "0");
    let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{}/accept_ra", chosen.bridge), "0");
    let add = handle.address().add(index, chosen.gateway4().into(), chosen.v4.length).execute().await;
    or_there(add).map_err(refused("give an address to", chosen))?;
    let add = handle.address().add(index, chosen.gateway6().into(), chosen.v6.length).execute().await;
    if let Err(error) = or_there(add) {
        tracing::warn!(%error, "no IPv6 on the dynos' bridge; apps that listen on IPv6 alone are not reached");
    }
    // A bridge left to itself takes the lowest address of its ports: when a dyno goes, it changes, and what the other
    // dynos answer is lost until they have asked for it again.
    let [a, b, c, d] = chosen.gateway4().octets();
    let fixed = vec![0x02, 0xd0, a, b, c, d];
    handle
        .link()
        .set(LinkUnspec::new_with_index(index).address(fixed).up().build())
        .execute()
        .await
        .map_err(refused("start bridge", chosen))
}

/// Removes the bridge if it is there.
pub(super) async fn remove(chosen: &Chosen) -> Result<(), Error> {
    let (connection, handle, _) = new_connection().map_err(failed("open", "netlink".as_ref()))?;
    let connection = tokio::spawn(connection);
    let removed = match index(&handle, chosen).await? {
        Some(index) => handle.link().del(index).execute().await.map_err(refused("remove bridge", chosen)),
        None => Ok(()),
    };
    connection.abort();
    removed
}

/// The bridge's hardware address.
#[cfg(test)]
pub(super) async fn hardware_address(bridge: &str) -> Option<Vec<u8>> {
    use rtnetlink::packet_route::link::LinkAttribute;
    let (connection, handle, _) = new_connection().ok()?;
    let connection = tokio::spawn(connection);
    let link = handle.link().get().match_name(bridge.to_owned()).execute().try_next().await.ok()??;
    connection.abort();
    link.attributes.into_iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(address) => Some(address),
        _ => None,
    })
}
