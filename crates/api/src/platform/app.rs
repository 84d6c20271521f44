//! `GET /apps/{app}`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Named, Person};

/// An app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// Certificates are managed by the platform.
    pub acm: bool,
    /// Always null: apps are not archived here.
    pub archived_at: Option<String>,
    /// Stack of the next build.
    pub build_stack: Named,
    /// What the buildpack of the current slug calls itself.
    pub buildpack_provided_description: Option<String>,
    /// Always `complete`: an app is made at once. Not in the schema; the official client's `apps:info` reads it.
    pub create_status: String,
    /// When it was made.
    pub created_at: String,
    /// `cedar`: decides how clients behave.
    pub generation: Named,
    /// Where it is pushed to.
    pub git_url: String,
    /// Id.
    pub id: Uuid,
    /// Always null: everything is one network.
    pub internal_routing: Option<bool>,
    /// Maintenance mode.
    pub maintenance: bool,
    /// Name.
    pub name: String,
    /// Always null: teams do not exist here.
    pub organization: Option<Named>,
    /// Whose.
    pub owner: Person,
    /// Where it runs.
    pub region: Named,
    /// When the newest release was made.
    pub released_at: Option<String>,
    /// Bytes of its git repository.
    pub repo_size: Option<i64>,
    /// Bytes of the current slug.
    pub slug_size: Option<i64>,
    /// Always null: spaces do not exist here.
    pub space: Option<Named>,
    /// Stack of the current slug.
    pub stack: Named,
    /// Always null: teams do not exist here.
    pub team: Option<Named>,
    /// When it was last changed.
    pub updated_at: String,
    /// Where it answers.
    pub web_url: Option<String>,
}
