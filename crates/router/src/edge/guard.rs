//! Requests over TLS that ask for another host than their connection was opened for.
//!
//! The name in the handshake decided which certificate the client was shown. A request for another app is misdirected
//! (H31, 421: the client may open a connection of its own for it, RFC 9110 section 15.5.20), and so is one on a
//! connection for a name that is nobody's. Within one app a host is fine that the certificate names; any other one
//! was never shown to be ours (H32). A client that gave no name has seen the default certificate and is served.

use std::sync::Arc;

use crate::{
    error::{Error, Kind},
    exchange::Exchange,
    table::App,
};

/// Says whether the exchange's host may be asked for on its connection.
///
/// # Errors
/// When it may not.
pub(crate) fn check(exchange: &Exchange, app: &Arc<App>) -> Result<(), Error> {
    let Some(name) = exchange.client.server_name.as_deref() else { return Ok(()) };
    if *name == *exchange.host {
        return Ok(());
    }
    let router = &exchange.router;
    if !router.table.find(name).is_some_and(|named| Arc::ptr_eq(&named, app)) {
        return Err(Error::client(Kind::Misdirected));
    }
    if !router.tls.as_ref().is_some_and(|tls| tls.covers(name, &exchange.host)) {
        return Err(Error::client(Kind::Uncertified));
    }
    Ok(())
}
