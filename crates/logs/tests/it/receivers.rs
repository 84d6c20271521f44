//! Drains to receivers that the test plays.

use dozen_api::drains::{Destination, Drain, replace};
use dozen_domain::{
    config::Secret,
    ids::{AppId, DrainId},
};

use crate::role::Role;

/// A log drain of an app.
pub(crate) fn drain(app: AppId, url: &str) -> Drain {
    Drain {
        id: DrainId::random(),
        app,
        app_name: "shop".to_owned(),
        token: format!("d.{}", DrainId::random()),
        to: Destination::Log(Secret::new(url)),
    }
}

/// Tells the role which drains there are.
pub(crate) async fn set(role: &Role, drains: &[Drain]) {
    replace(&role.socket(), drains.to_vec()).await.unwrap();
}
