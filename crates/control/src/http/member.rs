//! Who is asking ([`Caller`]), for which app ([`Member`]), and for which thing of it ([`Identity`]).

use std::ops::Deref;

use axum::extract::{FromRequestParts, RawPathParams};
use http::request::Parts;

use crate::{
    ops::{self, Error},
    state::Context,
    store::{accounts::Account, apps::App, authorizations::Authorization, collaborators::Role},
};

/// The account behind a request. The conventions layer puts it there.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who.
    pub account: Account,
    /// By which authorization; `None` for e-mail and password.
    pub authorization: Option<Authorization>,
}

impl FromRequestParts<Context> for Caller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &Context) -> Result<Self, Error> {
        parts.extensions.get::<Self>().cloned().ok_or(Error::Unauthorized("Invalid credentials provided."))
    }
}

/// A caller who may see the app named by the path's `{app}`.
#[derive(Debug, Clone)]
pub struct Member {
    /// Who.
    pub account: Account,
    /// Which app.
    pub app: App,
}

impl FromRequestParts<Context> for Member {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, Error> {
        let Caller { account, .. } = Caller::from_request_parts(parts, context).await?;
        let app = parameter(parts, context, |name, _| name == "app").await?;
        let app = ops::apps::find(context, &account, &app, Role::Collaborator).await?;
        Ok(Self { account, app })
    }
}

/// A [`Member`] who owns the app.
#[derive(Debug, Clone)]
pub struct Owner(pub Member);

impl FromRequestParts<Context> for Owner {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, Error> {
        let member = Member::from_request_parts(parts, context).await?;
        let app = ops::apps::find(context, &member.account, &member.app.id.to_string(), Role::Owner).await?;
        Ok(Self(Member { app, ..member }))
    }
}

/// The last variable part of the path: name or id of what is asked for.
#[derive(Debug, Clone)]
pub struct Identity(pub String);

impl FromRequestParts<Context> for Identity {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, Error> {
        parameter(parts, context, |_, last| last).await.map(Self)
    }
}

impl Deref for Identity {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

async fn parameter(parts: &mut Parts, context: &Context, wanted: impl Fn(&str, bool) -> bool) -> Result<String, Error> {
    let unreadable = |_| Error::BadRequest("The path is not UTF-8.".to_owned());
    let parameters = RawPathParams::from_request_parts(parts, context).await.map_err(unreadable)?;
    let count = parameters.iter().count();
    let found = parameters.iter().enumerate().find(|(index, (name, _))| wanted(name, index + 1 == count));
    found.map(|(_, (_, value))| value.to_owned()).ok_or(Error::NotFound("resource"))
}
