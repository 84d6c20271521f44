//! Session affinity: the requests of one browser go to one dyno, by a cookie that names it.
//!
//! The cookie is a preference and no right: a dyno that is gone, not up, or passed over is another's turn, and the answer
//! then names the new one. Whoever makes up a cookie can only choose among the dynos of the app that is asked.

use dozen_domain::ids::DynoId;

use crate::{
    exchange::Exchange,
    table::App,
    wire::{head::Head, http2::Fields, names::Name},
};

const COOKIE_NAME: &str = "heroku-session-affinity";
/// How long a browser keeps it, in seconds: a dyno is restarted once a day.
const LIFE: u32 = 86_400;

/// The dyno that a request's cookie names, where the app wants that.
pub(crate) fn wanted(app: &App, head: &Head) -> Option<DynoId> {
    if !app.view().app.edge.session_affinity {
        return None;
    }
    let cookies = head.all(Name::Cookie).filter_map(|value| std::str::from_utf8(value).ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE_NAME)?.1.parse().ok()
}

/// Names the dyno that has answered to the browser, unless it was asked for.
pub(crate) fn keep(exchange: &Exchange, output: &mut impl Fields) {
    let (Some(app), Some(dyno)) = (&exchange.app, &exchange.dyno) else { return };
    if exchange.wanted == Some(dyno.id) || !app.view().app.edge.session_affinity {
        return;
    }
    let secure = if exchange.client.tls { "; Secure" } else { "" };
    let id = dyno.id.0.simple();
    let cookie = format!("{COOKIE_NAME}={id}; Path=/; Max-Age={LIFE}; HttpOnly; SameSite=Lax{secure}");
    output.put(b"set-cookie", cookie.as_bytes());
}
