//! `/usage` and `/apps/{app}/usage`: dyno-seconds of a month. Not a part of Heroku's API.

use axum::extract::{Query, State};
use dozen_api::platform::{Named, usage::Usage as View};
use dozen_domain::usage::Month;
use serde::Deserialize;

use super::{
    answer::{Reply, Result},
    member::{Caller, Member},
};
use crate::{
    ops::{self, Error, usage::Entry},
    state::Context,
};

/// Query of both.
#[derive(Debug, Deserialize)]
pub struct Asked {
    /// `2026-11`; the present one when missing.
    month: Option<String>,
}

impl Asked {
    fn month(&self) -> Result<Option<Month>> {
        self.month.as_deref().map(str::parse).transpose().map_err(|error| Error::Invalid(format!("{error}")))
    }
}

/// `GET /usage`
pub async fn of_account(State(context): State<Context>, caller: Caller, Query(asked): Query<Asked>) -> Result {
    let (month, entries) = ops::usage::of_account(&context, &caller.account, asked.month()?).await?;
    Ok(Reply::ok(&entries.into_iter().map(|entry| view(entry, month)).collect::<Vec<_>>()))
}

/// `GET /apps/{app}/usage`
pub async fn of_app(State(context): State<Context>, member: Member, Query(asked): Query<Asked>) -> Result {
    let (month, entries) = ops::usage::of_app(&context, &member.app, asked.month()?).await?;
    Ok(Reply::ok(&entries.into_iter().map(|entry| view(entry, month)).collect::<Vec<_>>()))
}

fn view(entry: Entry, month: Month) -> View {
    View {
        app: Named { id: entry.app.0, name: entry.app_name },
        month,
        process_type: entry.process_type,
        size: entry.size,
        dyno_seconds: entry.dyno_seconds,
        dynos: entry.dynos,
        estimated: entry.estimated,
    }
}
