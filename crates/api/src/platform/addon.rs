//! `/addons`, `/addon-attachments`, `/addon-services` and their plans.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Named;

/// An add-on of an app.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Addon {
    /// What its provider offers to do with it: nothing.
    pub actions: Vec<serde_json::Value>,
    /// The service; all of it where it is asked for in full.
    pub addon_service: serde_json::Value,
    /// Whose it is.
    pub app: Named,
    /// What it costs.
    pub billed_price: Price,
    /// Who pays.
    pub billing_entity: BillingEntity,
    /// Config vars that it sets.
    pub config_vars: Vec<String>,
    /// When it was made.
    pub created_at: String,
    /// Id.
    pub id: Uuid,
    /// Name.
    pub name: String,
    /// The plan; all of it where it is asked for in full.
    pub plan: serde_json::Value,
    /// Its id with its provider.
    pub provider_id: String,
    /// What the provider says when it is made.
    pub provision_message: String,
    /// How far it is.
    pub state: String,
    /// When it was last changed.
    pub updated_at: String,
    /// Its dashboard.
    pub web_url: Option<String>,
}

/// Who pays for an add-on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BillingEntity {
    /// Id.
    pub id: Uuid,
    /// Name.
    pub name: String,
    /// `app` or `team`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// What something costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// Hundredths of a dollar.
    pub cents: u64,
    /// Whether a contract says what it costs.
    pub contract: bool,
    /// For how long.
    pub unit: String,
}

/// An app's attachment to an add-on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AddonAttachment {
    /// The add-on.
    pub addon: AttachedAddon,
    /// The app.
    pub app: Named,
    /// When it was attached.
    pub created_at: String,
    /// Id.
    pub id: Uuid,
    /// Where log lines may be sent for it.
    pub log_input_url: Option<String>,
    /// Name; config vars begin with it.
    pub name: String,
    /// A credential.
    pub namespace: Option<String>,
    /// When it was last changed.
    pub updated_at: String,
    /// Its dashboard.
    pub web_url: Option<String>,
}

/// The add-on of an attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedAddon {
    /// Id.
    pub id: Uuid,
    /// Name.
    pub name: String,
    /// Whose it is.
    pub app: Named,
}

/// A kind of add-on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddonService {
    /// A plugin of the official CLI.
    pub cli_plugin_name: Option<String>,
    /// A fixed time.
    pub created_at: String,
    /// Name for people.
    pub human_name: String,
    /// Id.
    pub id: Uuid,
    /// Name.
    pub name: String,
    /// How far its development is.
    pub state: String,
    /// Generations whose apps can have it.
    pub supported_generations: Vec<Named>,
    /// Whether an app may have several.
    pub supports_multiple_installations: bool,
    /// Whether several apps may share one.
    pub supports_sharing: bool,
    /// A fixed time.
    pub updated_at: String,
}

/// A plan of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Of which service.
    pub addon_service: Named,
    /// Regimes that it complies with.
    pub compliance: Option<Vec<String>>,
    /// A fixed time.
    pub created_at: String,
    /// Whether it is taken when none is named.
    pub default: bool,
    /// In words.
    pub description: String,
    /// Name for people.
    pub human_name: String,
    /// Id.
    pub id: Uuid,
    /// Whether apps in private spaces may have it.
    pub installable_inside_private_network: bool,
    /// Whether others may.
    pub installable_outside_private_network: bool,
    /// `service:plan`
    pub name: String,
    /// What it costs.
    pub price: Price,
    /// Whether it is the default in private spaces.
    pub space_default: bool,
    /// How far its development is.
    pub state: String,
    /// A fixed time.
    pub updated_at: String,
    /// Whether it is listed.
    pub visible: bool,
}
